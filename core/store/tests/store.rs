//! A data folder through restarts, damage and crashes.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::fs;
use std::path::Path;

use bbh_store::{Notice, Store, StoreError, StoredDownload, StoredIntent};
use bbh_types::ContentId;

fn open(folder: &Path) -> Store {
    let opened = Store::open(folder).unwrap();
    assert_eq!(opened.notices, []);
    opened.store
}

fn content(byte: u8) -> ContentId {
    ContentId::from_bytes([byte; 32])
}

fn download(verified: &[(u64, u64)]) -> StoredDownload {
    StoredDownload {
        name: "Zwölf Lieder.mp3".into(),
        size: Some(9_000_000_000),
        verified: verified.iter().map(|(start, end)| *start..*end).collect(),
        intent: StoredIntent::Active,
        path: None,
        to: Some("/music".into()),
        moving_to: None,
    }
}

#[test]
fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/data");
    let store = open(&data);
    let seed = *store.seed();
    let boot = store.next_boot().unwrap();
    store.set_setting("name", &"Anna's phone").unwrap();
    store
        .update_download(content(1), |old| {
            assert_eq!(old, None);
            download(&[(0, 16_384), (5_000_000_000, 6_000_000_000)])
        })
        .unwrap();
    store.update_download(content(2), |_| download(&[])).unwrap();
    store.remove_download(content(2)).unwrap();
    store.put_index_entries([(b"/a".as_slice(), b"1".as_slice()), (b"/b", b"2"), (b"/c", b"3")]).unwrap();
    store.put_index_entries([(b"/c", b"33")]).unwrap();
    store.remove_index_entries([b"/b", b"/x"]).unwrap();
    store.put_shares(b"roots").unwrap();
    drop(store);

    let store = open(&data);
    assert_eq!(*store.seed(), seed);
    assert!(store.next_boot().unwrap() > boot);
    assert_eq!(store.setting::<String>("name").unwrap().as_deref(), Some("Anna's phone"));
    assert_eq!(store.setting::<String>("never set").unwrap(), None);
    let expected = download(&[(0, 16_384), (5_000_000_000, 6_000_000_000)]);
    assert_eq!(store.downloads().unwrap(), [(content(1), expected.clone())]);
    assert_eq!(store.download(content(1)).unwrap(), Some(expected));
    assert_eq!(store.download(content(2)).unwrap(), None);
    let mut index = Vec::new();
    store.for_each_index_entry(|key, value| index.push((key.to_vec(), value.to_vec()))).unwrap();
    assert_eq!(index, [(b"/a".to_vec(), b"1".to_vec()), (b"/c".to_vec(), b"33".to_vec())]);
    assert_eq!(store.shares().unwrap().as_deref(), Some(b"roots".as_slice()));
}

#[test]
fn two_folders_are_two_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let one = open(&folder.path().join("1"));
    let two = open(&folder.path().join("2"));
    assert_ne!(one.seed(), two.seed());
    assert_ne!(Store::in_memory().unwrap().seed(), one.seed());
}

#[test]
fn a_second_opener_is_refused_until_the_first_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path());
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::InUse(_)), "{error}");
    assert!(error.to_string().contains("in use by another bbh"), "{error}");
    first.set_setting("name", &"still works").unwrap();
    drop(first);
    assert_eq!(open(folder.path()).setting::<String>("name").unwrap().as_deref(), Some("still works"));
}

#[cfg(unix)]
#[test]
fn others_can_read_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(&data));
    for (path, expected) in [("", 0o700), ("identity.key", 0o600), ("store.redb", 0o600)] {
        let path = data.join(path);
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    // What was opened to others by mistake, by a backup put back for instance, is closed again.
    for path in ["", "identity.key", "store.redb"] {
        fs::set_permissions(data.join(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
    drop(open(&data));
    for (path, expected) in [("", 0o700), ("identity.key", 0o600), ("store.redb", 0o600)] {
        assert_eq!(mode(&data.join(path)), expected);
    }
    // A folder with other things in it keeps its permissions.
    let home = folder.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(home.join("letter.txt"), "x").unwrap();
    drop(open(&home));
    assert_eq!(mode(&home), 0o755);
}

#[test]
fn a_damaged_database_is_kept_aside_and_the_identity_survives() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let seed = *store.seed();
    let mut boot = store.next_boot().unwrap();
    for number in 0..200_u8 {
        store.update_download(content(number), |_| download(&[(0, 16_384)])).unwrap();
    }
    drop(store);
    let file = folder.path().join("store.redb");
    let whole = fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    for byte in flipped[4096..].iter_mut().step_by(97) {
        *byte ^= 0x55;
    }
    let damages =
        [b"this is no database at all".repeat(1000), whole[..whole.len() / 3].to_vec(), flipped, vec![0; 9000]];
    for (number, damaged) in (1..).zip(damages) {
        fs::write(&file, &damaged).unwrap();
        let opened = Store::open(folder.path()).unwrap();
        let kept = folder.path().join(format!("store.redb.damaged-{number}"));
        let [Notice::DatabaseDamaged { kept_as, .. }] = &opened.notices[..] else {
            panic!("damage {number}: {:?}", opened.notices);
        };
        assert_eq!(*kept_as, kept);
        assert!(opened.notices[0].to_string().contains("a new one was begun"));
        assert!(kept.exists());
        assert_eq!(*opened.store.seed(), seed);
        let next = opened.store.next_boot().unwrap();
        assert!(next >= boot, "boot numbers must not go back: {next} after {boot}");
        boot = next;
        assert_eq!(opened.store.downloads().unwrap(), []);
        drop(opened);
        drop(open(folder.path()));
    }
}

#[test]
fn a_lost_or_cut_identity_file_is_restored_from_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let seed = *open(folder.path()).seed();
    let file = folder.path().join("identity.key");
    for damage in [None, Some(&b""[..]), Some(&[7; 31]), Some(&[7; 33])] {
        fs::remove_file(&file).unwrap();
        if let Some(bytes) = damage {
            fs::write(&file, bytes).unwrap();
        }
        let opened = Store::open(folder.path()).unwrap();
        assert_eq!(opened.notices, [Notice::IdentityRestored]);
        assert_eq!(*opened.store.seed(), seed);
        assert_eq!(fs::read(&file).unwrap(), seed);
    }
}

#[test]
fn a_backup_of_the_identity_put_back_wins() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    fs::write(folder.path().join("identity.key"), [9; 32]).unwrap();
    assert_eq!(*open(folder.path()).seed(), [9; 32]);
    fs::remove_file(folder.path().join("identity.key")).unwrap();
    assert_eq!(*Store::open(folder.path()).unwrap().store.seed(), [9; 32]);
}

#[test]
fn a_damaged_identity_without_a_copy_is_not_silently_replaced() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    fs::remove_file(folder.path().join("store.redb")).unwrap();
    fs::write(folder.path().join("identity.key"), [7; 31]).unwrap();
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::IdentityDamaged { length: 31, .. }), "{error}");
    assert_eq!(fs::read(folder.path().join("identity.key")).unwrap(), [7; 31]);
}

#[test]
fn a_store_of_a_newer_program_is_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()));
    let file = folder.path().join("store.redb");
    {
        let db = redb::Database::open(&file).unwrap();
        let transaction = db.begin_write().unwrap();
        transaction.open_table(redb::TableDefinition::<&str, u32>::new("meta")).unwrap().insert("schema", 99).unwrap();
        transaction.commit().unwrap();
    }
    let error = Store::open(folder.path()).unwrap_err();
    assert!(matches!(error, StoreError::TooNew { found: 99, .. }), "{error}");
    assert!(error.to_string().contains("update this program"), "{error}");
    assert!(file.exists() && !folder.path().join("store.redb.damaged-1").exists());
}

#[test]
fn a_file_copied_in_the_middle_of_writing_has_the_last_durable_state() {
    // What a crash leaves: the file as it is on disk while the database is open and has just committed.
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let copy = tempfile::tempdir().unwrap();
    for number in 1..=20_u64 {
        store.update_download(content(1), |_| download(&[(0, number * 16_384)])).unwrap();
        for file in ["store.redb", "identity.key"] {
            fs::copy(folder.path().join(file), copy.path().join(file)).unwrap();
        }
        let crashed = open(copy.path());
        assert_eq!(crashed.download(content(1)).unwrap(), Some(download(&[(0, number * 16_384)])));
        assert_eq!(crashed.seed(), store.seed());
    }
}

#[test]
fn a_panic_inside_a_change_leaves_the_old_record() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store.update_download(content(1), |_| download(&[(0, 1)])).unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.update_download(content(1), |_| panic!("for the test"))
    }));
    assert!(result.is_err());
    assert_eq!(store.download(content(1)).unwrap(), Some(download(&[(0, 1)])));
    store.update_download(content(1), |_| download(&[(0, 2)])).unwrap();
    drop(store);
    assert_eq!(open(folder.path()).download(content(1)).unwrap(), Some(download(&[(0, 2)])));
}

#[test]
fn a_folder_that_cannot_be_made_is_named_in_the_error() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "x").unwrap();
    let error = Store::open(&folder.path().join("file/data")).unwrap_err().to_string();
    assert!(error.contains("file/data"), "{error}");
}
