//! Search by words in names, folders and tags.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use bbh_library::{IndexStore, Library, LibraryConfig, MemoryStore, Shares, Stamp, StoredEntry};
use bbh_types::{BoundedString, BoundedVec, ContentId, FileKind, FileRecord, Md5Hash, Priority, Query, SearchMode};
use common::World;
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};

#[test]
fn words_are_found_in_any_case_and_encoding_and_in_parts() {
    let world = World::new();
    world.write("music/Bl\u{e4}ser/M\u{fc}ller - Lied.MP3", "composed");
    world.write("music/Bla\u{308}ser/Mu\u{308}ller - zwei.mp3", "decomposed");
    world.write("music/other/Miller.mp3", "other");
    world.share("music");
    for words in ["muller", "MÜLLER", "mu\u{308}ller", "üll", "blaser", "BLÄSER muller", "mp3 ller ser"] {
        assert_eq!(world.find(words).len(), 2, "{words}");
    }
    assert_eq!(world.names("miller"), ["Miller.mp3"]);
    assert_eq!(world.names("music other"), ["Miller.mp3"], "folders count");
    assert_eq!(world.names("mueller"), [""; 0]);
}

#[test]
fn all_words_or_any_filters_and_limit() {
    let world = World::new();
    world.write("music/red beer.mp3", "1");
    world.write("music/red wine.mp3", "22");
    world.write("music/white wine.txt", "333");
    world.write("music/water.txt", "4444");
    world.share("music");
    let search = |words: &str, mode, change: &dyn Fn(&mut Query), limit| {
        let mut query = Query::new([words], mode).unwrap();
        change(&mut query);
        let found = world.library.search(&query, limit);
        let mut names: Vec<_> = found.iter().map(|record| record.name.to_string()).collect();
        names.sort();
        names.join(",")
    };
    let no = |_: &mut Query| {};
    assert_eq!(search("red wine", SearchMode::All, &no, 9), "red wine.mp3");
    assert_eq!(search("wine red", SearchMode::All, &no, 9), "red wine.mp3");
    assert_eq!(search("red wine", SearchMode::Any, &no, 9), "red beer.mp3,red wine.mp3,white wine.txt");
    assert_eq!(search("xyz water red", SearchMode::Any, &no, 9), "red beer.mp3,red wine.mp3,water.txt");
    assert_eq!(search("red xyz", SearchMode::All, &no, 9), "");
    assert_eq!(search("wine", SearchMode::All, &|query| query.kind = Some(FileKind::Audio), 9), "red wine.mp3");
    assert_eq!(search("wine", SearchMode::All, &|query| query.min_size = Some(3), 9), "white wine.txt");
    assert_eq!(search("wine", SearchMode::All, &|query| query.max_size = Some(2), 9), "red wine.mp3");
    assert_eq!(search("e", SearchMode::Any, &no, 2).split(',').count(), 2);
    assert_eq!(search("e", SearchMode::Any, &no, 0), "");
    // A word of which nothing is left (an accent alone) is no condition, and alone finds nothing.
    assert_eq!(search("\u{301} beer", SearchMode::All, &no, 9), "red beer.mp3");
    assert_eq!(search("\u{301}", SearchMode::All, &no, 9), "");
}

#[test]
fn words_do_not_reach_from_one_field_or_file_into_the_next() {
    let world = World::new();
    world.write("music/ab", "1");
    world.write("music/cd", "2");
    world.share("music");
    for words in ["bmusic", "musicab", "abcd", "abmusic"] {
        assert_eq!(world.find(words).len(), 0, "{words:?}");
    }
}

const SYLLABLES: [&str; 16] =
    ["bier", "hop", "malz", "Zür", "lió", "ka", "ne", "TO", "rus", "ünd", "sch", "ei", "a", "o", "qu", "x"];

fn text(random: &mut ChaCha12Rng, syllables: u32) -> String {
    (0..syllables).map(|_| SYLLABLES[random.next_u32() as usize % SYLLABLES.len()]).collect()
}

fn made_up(number: u32, random: &mut ChaCha12Rng) -> StoredEntry {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    let tag = |key: &str, value: String| (BoundedString::truncated(key), BoundedString::truncated(&value));
    StoredEntry {
        path: PathBuf::from(format!("/music/{number}")),
        root: PathBuf::from("/music"),
        record: FileRecord {
            content_id: ContentId::from_bytes(id),
            md5: Md5Hash([0; 16]),
            name: BoundedString::truncated(&format!("{} {}.mp3", text(random, 3), text(random, 2))),
            folder: BoundedString::truncated(&text(random, 2)),
            size: u64::from(number),
            kind: FileKind::Audio,
            tags: BoundedVec::truncated(vec![tag("artist", text(random, 2)), tag("title", text(random, 3))]),
        },
        stamp: Stamp { size: u64::from(number), modified: 0, inode: None },
        priority: Priority::Normal,
        stale: false,
    }
}

/// Letters as the plain definition of a search compares them, for the few that the made-up texts have.
fn plain(text: &str) -> String {
    text.to_lowercase().replace('ü', "u").replace('ó', "o")
}

/// A file and its fields for the plain definition: any field that contains the word.
type Plain = (ContentId, Vec<String>);

fn plain_fields(entry: &StoredEntry) -> Plain {
    let record = &entry.record;
    let tags = record.tags.iter().map(|(_, value)| &**value);
    (record.content_id, [&*record.name, &*record.folder].into_iter().chain(tags).map(plain).collect())
}

#[test]
fn a_hundred_thousand_files_are_searched_as_the_plain_definition_says_also_after_changes() {
    let mut random = ChaCha12Rng::seed_from_u64(3);
    let entries: Vec<_> = (0..100_000).map(|number| made_up(number, &mut random)).collect();
    let store = Arc::new(MemoryStore::default());
    store.put(&entries).unwrap();
    store.put_shares(&Shares { roots: vec![PathBuf::from("/music")], excluded: vec![] }).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let config = LibraryConfig { outboard_dir: dir.path().to_owned(), private: vec![] };
    let library = Library::open(config, store).unwrap();
    let check = |files: &[Plain], words: &[String], mode| {
        let query = Query::new(words.iter().map(String::as_str), mode).unwrap();
        let found: BTreeSet<_> = library.search(&query, usize::MAX).iter().map(|record| record.content_id).collect();
        let words: Vec<_> = words.iter().map(|word| plain(word)).collect();
        let contains = |fields: &[String], word: &String| fields.iter().any(|field| field.contains(word));
        let matches = |fields: &[String]| match mode {
            SearchMode::All => words.iter().all(|word| contains(fields, word)),
            SearchMode::Any => words.iter().any(|word| contains(fields, word)),
        };
        let expected: BTreeSet<_> = files.iter().filter(|(_, fields)| matches(fields)).map(|(id, _)| *id).collect();
        assert!(found == expected, "{words:?} {mode:?}: {} instead of {}", found.len(), expected.len());
    };
    let files: Vec<_> = entries.iter().map(plain_fields).collect();
    for round in 0..6 {
        let words: Vec<_> = (0..1 + round % 3).map(|_| text(&mut random, 1 + round % 4)).collect();
        check(&files, &words, SearchMode::All);
        check(&files, &words, SearchMode::Any);
    }
    // Single files go, then all.
    for entry in entries.iter().step_by(9973) {
        let removed = library.unshare(&entry.path).unwrap();
        assert!(removed == std::slice::from_ref(&entry.path), "{} files removed", removed.len());
    }
    let still: Vec<_> = library.entries().iter().map(|entry| plain_fields(entry)).collect();
    assert_eq!(still.len(), entries.len() - 11);
    check(&still, &["bier".into(), "malz".into()], SearchMode::All);
    library.unshare(&PathBuf::from("/music")).unwrap();
    assert!(library.entries().is_empty());
}
