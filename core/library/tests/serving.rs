//! Slices of shared files, and files that are not what they were.

#![cfg(unix)]

mod common;

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;

use bbh_bao::{SliceError, verify_slice};
use bbh_library::ReadError;
use common::{World, bytes, id_of};

#[test]
fn slices_of_files_of_any_size_verify() {
    let world = World::new();
    for (number, size) in [0, 1, 16_383, 16_384, 16_385, 100_000, 3_000_000].into_iter().enumerate() {
        let data = bytes(size, number as u8);
        world.write(&format!("music/{number}.bin"), &data);
        world.share("music");
        let (id, size) = (id_of(&data), size as u64);
        for start in [0, 16_384, 16_384 * 5, size.saturating_sub(1) / 16_384 * 16_384] {
            let range = start..(start + 65_536).min(size);
            if start > 0 && start >= size {
                continue;
            }
            let slice = world.library.read_slice(&id, range.clone()).unwrap();
            let expected = &data[range.start as usize..range.end as usize];
            assert_eq!(verify_slice(&id, size, range, &slice).unwrap(), expected, "{size}");
        }
    }
    // Only files of more than one group keep a tree.
    assert_eq!(world.outboard_files().len(), 3);
}

#[test]
fn more_files_than_are_kept_open_are_served_in_turn() {
    let world = World::new();
    let all: Vec<_> = (0..40).map(|seed| bytes(40_000, seed)).collect();
    for (number, data) in all.iter().enumerate() {
        world.write(&format!("music/{number}.bin"), data);
    }
    world.share("music");
    for _ in 0..3 {
        for data in &all {
            let slice = world.library.read_slice(&id_of(data), 0..40_000).unwrap();
            assert_eq!(verify_slice(&id_of(data), 40_000, 0..40_000, &slice).unwrap(), *data);
        }
    }
}

#[test]
fn impossible_requests_are_refused_and_cost_the_file_nothing() {
    let world = World::new();
    let data = bytes(3 << 20, 1);
    world.write("music/a.bin", &data);
    world.share("music");
    let id = id_of(&data);
    let refused = |range| world.library.read_slice(&id, range).unwrap_err();
    assert!(matches!(refused(0..(3 << 20) + 1), ReadError::Range(SliceError::RangeOutsideFile { .. })));
    assert!(matches!(refused(5..16_384), ReadError::Range(SliceError::Misaligned { .. })));
    assert!(matches!(refused(0..2 << 20), ReadError::TooLong(_)));
    assert!(matches!(world.library.read_slice(&id_of(b""), 0..0), Err(ReadError::Unknown(_))));
    assert!(world.library.read_slice(&id, 0..1 << 20).is_ok());
}

#[test]
fn a_changed_file_is_refused_not_offered_and_looked_at_again() {
    for opened_before in [false, true] {
        let world = World::new();
        let data = bytes(100_000, 1);
        let path = world.write("music/a.bin", &data);
        world.share("music");
        let id = id_of(&data);
        if opened_before {
            world.library.read_slice(&id, 0..16_384).unwrap();
        }
        OpenOptions::new().append(true).open(&path).unwrap().write_all(b"more").unwrap();
        let error = world.library.read_slice(&id, 0..16_384).unwrap_err();
        assert!(matches!(&error, ReadError::Changed { path: changed } if *changed == path), "{error}");
        assert!(error.to_string().contains("rescan"));
        assert!(world.library.lookup(&id).is_none());
        assert!(world.find("bin").is_empty());
        assert!(matches!(world.library.read_slice(&id, 0..16_384), Err(ReadError::Unknown(_))));
        assert_eq!(world.rescan().changed, [path]);
        assert_eq!(world.find("bin").len(), 1);
    }
}

#[test]
fn a_change_that_hides_behind_the_old_time_is_never_sent() {
    let world = World::new();
    let data = bytes(100_000, 1);
    let path = world.write("music/a.bin", &data);
    world.share("music");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"forged", 20_000).unwrap();
    file.set_modified(time).unwrap();
    assert!(world.library.read_slice(&id_of(&data), 0..16_384).is_ok(), "that part is as it was");
    assert!(matches!(world.library.read_slice(&id_of(&data), 16_384..32_768), Err(ReadError::Changed { .. })));
    assert_eq!(world.rescan().changed, [path], "although size and time are the same");
}

#[test]
fn a_removed_file_and_a_damaged_hash_tree_are_found_out_and_repaired() {
    let mut world = World::new();
    let data = bytes(100_000, 1);
    let path = world.write("music/a.bin", &data);
    world.share("music");
    let id = id_of(&data);
    let tree = world.path("outboards").join(format!("{id}.obao"));
    assert_eq!(fs::metadata(&tree).unwrap().len(), 6 * 64);
    type Damage = fn(&std::path::Path);
    let damages: [Damage; 3] = [
        |tree| fs::remove_file(tree).unwrap(),
        |tree| drop(File::create(tree).unwrap()),
        |tree| File::options().write(true).open(tree).unwrap().write_all_at(&[0; 64], 5 * 64).unwrap(),
    ];
    for damage in damages {
        damage(&tree);
        world.restart();
        assert!(world.library.read_slice(&id, 0..16_384).is_err());
        let report = world.rescan();
        assert_eq!((report.hashed_bytes, report.unchanged), (100_000, 1));
        assert!(world.library.read_slice(&id, 0..16_384).is_ok());
    }
    fs::remove_file(&path).unwrap();
    world.restart();
    assert!(matches!(world.library.read_slice(&id, 0..16_384), Err(ReadError::Changed { .. })));
    assert_eq!(world.rescan().removed, [path]);
}

#[test]
fn leftovers_of_a_killed_process_are_cleared_away() {
    let mut world = World::new();
    let data = bytes(100_000, 1);
    world.write("music/a.bin", &data);
    world.share("music");
    world.write("outboards/tmp-17", "half a tree");
    world.write(&format!("outboards/{}.obao", id_of(b"unknown")), "a tree of nothing");
    world.restart();
    assert_eq!(world.outboard_files(), [format!("{}.obao", id_of(&data))]);
}
