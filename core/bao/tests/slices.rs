//! Slices against BLAKE3 itself, against `bao-tree` in both directions, and against tampering.

use std::ops::Range;
use std::sync::OnceLock;

use bao_tree::io::outboard::{EmptyOutboard, PostOrderMemOutboard};
use bao_tree::io::sync::{decode_ranges, encode_ranges_validated};
use bao_tree::{BaoTree, BlockSize, ChunkNum, ChunkRanges};
use bbh_bao::{
    EncodeError, GROUP, Hasher, Outboard, OutboardLengthError, OutboardRead, Pair, SliceError, encode_slice,
    needed_pairs, outboard_len, slice_len, verify_slice, verify_slice_borrowed,
};
use bbh_types::ContentId;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

const G: usize = GROUP as usize;

/// Reproducible bytes that do not repeat.
fn bytes(length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    blake3::Hasher::new().update(b"test data").finalize_xof().fill(&mut data);
    data
}

fn hash(data: &[u8]) -> (ContentId, Outboard) {
    let mut hasher = Hasher::new();
    hasher.update(data);
    hasher.finalize()
}

fn id_of(data: &[u8]) -> ContentId {
    ContentId::from_bytes(*blake3::hash(data).as_bytes())
}

fn slice(data: &[u8], outboard: &Outboard, range: Range<u64>) -> Vec<u8> {
    let part = &data[range.start as usize..range.end as usize];
    encode_slice(data.len() as u64, range, outboard, part).expect("the range lies in the file")
}

/// Sizes around every boundary that matters.
fn sizes() -> Vec<usize> {
    let mut sizes = vec![0, 1, 1023, 1024, 1025, 5000, G - 1, G, G + 1];
    for groups in 2..=9 {
        sizes.extend([groups * G - 1, groups * G, groups * G + 1, groups * G + 1024, groups * G + 12_345]);
    }
    sizes.extend([31 * G + 7, 32 * G, 64 * G + 1]);
    sizes
}

fn ranges(size: u64) -> Vec<Range<u64>> {
    let groups = size.div_ceil(GROUP).max(1);
    let starts = (0..groups).filter(|group| *group < 10 || *group > groups - 3);
    starts
        .flat_map(|first| {
            [1, 2, 3, 4, groups].map(|count| first * GROUP..(first.saturating_add(count) * GROUP).min(size))
        })
        .collect()
}

#[test]
fn content_id_is_the_plain_blake3_hash_however_the_input_is_cut() {
    for size in sizes() {
        let data = bytes(size);
        let (id, outboard) = hash(&data);
        assert_eq!(id, id_of(&data), "{size}");
        assert_eq!(outboard.to_bytes().len() as u64, outboard_len(size as u64), "{size}");
        assert_eq!(outboard.size(), size as u64);
        for piece in [1000, G - 1, G, G + 1, 3 * G] {
            let mut hasher = Hasher::new();
            data.chunks(piece).for_each(|piece| hasher.update(piece));
            assert_eq!(hasher.size(), size as u64);
            assert_eq!(hasher.finalize(), (id, outboard.clone()), "{size} in pieces of {piece}");
        }
    }
}

#[test]
fn nodes_taken_on_the_way_are_the_same_outboard() {
    for size in sizes() {
        let data = bytes(size);
        let mut hasher = Hasher::new();
        let mut nodes = Vec::new();
        for piece in data.chunks(2 * G + 100) {
            hasher.update(piece);
            nodes.extend(hasher.take_pairs());
        }
        let (id, rest) = hasher.finish();
        nodes.extend(rest);
        let (whole_id, outboard) = hash(&data);
        assert_eq!((id, &nodes[..]), (whole_id, outboard.to_bytes()), "{size}");
        assert_eq!(Outboard::from_bytes(size as u64, &nodes), Ok(outboard));
    }
}

#[test]
fn an_outboard_of_another_length_is_refused() {
    let (_, outboard) = hash(&bytes(5 * G));
    let stored = outboard.to_bytes();
    let size = 5 * GROUP;
    let got = stored.len() as u64 - 1;
    assert_eq!(Outboard::from_bytes(size, &stored[1..]), Err(OutboardLengthError { size, expected: got + 1, got }));
    assert!(Outboard::from_bytes(size + 1, stored).is_err());
    assert!(Outboard::from_bytes(0, &[]).is_ok());
}

#[test]
fn every_range_comes_back_and_has_the_length_foretold() {
    for size in sizes() {
        let data = bytes(size);
        let (id, outboard) = hash(&data);
        for range in ranges(size as u64) {
            let encoded = slice(&data, &outboard, range.clone());
            assert_eq!(slice_len(size as u64, &range), Ok(encoded.len() as u64));
            let expected = &data[range.start as usize..range.end as usize];
            assert_eq!(verify_slice(&id, size as u64, range.clone(), &encoded).unwrap(), expected, "{range:?}");
            let groups = verify_slice_borrowed(&id, size as u64, range.clone(), &encoded).unwrap();
            assert!(groups.iter().all(|group| group.len() <= G));
            assert_eq!(groups.concat(), expected);
        }
    }
}

/// The `bao-tree` view of the same thing.
fn their_ranges(range: &Range<u64>) -> ChunkRanges {
    ChunkRanges::from(ChunkNum::chunks(range.start)..ChunkNum::chunks(range.end))
}

#[test]
fn outboard_and_slices_are_byte_for_byte_those_of_bao_tree_and_each_side_reads_the_other() {
    let block = BlockSize::from_chunk_log(4);
    for size in sizes() {
        let data = bytes(size);
        let (id, outboard) = hash(&data);
        let theirs = PostOrderMemOutboard::create(&data, block);
        assert_eq!(theirs.root.as_bytes(), id.as_bytes());
        assert_eq!(theirs.data, outboard.to_bytes(), "{size}");
        if size == 0 {
            continue; // their ranges count chunks, of which the empty file has none
        }
        for range in ranges(size as u64) {
            let chunks = their_ranges(&range);
            let ours = slice(&data, &outboard, range.clone());
            let mut encoded = Vec::new();
            encode_ranges_validated(&data[..], &theirs, &chunks, &mut encoded).unwrap();
            assert!(ours == encoded, "{size} {range:?}");

            let expected = &data[range.start as usize..range.end as usize];
            assert_eq!(verify_slice(&id, size as u64, range.clone(), &encoded).unwrap(), expected);
            let tree = BaoTree::new(size as u64, block);
            let mut decoded = vec![0u8; size];
            let sink = EmptyOutboard { tree, root: theirs.root };
            decode_ranges(&ours[..], &chunks, &mut decoded, sink).unwrap();
            assert_eq!(&decoded[range.start as usize..range.end as usize], expected);
        }
    }
}

#[test]
fn only_the_nodes_foretold_are_read_from_the_outboard() {
    struct Watched<'a>(&'a Outboard, std::cell::RefCell<Vec<u64>>);
    impl OutboardRead for Watched<'_> {
        type Error = String;
        fn pair(&self, index: u64) -> Result<Pair, String> {
            self.1.borrow_mut().push(index);
            self.0.pair(index).map_err(|never| match never {})
        }
    }
    let data = bytes(21 * G + 9);
    let (_, outboard) = hash(&data);
    let size = data.len() as u64;
    for range in ranges(size) {
        let watched = Watched(&outboard, Default::default());
        encode_slice(size, range.clone(), &watched, &data[range.start as usize..range.end as usize]).unwrap();
        assert_eq!(watched.1.into_inner(), needed_pairs(size, &range).unwrap());
    }
}

#[test]
fn a_failing_outboard_and_wrong_data_lengths_are_reported() {
    struct Broken;
    impl OutboardRead for Broken {
        type Error = &'static str;
        fn pair(&self, _: u64) -> Result<Pair, &'static str> {
            Err("disk on fire")
        }
    }
    let data = bytes(2 * G);
    let size = data.len() as u64;
    assert_eq!(encode_slice(size, 0..size, Broken, &data), Err(EncodeError::Outboard("disk on fire")));
    let (_, outboard) = hash(&data);
    let short = encode_slice(size, 0..size, &outboard, &data[1..]);
    assert_eq!(short, Err(EncodeError::DataLength { expected: size, got: size - 1 }));
    assert!(matches!(
        encode_slice(size, 5..GROUP, &outboard, &data[5..G]),
        Err(EncodeError::Range(SliceError::Misaligned { .. }))
    ));
}

#[test]
fn truncation_and_extension_are_named() {
    let data = bytes(3 * G + 10);
    let size = data.len() as u64;
    let (id, outboard) = hash(&data);
    let range = GROUP..2 * GROUP;
    let mut encoded = slice(&data, &outboard, range.clone());
    let expected = encoded.len() as u64;
    for got in [0, 1, 63, 64, expected - 1] {
        let refused = verify_slice(&id, size, range.clone(), &encoded[..got as usize]);
        assert_eq!(refused, Err(SliceError::TooShort { expected, got }));
    }
    encoded.push(0);
    let refused = verify_slice(&id, size, range, &encoded);
    assert_eq!(refused, Err(SliceError::TrailingBytes { expected, got: expected + 1 }));
}

#[test]
fn the_empty_file_has_one_empty_slice() {
    let id = id_of(b"");
    assert_eq!(verify_slice(&id, 0, 0..0, &[]), Ok(vec![]));
    assert!(matches!(verify_slice(&id_of(b"x"), 0, 0..0, &[]), Err(SliceError::WrongHash { start: 0, end: 0 })));
    assert!(matches!(verify_slice(&id, 0, 0..0, &[1]), Err(SliceError::TrailingBytes { .. })));
    assert!(matches!(verify_slice(&id, 1, 0..1, &[]), Err(SliceError::TooShort { .. })));
}

#[test]
fn a_claimed_size_of_exabytes_is_refused_at_once() {
    let encoded = vec![0; 20_000];
    for size in [1 << 40, 1 << 62, u64::MAX] {
        let last = (size - 1) / GROUP * GROUP;
        for range in [0..GROUP, last..size, 0..size] {
            assert!(verify_slice(&id_of(b""), size, range, &encoded).is_err());
        }
    }
}

/// A file of several groups that is hashed once for all cases.
fn sample() -> &'static (Vec<u8>, ContentId, Outboard) {
    static SAMPLE: OnceLock<(Vec<u8>, ContentId, Outboard)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let data = bytes(13 * G + 4321);
        let (id, outboard) = hash(&data);
        (data, id, outboard)
    })
}

fn some_range() -> impl Strategy<Value = Range<u64>> {
    (0..14u64, 1..=14u64).prop_map(|(first, count)| {
        let size = sample().0.len() as u64;
        first * GROUP..((first + count) * GROUP).min(size)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn any_size_and_range_survives(size in 1usize..600_000, first in 0u64..40, count in 1u64..40) {
        let data = bytes(size);
        let (id, outboard) = hash(&data);
        prop_assert_eq!(id, id_of(&data));
        let size = size as u64;
        let start = first % size.div_ceil(GROUP) * GROUP;
        let range = start..(start + count * GROUP).min(size);
        let encoded = slice(&data, &outboard, range.clone());
        let decoded = verify_slice(&id, size, range.clone(), &encoded).unwrap();
        prop_assert!(decoded == data[range.start as usize..range.end as usize]);
    }

    #[test]
    fn any_flipped_bit_is_refused(range in some_range(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (data, id, outboard) = sample();
        let mut encoded = slice(data, outboard, range.clone());
        let at = at.index(encoded.len());
        encoded[at] ^= 1u8 << bit;
        let refused = verify_slice(id, data.len() as u64, range, &encoded);
        prop_assert!(matches!(refused, Err(SliceError::WrongHash { .. })), "{:?}", refused.map(|_| ()));
    }

    #[test]
    fn a_slice_of_another_range_is_refused(one in some_range(), other in some_range()) {
        prop_assume!(one != other);
        let (data, id, outboard) = sample();
        let encoded = slice(data, outboard, one);
        prop_assert!(verify_slice(id, data.len() as u64, other, &encoded).is_err());
    }

    #[test]
    fn any_other_length_is_refused(range in some_range(), cut in any::<prop::sample::Index>(), more in 1usize..200) {
        let (data, id, outboard) = sample();
        let mut encoded = slice(data, outboard, range.clone());
        let size = data.len() as u64;
        prop_assert!(verify_slice(id, size, range.clone(), &encoded[..cut.index(encoded.len())]).is_err());
        encoded.resize(encoded.len() + more, 0);
        prop_assert!(verify_slice(id, size, range, &encoded).is_err());
    }

    #[test]
    fn the_last_group_proves_the_size(first in 0u64..14, wrong in prop_oneof![0u64..600_000, any::<u64>()]) {
        let (data, id, outboard) = sample();
        let size = data.len() as u64;
        prop_assume!(wrong != size);
        let encoded = slice(data, outboard, first * GROUP..size);
        // The liar states another size and sends whatever he has for "from here to the end", fitted to
        // the length that the reader expects.
        let range = first * GROUP..wrong;
        prop_assert!(verify_slice(id, wrong, range.clone(), &encoded).is_err());
        if let Ok(length) = slice_len(wrong, &range) && length < 10_000_000 {
            let mut fitted = encoded;
            fitted.resize(length as usize, 0);
            prop_assert!(verify_slice(id, wrong, range, &fitted).is_err());
        }
    }

    #[test]
    fn noise_never_panics(size in any::<u64>(), start in any::<u64>(), end in any::<u64>(), noise in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(verify_slice(&id_of(b"x"), size, start..end, &noise).is_err());
        let aligned = start / GROUP * GROUP..size;
        prop_assert!(verify_slice(&id_of(b"x"), size, aligned, &noise).is_err());
    }
}
