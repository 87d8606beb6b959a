//! Searches over 100,000 shared files. The aim is less than 5 ms each.

use std::path::PathBuf;

use bbh_library::{IndexStore, Library, LibraryConfig, MemoryStore, Stamp, StoredEntry};
use bbh_types::{BoundedString, BoundedVec, ContentId, FileKind, FileRecord, Md5Hash, Priority, Query, SearchMode};
use criterion::{Criterion, criterion_group, criterion_main};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

const FILES: u32 = 100_000;

fn word(random: &mut ChaCha12Rng) -> String {
    let syllables =
        ["ber", "lin", "ka", "to", "mül", "ne", "ra", "si", "vo", "gut", "hop", "fen", "malz", "lied", "o", "i"];
    (0..2 + random.next_u32() % 3).map(|_| syllables[random.next_u32() as usize % syllables.len()]).collect()
}

/// About 100 bytes of text, as music has.
fn entry(number: u32, random: &mut ChaCha12Rng) -> StoredEntry {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let rare = if number == FILES - 10 { "zyxw" } else { "" };
    let mut tag = |key: &str| {
        let value = format!("{} {}", word(random), word(random));
        (BoundedString::truncated(key), BoundedString::truncated(&value))
    };
    let tags = vec![tag("album"), tag("artist"), tag("title")];
    StoredEntry {
        path: PathBuf::from(format!("/music/{number}")),
        root: PathBuf::from("/music"),
        record: FileRecord {
            content_id: ContentId::from_bytes(id),
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated(&format!("{number:05} {} {}{rare}.mp3", word(random), word(random))),
            folder: BoundedString::truncated(&format!("music/{}/{}", word(random), word(random))),
            size: u64::from(number),
            kind: FileKind::Audio,
            tags: BoundedVec::truncated(tags),
        },
        stamp: Stamp { size: 0, modified: 0, inode: None },
        priority: Priority::Normal,
        stale: false,
    }
}

fn searching(c: &mut Criterion) {
    let mut random = ChaCha12Rng::seed_from_u64(1);
    let entries: Vec<_> = (0..FILES).map(|number| entry(number, &mut random)).collect();
    let store = MemoryStore::default();
    store.put(&entries).expect("memory");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = LibraryConfig { outboard_dir: dir.path().to_owned(), private: Vec::new() };
    let library = Library::open(config, store).expect("a new library");
    let mut group = c.benchmark_group("search 100,000 files");
    group.sample_size(30);
    for (title, words, mode, kind, limit) in [
        ("one word, no hit", "zyxwv", SearchMode::All, None, 500),
        ("two words, one hit", "malz zyxw", SearchMode::All, None, 500),
        ("two frequent words that seldom meet", "malzmalzmalz 99", SearchMode::All, None, 500),
        ("two words in all files and one in none", "mp3 music zyxwv", SearchMode::All, None, 500),
        ("two frequent words, first 500", "malz lied", SearchMode::All, None, 500),
        ("four words, any, none there", "qqa qqb qqc qqd", SearchMode::Any, None, 500),
        ("in all files, but none of the kind", "mp3 music", SearchMode::All, Some(FileKind::Video), 500),
    ] {
        let mut query = Query::new([words], mode).expect("words");
        query.kind = kind;
        println!("{title}: {} hits", library.search(&query, limit).len());
        group.bench_function(title, |b| b.iter(|| library.search(&query, limit)));
    }
    group.finish();
}

criterion_group!(benches, searching);
criterion_main!(benches);
