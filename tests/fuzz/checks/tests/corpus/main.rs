//! Replays the fuzz targets' corpora, which hold the golden vectors and what fuzzing has found.
//!
//! `BBH_WRITE_VECTORS=1 cargo test -p bbh-fuzz` writes the seeds after a change of the golden vectors.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod sequences;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Once;

use bbh_fuzz::TARGETS;
use data_encoding::HEXLOWER;

/// Targets with a handshake or a file in each run: their inputs are cut at a few places only.
const SLOW: [&str; 4] = ["link", "node", "session", "tags"];

/// The folder of the corpora; the seeds in it are written first if that is wanted.
fn fuzz_dir() -> PathBuf {
    static WRITTEN: Once = Once::new();
    WRITTEN.call_once(|| {
        if std::env::var_os("BBH_WRITE_VECTORS").is_some_and(|value| value == "1") {
            for (path, bytes) in seeds() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &bytes).unwrap();
            }
        }
    });
    root().join("tests/fuzz")
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut paths: Vec<_> = list.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_str().unwrap().to_owned()
}

/// Golden vectors whose name begins with `kind/`: rest of the name, bytes.
fn vectors(kind: &str) -> Vec<(String, Vec<u8>)> {
    let text = std::fs::read_to_string(root().join("tests/vectors/wire.txt")).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
    let chosen = lines.filter_map(|(name, hex)| Some((name.strip_prefix(kind)?.strip_prefix('/')?, hex)));
    chosen.map(|(name, hex)| (name.to_owned(), HEXLOWER.decode(hex.as_bytes()).unwrap())).collect()
}

/// One fragment as the target reads it.
fn pushed(sender: u8, step: u8, payload: &[u8]) -> Vec<u8> {
    [&[sender, step], &(payload.len() as u16).to_be_bytes()[..], payload].concat()
}

/// A stranger's claim as the target reads it.
fn claim(size: u64, start: u64, end: u64, id: &[u8; 32], slice: &[u8]) -> Vec<u8> {
    [&[0], &size.to_be_bytes()[..], &start.to_be_bytes(), &end.to_be_bytes(), id, slice].concat()
}

/// What each target begins with: file, content.
fn seeds() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut seeds = BTreeMap::new();
    for target in ["beacon", "body", "message", "packet"] {
        seeds.extend(vectors(target).into_iter().map(|(name, bytes)| ((target, name), bytes)));
    }
    let frames: Vec<u8> = vectors("frame").into_iter().flat_map(|(_, bytes)| bytes).collect();
    for (name, limit, step) in [("by-bytes", 4, 0), ("by-10", 4, 9), ("at-once", 255, 255), ("too-large", 1, 2)] {
        seeds.insert(("frame", name.into()), [&[limit, step], &*frames].concat());
    }
    let fragments = vectors("fragment");
    let all = |step: u8| fragments.iter().flat_map(|(_, part)| pushed(1, step, part)).collect::<Vec<u8>>();
    seeds.insert(("fragment", "all".into()), all(0));
    seeds.insert(("fragment", "too-late".into()), all(199));
    let backwards = fragments.iter().rev().enumerate();
    seeds.insert(
        ("fragment", "of-two-senders".into()),
        backwards.flat_map(|(n, (_, part))| pushed(n as u8 % 2, 1, part)).collect(),
    );
    // A file of a group and a byte: its last group's proof is short.
    let file = vec![7; bbh_bao::GROUP as usize + 1];
    let mut hasher = bbh_bao::Hasher::new();
    hasher.update(&file);
    let (id, outboard) = hasher.finalize();
    let size = file.len() as u64;
    let last = bbh_bao::encode_slice(size, bbh_bao::GROUP..size, &outboard, &[7]).unwrap();
    let small = blake3::hash(b"a small file");
    let named = [
        ("last-group", claim(size, bbh_bao::GROUP, size, id.as_bytes(), &last)),
        ("whole", claim(12, 0, 12, small.as_bytes(), b"a small file")),
        ("empty", claim(0, 0, 0, blake3::hash(b"").as_bytes(), b"")),
        ("largest-size", claim(u64::MAX, 0, bbh_bao::GROUP, id.as_bytes(), &last)),
        ("own", vec![1, 0, 1, 0x20, 0, 1, 2, 0, 9, 0x80]),
        ("own-empty", vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    seeds.extend(named.map(|(name, bytes)| (("slice", name.into()), bytes)));
    seeds.extend(sequences::seeds().into_iter().map(|(target, name, bytes)| ((target, name.to_owned()), bytes)));
    let corpus = root().join("tests/fuzz/corpus");
    seeds.into_iter().map(|((target, name), bytes)| (corpus.join(target).join(name), bytes)).collect()
}

#[test]
fn corpora_hold_the_seeds() {
    fuzz_dir();
    for (path, bytes) in seeds() {
        let kept = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(kept, bytes, "the seed {} is out of date", path.display());
    }
}

#[test]
fn everything_in_the_corpora_is_harmless() {
    for (target, check) in TARGETS {
        let files = entries(&fuzz_dir().join("corpus").join(target));
        assert!(!files.is_empty(), "the corpus of {target} is empty");
        for file in files {
            let bytes = std::fs::read(&file).unwrap();
            let outcome = std::panic::catch_unwind(|| {
                check(&bytes);
                // Cut at each place, too: many a bug needs an end that comes early.
                let step = if SLOW.contains(target) { bytes.len() / 8 + 1 } else { 1 };
                (0..bytes.len().min(1000 * step)).step_by(step).for_each(|end| check(&bytes[..end]));
            });
            assert!(outcome.is_ok(), "{target} fails with {}", file.display());
        }
    }
}

#[test]
fn every_target_has_a_corpus_a_program_and_its_place_in_the_manifest() {
    let names: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let stems = |dir| entries(&fuzz_dir().join(dir)).iter().map(|path| stem(path)).collect::<BTreeSet<_>>();
    assert_eq!(stems("corpus"), names);
    assert_eq!(stems("fuzz_targets"), names);
    let manifest = std::fs::read_to_string(fuzz_dir().join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} has no [[bin]]");
        let program = std::fs::read_to_string(fuzz_dir().join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(program.contains(&format!("bbh_fuzz::{name}(")), "fuzz_targets/{name}.rs calls something else");
    }
}
