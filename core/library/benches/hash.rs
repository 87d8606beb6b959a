//! Sharing a file against plain MD5 and plain BLAKE3 of the same file, which lies in the page cache.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use bbh_library::{Job, Library, LibraryConfig, MemoryStore};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use md5::Digest;

const MEBIBYTE: usize = 1 << 20;

fn read_all(path: &Path, mut update: impl FnMut(&[u8])) {
    let mut file = File::open(path).expect("the bench made it");
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).expect("a plain file") {
            0 => return,
            length => update(&buffer[..length]),
        }
    }
}

fn plain_md5(path: &Path) -> [u8; 16] {
    let mut md5 = md5::Md5::new();
    read_all(path, |bytes| md5.update(bytes));
    md5.finalize().into()
}

fn plain_blake3(path: &Path) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    read_all(path, |bytes| {
        hasher.update(bytes);
    });
    hasher.finalize()
}

fn sharing(c: &mut Criterion) {
    for (title, count, size) in [
        ("1 file of 64 MiB", 1, 64 * MEBIBYTE),
        ("16 files of 4 MiB", 16, 4 * MEBIBYTE),
        ("1000 files of 16 KiB", 1000, 16 << 10),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let files = dir.path().join("files");
        fs::create_dir(&files).expect("a new folder");
        let paths: Vec<_> = (0..count).map(|number| files.join(format!("{number}.bin"))).collect();
        for (number, path) in paths.iter().enumerate() {
            let mut data = vec![0; size];
            blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut data);
            fs::write(path, data).expect("room for the bench");
        }
        let mut group = c.benchmark_group(title);
        group.throughput(Throughput::Bytes((count * size) as u64)).sample_size(10);
        group.bench_function("md5 alone", |b| b.iter(|| paths.iter().map(|path| plain_md5(path)).collect::<Vec<_>>()));
        group.bench_function("blake3 alone", |b| {
            b.iter(|| paths.iter().map(|path| plain_blake3(path)).collect::<Vec<_>>());
        });
        group.bench_function("share", |b| {
            b.iter_batched(
                || {
                    let outboard_dir = dir.path().join("outboards");
                    let config = LibraryConfig { outboard_dir, private: Vec::new() };
                    Library::open(config, MemoryStore::default()).expect("an empty library")
                },
                |library| {
                    let report = library.share(std::slice::from_ref(&files), Job::default()).expect("a memory store");
                    assert_eq!(report.added.len(), count);
                    library
                },
                BatchSize::PerIteration,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, sharing);
criterion_main!(benches);
