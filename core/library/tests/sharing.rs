//! What is shared, what is not and why, and what later scans notice.

mod common;

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bbh_library::{Job, Progress, Reason, path_from_bytes, path_to_bytes};
use bbh_types::{FileKind, Priority};
use common::{World, bytes, id_of, reason};

#[test]
fn a_folder_is_shared_with_all_below_it_and_the_hashes_are_those_of_b3sum_and_md5sum() {
    let world = World::new();
    let song = bytes(5_000_001, 1);
    world.write("music/live/1979/Song.mp3", &song);
    world.write("music/empty.txt", "");
    world.write("music/note.txt", "abc");
    let report = world.share("music");
    assert_eq!(report.added.len(), 3);
    assert_eq!(report.problems, []);
    assert_eq!(report.hashed_bytes, song.len() as u64 + 3);
    assert_eq!(world.shown(), ["music/empty.txt", "music/live/1979/Song.mp3", "music/note.txt"]);

    let entry = world.library.entry(&world.path("music/live/1979/Song.mp3")).unwrap();
    assert_eq!(entry.record.content_id, id_of(&song));
    assert_eq!((entry.record.size, entry.record.kind), (song.len() as u64, FileKind::Audio));
    let note = world.library.entry(&world.path("music/note.txt")).unwrap();
    assert_eq!(note.record.md5.to_string(), "900150983cd24fb0d6963f7d28e17f72");
    let empty = world.library.entry(&world.path("music/empty.txt")).unwrap();
    assert_eq!(empty.record.md5.to_string(), "d41d8cd98f00b204e9800998ecf8427e");
    assert_eq!(empty.record.content_id, id_of(b""));

    assert_eq!(world.library.lookup(&id_of(b"abc")), Some(note.record.clone()));
    assert_eq!(world.library.lookup_md5(&note.record.md5), std::slice::from_ref(&note.record));
    assert_eq!(world.library.lookup(&id_of(b"other")), None);
}

#[test]
fn md5_agrees_whether_one_thread_or_two_compute_it() {
    // 8 MiB go through two threads, their pieces through one: the parts are checked against the whole by
    // BLAKE3, so MD5 is compared with a known value of the same bytes.
    let world = World::new();
    world.write("music/million", vec![b'a'; 1_000_000]);
    world.write("music/zeros", vec![0; 10 << 20]);
    world.share("music");
    let md5 = |name: &str| world.library.entry(&world.path(name)).unwrap().record.md5.to_string();
    assert_eq!(md5("music/million"), "7707d6ae4e027c70eea2a935c2296f21");
    assert_eq!(md5("music/zeros"), "f1c9645dbc14efddc7d8a322685f26eb");
}

#[test]
fn a_file_shared_alone_has_no_folder_and_sharing_again_adds_nothing() {
    let world = World::new();
    world.write("music/a.txt", "a");
    assert_eq!(world.share("music/a.txt").added.len(), 1);
    assert_eq!(world.shown(), ["/a.txt"]);
    let again = world.share("music/a.txt");
    assert_eq!((again.added.len(), again.unchanged, again.hashed_bytes), (0, 1, 0));
    // Its folder too: one entry, now shown in the folder, and not read again.
    let folder = world.share("music");
    assert_eq!((folder.added.len(), folder.unchanged, folder.hashed_bytes), (0, 1, 0));
    assert_eq!(world.shown(), ["music/a.txt"]);
}

#[test]
fn missing_paths_are_named_and_the_rest_is_shared() {
    let world = World::new();
    world.write("music/a.txt", "a");
    let absent = world.path("absent");
    let report = world.library.share(&[absent.clone(), world.path("music")], Job::default()).unwrap();
    assert_eq!(reason(&report, &absent), Some(Reason::NotFound));
    assert!(report.problems[0].to_string().contains("no such file"), "{}", report.problems[0]);
    assert_eq!(world.shown(), ["music/a.txt"]);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_loops_dead_links_and_pipes_are_reported() {
    use std::os::unix::fs::symlink;
    let world = World::new();
    world.write("music/sub/a.txt", "a");
    world.write("elsewhere/b.txt", "b");
    world.write("elsewhere/deep/c.txt", "c");
    symlink(world.path("music"), world.path("music/sub/up")).unwrap();
    symlink("/", world.path("music/everything")).unwrap();
    symlink("itself", world.path("music/itself")).unwrap();
    symlink("nowhere", world.path("music/dead")).unwrap();
    symlink(world.path("elsewhere/b.txt"), world.path("music/linked.txt")).unwrap();
    symlink(world.path("elsewhere/deep"), world.path("music/folder")).unwrap();
    symlink(world.path("music/sub"), world.path("music/again")).unwrap();
    let pipe = world.path("music/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    let report = world.share("music");
    assert_eq!(world.shown(), ["music/folder/c.txt", "music/linked.txt", "music/sub/a.txt"]);
    assert_eq!(reason(&report, &world.path("music/sub/up")), Some(Reason::LinkLoop));
    assert_eq!(reason(&report, &world.path("music/everything")), Some(Reason::LinkLoop));
    assert_eq!(reason(&report, &world.path("music/itself")), Some(Reason::LinkLoop));
    assert_eq!(reason(&report, &world.path("music/dead")), Some(Reason::DeadLink));
    assert_eq!(reason(&report, &pipe), Some(Reason::Special));
    assert_eq!(report.problems.len(), 5, "{:?}", report.problems);
    assert_eq!(world.rescan().unchanged, 3);
}

#[cfg(unix)]
#[test]
fn an_unreadable_file_is_reported_and_the_rest_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new();
    let locked = world.write("music/locked.txt", "secret");
    world.write("music/open.txt", "open");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    let report = world.share("music");
    if fs::File::open(&locked).is_ok() {
        eprintln!("SKIPPED in part: this user (root?) reads files without permission");
    } else {
        assert_eq!(reason(&report, &locked), Some(Reason::NotAllowed));
        assert_eq!(world.shown(), ["music/open.txt"]);
    }
    // The same for whoever reads everything: a file that is gone between being found and being read.
    let vanishing = world.write("music/sub/vanishing.bin", bytes(300_000, 1));
    world.write("music/sub/a-first.bin", bytes(9_000_000, 2));
    let once = AtomicBool::new(false);
    let vanish = |_: Progress| {
        if !once.swap(true, Ordering::Relaxed) {
            let _ = fs::remove_file(&vanishing);
        }
    };
    let report = world.library.rescan(Job { progress: Some(&vanish), cancel: None }).unwrap();
    assert_eq!(reason(&report, &vanishing), Some(Reason::NotFound));
    assert!(world.shown().contains(&"music/sub/a-first.bin".to_owned()));
}

#[cfg(unix)]
#[test]
fn names_that_are_not_unicode_are_shared_and_found_again() {
    use std::os::unix::ffi::OsStrExt;
    let mut world = World::new();
    let name = std::ffi::OsStr::from_bytes(b"caf\xe9.txt");
    let path = world.path("music").join(name);
    fs::write(&path, "latin").unwrap();
    world.share("music");
    assert_eq!(world.shown(), ["music/caf\u{fffd}.txt"]);
    let entry = world.library.entry(&path).unwrap();
    assert_eq!(path_from_bytes(&path_to_bytes(&path)), path);
    let json = serde_json::to_string(&*entry).unwrap();
    assert_eq!(serde_json::from_str::<bbh_library::StoredEntry>(&json).unwrap(), *entry);
    world.restart();
    assert_eq!(world.rescan().unchanged, 1);
    assert_eq!(world.library.read_slice(&id_of(b"latin"), 0..5).unwrap(), b"latin");
}

#[test]
fn a_file_that_changes_once_while_it_is_hashed_is_hashed_again() {
    let world = World::new();
    let growing = world.write("music/growing.bin", bytes(1 << 20, 1));
    let once = AtomicBool::new(false);
    let grow = |_: Progress| {
        if !once.swap(true, Ordering::Relaxed) {
            append(&growing);
        }
    };
    let report = world.library.share(&[world.path("music")], Job { progress: Some(&grow), cancel: None }).unwrap();
    assert_eq!((report.added.len(), report.problems.len()), (1, 0));
    let entry = world.library.entry(&growing).unwrap();
    assert_eq!(entry.record.content_id, id_of(&fs::read(&growing).unwrap()));
}

#[test]
fn a_file_that_keeps_changing_is_reported_and_the_rest_is_shared() {
    for size in [1 << 20, 9 << 20] {
        let world = World::new();
        let growing = world.write("music/growing.bin", bytes(size, 1));
        world.write("music/quiet.txt", "quiet");
        let grow = |_: Progress| append(&growing);
        let report = world.library.share(&[world.path("music")], Job { progress: Some(&grow), cancel: None }).unwrap();
        assert_eq!(reason(&report, &growing), Some(Reason::Changing));
        assert_eq!(world.shown(), ["music/quiet.txt"]);
        assert_eq!(world.outboard_files(), [""; 0], "what was begun is cleared away");
    }
}

fn append(path: &std::path::Path) {
    let mut file = OpenOptions::new().append(true).open(path).expect("the test made it");
    file.write_all(&[7; 1000]).expect("room");
}

#[test]
fn progress_ends_at_the_total_and_cancelling_keeps_what_is_done() {
    let world = World::new();
    for number in 0..20 {
        world.write(&format!("music/{number}.bin"), bytes(300_000, number));
    }
    let last = Mutex::new(Progress::default());
    let watch = |progress: Progress| {
        let mut last = last.lock().unwrap();
        last.files_done = last.files_done.max(progress.files_done);
        last.bytes_done = last.bytes_done.max(progress.bytes_done);
        (last.files_total, last.bytes_total) = (progress.files_total, progress.bytes_total);
    };
    let done = AtomicU64::new(0);
    let cancel = AtomicBool::new(false);
    let stop = |progress: Progress| {
        done.fetch_max(progress.files_done, Ordering::Relaxed);
        cancel.store(progress.files_done >= 5, Ordering::Relaxed);
    };
    let job = Job { progress: Some(&stop), cancel: Some(&cancel) };
    let report = world.library.share(&[world.path("music")], job).unwrap();
    assert!(report.cancelled);
    let kept = world.library.entries().len();
    assert!((5..20).contains(&kept), "{kept}");
    assert_eq!(report.added.len(), kept);

    let report = world.library.rescan(Job { progress: Some(&watch), cancel: None }).unwrap();
    assert_eq!((report.added.len(), report.unchanged, report.cancelled), (20 - kept, kept as u64, false));
    let last = last.into_inner().unwrap();
    assert_eq!((last.files_done, last.bytes_done), (last.files_total, last.bytes_total));
    assert_eq!(last.bytes_total, 300_000 * (20 - kept as u64));
}

#[test]
fn a_restart_hashes_nothing_that_did_not_change() {
    let mut world = World::new();
    let song = world.write("music/song.mp3", bytes(200_000, 1));
    world.write("music/other.mp3", bytes(200_000, 2));
    world.share("music");
    world.restart();
    assert_eq!(world.shown(), ["music/other.mp3", "music/song.mp3"]);
    let report = world.rescan();
    assert_eq!((report.unchanged, report.hashed_bytes), (2, 0));

    world.restart();
    fs::write(&song, bytes(200_001, 3)).unwrap();
    let report = world.rescan();
    assert_eq!((report.changed, report.unchanged, report.hashed_bytes), (vec![song], 1, 200_001));
}

#[test]
fn a_rescan_notices_new_changed_and_removed_files() {
    let world = World::new();
    let kept = world.write("music/kept.txt", "kept");
    let changed = world.write("music/changed.txt", "before");
    let removed = world.write("music/removed.txt", "removed");
    world.share("music");
    let new = world.write("music/sub/new.txt", "new");
    fs::write(&changed, "after it").unwrap();
    fs::remove_file(&removed).unwrap();
    let report = world.rescan();
    assert_eq!((&report.added, &report.changed, &report.removed), (&vec![new], &vec![changed], &vec![removed]));
    assert_eq!(report.unchanged, 1);
    assert!(world.library.lookup(&id_of(b"removed")).is_none());
    assert!(world.library.lookup(&id_of(b"before")).is_none());
    assert!(world.library.lookup(&id_of(b"after it")).is_some());
    assert!(world.library.entry(&kept).is_some());
    let quiet = world.rescan();
    assert_eq!((quiet.unchanged, quiet.hashed_bytes, quiet.added.len()), (3, 0, 0));
}

#[test]
fn a_shared_folder_that_is_gone_is_reported_and_its_files_go_with_it() {
    let world = World::new();
    world.write("music/a.txt", "a");
    world.share("music");
    fs::remove_dir_all(world.path("music")).unwrap();
    let report = world.rescan();
    assert_eq!(reason(&report, &world.path("music")), Some(Reason::NotFound));
    assert_eq!((report.removed.len(), world.shown().len()), (1, 0));
    world.write("music/a.txt", "a");
    assert_eq!(world.rescan().added.len(), 1, "it is still shared when it comes back");
}

#[test]
fn a_file_of_the_same_size_that_replaces_another_is_noticed() {
    let world = World::new();
    let path = world.write("music/a.txt", "one");
    world.share("music");
    let other = world.write("other.txt", "two");
    fs::rename(&other, &path).unwrap();
    assert_eq!(world.rescan().changed, [path]);
    assert!(world.library.lookup(&id_of(b"two")).is_some());
}

#[test]
fn the_same_content_at_two_places_is_one_result_and_survives_the_loss_of_one() {
    let world = World::new();
    let data = bytes(100_000, 1);
    let one = world.write("music/one.bin", &data);
    world.write("music/two.bin", &data);
    world.share("music");
    assert_eq!(world.library.entries().len(), 2);
    assert_eq!(world.find("bin").len(), 1);
    assert_eq!(world.outboard_files(), [format!("{}.obao", id_of(&data))]);
    fs::remove_file(one).unwrap();
    assert!(world.library.read_slice(&id_of(&data), 0..16384).is_ok());
    world.rescan();
    assert_eq!(world.names("bin"), ["two.bin"]);
    assert!(world.library.read_slice(&id_of(&data), 0..16384).is_ok());
}

#[test]
fn contents_that_change_places_keep_their_hash_trees() {
    let world = World::new();
    let (x, y) = (bytes(100_000, 1), bytes(100_000, 2));
    let one = world.write("music/one.bin", &x);
    let two = world.write("music/two.bin", &y);
    world.share("music");
    fs::write(&one, &y).unwrap();
    fs::write(&two, &x).unwrap();
    assert_eq!(world.rescan().changed.len(), 2);
    for data in [x, y] {
        assert!(world.library.read_slice(&id_of(&data), 0..16384).is_ok());
    }
}

#[test]
fn unsharing_a_folder_a_file_in_it_or_a_content() {
    let mut world = World::new();
    let big = bytes(100_000, 1);
    world.write("music/a/one.bin", &big);
    let two = world.write("music/a/two.txt", "two");
    world.write("music/b/three.txt", "three");
    world.write("music/b/four.txt", "four");
    world.share("music");

    // A file below a shared folder stays out over rescans and restarts...
    assert_eq!(world.library.unshare(&two).unwrap(), std::slice::from_ref(&two));
    world.restart();
    assert_eq!(world.rescan().added, [""; 0].map(std::path::PathBuf::from));
    assert_eq!(world.shown(), ["music/a/one.bin", "music/b/four.txt", "music/b/three.txt"]);
    // ...until it is shared by name again.
    assert_eq!(world.share("music/a/two.txt").added, [two]);

    // So does a folder below it.
    assert_eq!(world.library.unshare(&world.path("music/b")).unwrap().len(), 2);
    world.rescan();
    assert_eq!(world.shown(), ["music/a/one.bin", "music/a/two.txt"]);
    // One file of what was taken out can be shared, without the rest.
    world.share("music/b/three.txt");
    world.rescan();
    assert_eq!(world.shown(), ["/three.txt", "music/a/one.bin", "music/a/two.txt"]);

    // By content; its hash tree goes too.
    assert_eq!(world.outboard_files().len(), 1);
    assert_eq!(world.library.unshare_content(&id_of(&big)).unwrap().len(), 1);
    assert_eq!(world.outboard_files(), [""; 0]);

    // Everything.
    world.library.unshare(&world.path("music")).unwrap();
    assert_eq!(world.shown(), [""; 0]);
    assert_eq!(world.library.shares(), Default::default());
    assert_eq!(world.library.unshare(&world.path("music")).unwrap().len(), 0);
    assert_eq!(world.rescan().added.len(), 0);
}

#[test]
fn unsharing_an_inner_folder_that_was_shared_by_name_takes_it_out_of_the_outer_one() {
    let world = World::new();
    world.write("music/a/one.txt", "one");
    world.write("music/two.txt", "two");
    world.share("music/a");
    world.share("music");
    world.library.unshare(&world.path("music/a")).unwrap();
    world.rescan();
    assert_eq!(world.shown(), ["music/two.txt"]);
    world.share("music");
    assert_eq!(world.shown(), ["music/a/one.txt", "music/two.txt"], "sharing the outer one by name takes all in");
}

#[test]
fn a_finished_download_joins_its_shared_folder_or_stands_alone() {
    let world = World::new();
    world.write("music/a.txt", "a");
    world.share("music");
    let inside = world.write("music/sub/new.txt", "new");
    let report = world.library.add_file(&inside, Job::default()).unwrap();
    assert_eq!((&report.added, report.removed.len()), (&vec![inside], 0));
    let outside = world.write("downloads/got.txt", "got");
    world.library.add_file(&outside, Job::default()).unwrap();
    assert_eq!(world.shown(), ["/got.txt", "music/a.txt", "music/sub/new.txt"]);
    assert_eq!(world.library.shares().roots.len(), 2);
    assert_eq!(world.rescan().unchanged, 3);
}

#[test]
fn the_programs_own_data_is_never_shared() {
    let world = World::new();
    let key = world.write("private/key", "secret");
    world.write("music/a.bin", bytes(100_000, 1));
    let root = world.path("");
    let report = world.library.share(&[root], Job::default()).unwrap();
    assert!(world.shown().iter().all(|shown| shown.ends_with("music/a.bin")), "{:?}", world.shown());
    assert_eq!(reason(&report, &world.path("private")), Some(Reason::Private));
    let report = world.library.share(std::slice::from_ref(&key), Job::default()).unwrap();
    assert_eq!(reason(&report, &key), Some(Reason::Private));
    let report = world.library.add_file(&key, Job::default()).unwrap();
    assert_eq!(reason(&report, &key), Some(Reason::Private));
    assert!(world.library.entry(&key).is_none());
}

#[test]
fn priorities_survive_a_change_of_the_file_and_a_restart() {
    let mut world = World::new();
    let path = world.write("music/a.txt", "a");
    world.share("music");
    assert!(world.library.set_priority(&id_of(b"a"), Priority::High).unwrap());
    assert!(!world.library.set_priority(&id_of(b"b"), Priority::High).unwrap());
    fs::write(&path, "longer").unwrap();
    world.restart();
    world.rescan();
    assert_eq!(world.library.priority(&id_of(b"longer")), Some(Priority::High));
}
