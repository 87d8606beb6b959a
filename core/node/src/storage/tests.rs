//! The storage worker with real files.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc as tokio_mpsc;
use tokio::time::timeout;

use super::disk::SystemDisk;
use super::*;

/// A disk that can be full, and that can make the worker panic.
struct TestDisk {
    free: AtomicU64,
    full: AtomicBool,
    panics: AtomicBool,
}

impl Disk for TestDisk {
    fn free_bytes(&self, _folder: &Path) -> io::Result<u64> {
        Ok(self.free.load(Ordering::Relaxed))
    }

    fn write_at(&self, file: &File, bytes: &[u8], start: u64) -> io::Result<()> {
        assert!(!self.panics.load(Ordering::Relaxed), "for the test");
        if self.full.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        SystemDisk.write_at(file, bytes, start)
    }
}

struct Bench {
    folder: tempfile::TempDir,
    store: Arc<Store>,
    shares: Arc<Shares>,
    disk: Arc<TestDisk>,
    storage: Storage,
    answers: tokio_mpsc::UnboundedReceiver<StorageAnswer>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let partial = folder.path().join("partial");
        fs::create_dir(&partial).unwrap();
        let store = Arc::new(Store::in_memory().unwrap());
        let trees = folder.path().join("trees");
        let shares = Arc::new(Shares::open(store.clone(), &trees, vec![partial.clone()]).unwrap());
        let disk = Arc::new(TestDisk {
            free: AtomicU64::new(1 << 40),
            full: AtomicBool::new(false),
            panics: AtomicBool::new(false),
        });
        let (sender, answers) = tokio_mpsc::unbounded_channel();
        let config = StorageConfig {
            partial,
            download_dir: Arc::new(Mutex::new(folder.path().join("downloads"))),
            store: store.clone(),
            shares: shares.clone(),
            disk: disk.clone(),
        };
        let storage = Storage::start(config, sender).unwrap();
        Self { folder, store, shares, disk, storage, answers }
    }

    async fn answer(&mut self) -> StorageAnswer {
        timeout(Duration::from_secs(10), self.answers.recv()).await.unwrap().unwrap()
    }

    async fn ask(&mut self, request: StorageRequest) -> StorageAnswer {
        self.storage.request(request);
        self.answer().await
    }

    fn part(&self, content: ContentId) -> PathBuf {
        paths::part(&self.folder.path().join("partial"), content)
    }

    /// Reserves and writes a whole file and keeps its record.
    async fn fetch(&mut self, name: &str, bytes: &[u8]) -> ContentId {
        let content = content_of_bytes(bytes);
        let size = bytes.len() as u64;
        let reserved = self.ask(StorageRequest::Reserve { content, size }).await;
        assert_eq!(reserved, StorageAnswer::Reserved { content, result: Ok(()) });
        // The last part first, as the protocol does it.
        let middle = bytes.len() / 2;
        for (start, part) in [(middle, &bytes[middle..]), (0, &bytes[..middle])] {
            let (start, end) = (start as u64, (start + part.len()) as u64);
            let written = self.ask(StorageRequest::Write { content, start, bytes: part.to_vec() }).await;
            assert_eq!(written, StorageAnswer::Written { content, start, end, result: Ok(()) });
        }
        let saved = self.ask(StorageRequest::Save(record(content, name, bytes.len()))).await;
        assert_eq!(saved, StorageAnswer::Saved { content, result: Ok(()) });
        content
    }
}

fn content_of_bytes(bytes: &[u8]) -> ContentId {
    ContentId::from_bytes(*blake3::hash(bytes).as_bytes())
}

fn record(content: ContentId, name: &str, size: usize) -> DownloadRecord {
    let size = size as u64;
    DownloadRecord {
        content,
        name: name.to_owned(),
        size: Some(size),
        verified: (size > 0).then_some(0..size).into_iter().collect(),
        intent: Intent::Active,
        path: None,
    }
}

fn sample(length: usize) -> Vec<u8> {
    (0..length).map(|byte| (byte * 7 / 5) as u8).collect()
}

#[tokio::test]
async fn a_finished_download_bears_a_safe_name_and_is_shared() {
    let mut bench = Bench::new();
    let bytes = sample(100_000);
    let content = bench.fetch("../../etc/Bier: \u{202e}lied?.mp3", &bytes).await;
    let finished = bench.ask(StorageRequest::Finish { content }).await;
    let StorageAnswer::Finished { result: Ok(path), .. } = &finished else { panic!("{finished:?}") };
    let path = Path::new(path);
    assert_eq!(path.parent(), Some(bench.folder.path().join("downloads").as_path()));
    assert_eq!(fs::read(path).unwrap(), bytes);
    assert!(!bench.part(content).exists());
    assert_eq!(bench.shares.library().lookup(&content).unwrap().size, 100_000);
    let stored = bench.store.download(content).unwrap().unwrap();
    assert_eq!((stored.intent, stored.moving_to), (StoredIntent::Complete, None));
    assert_eq!(stored.path.as_deref().map(Path::new), Some(path));
}

#[tokio::test]
async fn nothing_of_the_users_is_overwritten_and_his_folder_is_used() {
    let mut bench = Bench::new();
    let wanted = bench.folder.path().join("music/new");
    fs::create_dir_all(&wanted).unwrap();
    fs::write(wanted.join("song.ogg"), "mine").unwrap();
    let bytes = sample(50_000);
    bench.storage.set_destination(content_of_bytes(&bytes), wanted.clone());
    let content = bench.fetch("song.ogg", &bytes).await;
    bench.ask(StorageRequest::Finish { content }).await;
    assert_eq!(fs::read(wanted.join("song.ogg")).unwrap(), b"mine");
    assert_eq!(fs::read(wanted.join("song (2).ogg")).unwrap(), bytes);
    assert_eq!(bench.store.download(content).unwrap().unwrap().to, Some(wanted));
}

#[tokio::test]
async fn an_empty_file_and_one_without_a_name_can_be_finished() {
    let mut bench = Bench::new();
    let content = bench.fetch("", b"").await;
    bench.ask(StorageRequest::Finish { content }).await;
    assert!(bench.folder.path().join(format!("downloads/{content}")).exists());
}

#[tokio::test]
async fn a_disk_without_room_refuses_before_the_first_byte_and_later_without_harm() {
    let mut bench = Bench::new();
    let bytes = sample(40_000);
    let content = content_of_bytes(&bytes);
    bench.disk.free.store(SPARE_BYTES + 39_999, Ordering::Relaxed);
    let reserved = bench.ask(StorageRequest::Reserve { content, size: 40_000 }).await;
    let StorageAnswer::Reserved { result: Err(reason), .. } = reserved else { panic!() };
    assert!(reason.contains("no room") && reason.contains("40000") && reason.contains("resume"), "{reason}");
    bench.disk.free.store(SPARE_BYTES + 40_000, Ordering::Relaxed);
    bench.ask(StorageRequest::Reserve { content, size: 40_000 }).await;

    // Full later: the write fails, what was written stays, and goes on when there is room.
    bench.ask(StorageRequest::Write { content, start: 0, bytes: bytes[..16_384].to_vec() }).await;
    bench.disk.full.store(true, Ordering::Relaxed);
    let failed = bench.ask(StorageRequest::Write { content, start: 16_384, bytes: bytes[16_384..].to_vec() }).await;
    let StorageAnswer::Written { start: 16_384, end: 40_000, result: Err(reason), .. } = failed else { panic!() };
    assert!(reason.contains("disk is full") && reason.contains("free some space"), "{reason}");
    bench.disk.full.store(false, Ordering::Relaxed);
    bench.ask(StorageRequest::Write { content, start: 16_384, bytes: bytes[16_384..].to_vec() }).await;
    assert_eq!(fs::read(bench.part(content)).unwrap(), bytes);
}

#[tokio::test]
async fn what_the_disk_has_spoilt_is_not_handed_out_as_finished() {
    let mut bench = Bench::new();
    let content = bench.fetch("song.ogg", &sample(50_000)).await;
    let mut spoilt = sample(50_000);
    spoilt[30_000] ^= 1;
    fs::write(bench.part(content), &spoilt).unwrap();
    let finished = bench.ask(StorageRequest::Finish { content }).await;
    let StorageAnswer::Finished { result: Err(reason), .. } = finished else { panic!("{finished:?}") };
    assert!(reason.contains("check the disk"), "{reason}");
    assert_eq!(fs::read_dir(bench.folder.path().join("downloads")).unwrap().count(), 0);
    assert_eq!(bench.shares.library().entries().len(), 0);
    assert!(bench.part(content).exists());
}

#[tokio::test]
async fn requests_for_one_content_stay_in_order_whatever_thread_does_them() {
    let mut bench = Bench::new();
    let bytes = sample(300_000);
    let content = content_of_bytes(&bytes);
    let size = bytes.len() as u64;
    // All at once; the second round must not find anything of the first, nor lose anything to its removal.
    for round in 0..2 {
        bench.storage.request(StorageRequest::Reserve { content, size });
        bench.storage.request(StorageRequest::Write { content, start: 0, bytes: bytes.clone() });
        for _ in 0..5 {
            bench.storage.request(StorageRequest::Save(record(content, "a.bin", bytes.len())));
        }
        if round == 0 {
            bench.storage.request(StorageRequest::Discard { content });
        }
    }
    bench.storage.request(StorageRequest::Finish { content });
    let mut answers = Vec::new();
    for _ in 0..15 {
        answers.push(bench.answer().await);
    }
    let StorageAnswer::Finished { result: Ok(path), .. } = &answers[14] else { panic!("{answers:?}") };
    assert_eq!(fs::read(path).unwrap(), bytes);
    for answer in &answers[..14] {
        let well = match answer {
            StorageAnswer::Reserved { result, .. }
            | StorageAnswer::Written { result, .. }
            | StorageAnswer::Saved { result, .. } => result.is_ok(),
            StorageAnswer::Finished { .. } => false,
        };
        assert!(well, "{answer:?}");
    }
    assert!(bench.answers.try_recv().is_err(), "more answers than requests");
    assert_eq!(bench.store.download(content).unwrap().unwrap().intent, StoredIntent::Complete);
}

#[tokio::test]
async fn a_panic_is_answered_and_the_worker_goes_on() {
    let mut bench = Bench::new();
    let content = ContentId::from_bytes([3; 32]);
    bench.ask(StorageRequest::Reserve { content, size: 10 }).await;
    bench.disk.panics.store(true, Ordering::Relaxed);
    let failed = bench.ask(StorageRequest::Write { content, start: 0, bytes: vec![1; 10] }).await;
    let StorageAnswer::Written { start: 0, end: 10, result: Err(reason), .. } = failed else { panic!() };
    assert!(reason.contains("restart bbh"), "{reason}");
    bench.disk.panics.store(false, Ordering::Relaxed);
    let again = bench.ask(StorageRequest::Write { content, start: 0, bytes: vec![1; 10] }).await;
    assert_eq!(again, StorageAnswer::Written { content, start: 0, end: 10, result: Ok(()) });
}

#[tokio::test]
async fn after_a_crash_records_and_files_agree_again() {
    let mut bench = Bench::new();
    let partial = bench.folder.path().join("partial");
    let whole = bench.fetch("whole.bin", &sample(20_000)).await;
    let gone = bench.fetch("gone.bin", &sample(30_000)).await;
    let cut = bench.fetch("cut.bin", &sample(40_000)).await;
    let moved = bench.fetch("moved.bin", &sample(50_000)).await;
    let named = bench.fetch("named.bin", &sample(60_000)).await;
    let done = bench.fetch("done.bin", &sample(70_000)).await;
    bench.ask(StorageRequest::Finish { content: done }).await;

    fs::remove_file(bench.part(gone)).unwrap();
    OpenOptions::new().write(true).open(bench.part(cut)).unwrap().set_len(100).unwrap();
    // Killed between the move and its record; and between the empty file that keeps the name and the move.
    let downloads = bench.folder.path().join("downloads");
    for (content, name) in [(moved, "moved.bin"), (named, "named.bin")] {
        let target = downloads.join(name);
        bench.store.update_download(content, |old| StoredDownload { moving_to: Some(target), ..old.unwrap() }).unwrap();
    }
    fs::rename(bench.part(moved), downloads.join("moved.bin")).unwrap();
    fs::write(downloads.join("named.bin"), "").unwrap();
    let stray = partial.join(format!("{}.part", ContentId::from_bytes([9; 32])));
    fs::write(&stray, "x").unwrap();

    let found: BTreeMap<_, _> = recover(&bench.store, &partial).unwrap().into_iter().collect();
    let verified = |content| found[&content].verified.iter().map(|range| range.end - range.start).sum::<u64>();
    assert_eq!([whole, gone, cut, moved, named, done].map(verified), [20_000, 0, 0, 50_000, 60_000, 70_000]);
    assert_eq!(found[&done].intent, StoredIntent::Complete);
    assert_eq!(fs::read(bench.part(moved)).unwrap(), sample(50_000));
    assert!(found.values().all(|download| download.moving_to.is_none()));
    assert!(!stray.exists());
    let left: Vec<_> = fs::read_dir(&downloads).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["done.bin"]);

    for content in [moved, named] {
        let finished = bench.ask(StorageRequest::Finish { content }).await;
        assert!(matches!(finished, StorageAnswer::Finished { result: Ok(_), .. }), "{finished:?}");
    }
    assert_eq!(fs::read(downloads.join("named.bin")).unwrap(), sample(60_000));
}

#[tokio::test]
async fn ending_does_what_was_asked_first() {
    let Bench { folder, store, shares, disk: _, storage, mut answers } = Bench::new();
    let content = ContentId::from_bytes([4; 32]);
    storage.request(StorageRequest::Reserve { content, size: 5 });
    storage.request(StorageRequest::Write { content, start: 0, bytes: b"hello".to_vec() });
    storage.request(StorageRequest::Save(record(content, "hello", 5)));
    drop(storage);
    for _ in 0..3 {
        answers.try_recv().unwrap();
    }
    assert_eq!(store.download(content).unwrap().unwrap().name, "hello");
    drop(shares);
    assert_eq!(Arc::strong_count(&store), 1, "no thread holds the store any more");
    drop(folder);
}
