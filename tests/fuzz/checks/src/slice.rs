//! Verified slices of files.

use bbh_bao::{GROUP, Hasher, SliceError, encode_slice, slice_len, verify_slice};
use bbh_types::ContentId;

/// Largest file that is made up here.
const MAX_FILE: u64 = 5 * GROUP;

fn take<const N: usize>(data: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(*head)
}

/// If the first byte is even: `size u64, start u64, end u64` big-endian, `content id [32]`, slice, all of it a
/// stranger's claim. If it is odd: `size u32, start u8, groups u8, place u16, bits u8` of a file that is made here, whose
/// slice has to be accepted, and refused with one byte changed.
pub fn slice(mut data: &[u8]) {
    let Some([form]) = take(&mut data) else { return };
    if form & 1 == 0 {
        claimed(data)
    } else {
        own(data)
    };
}

fn claimed(mut data: &[u8]) -> Option<()> {
    let size = u64::from_be_bytes(take(&mut data)?);
    let range = u64::from_be_bytes(take(&mut data)?)..u64::from_be_bytes(take(&mut data)?);
    let id = ContentId::from_bytes(take(&mut data)?);
    match verify_slice(&id, size, range.clone(), data) {
        Ok(bytes) => {
            assert_eq!(bytes.len() as u64, range.end - range.start);
            assert_eq!(slice_len(size, &range), Ok(data.len() as u64));
            if range == (0..size) {
                assert_eq!(blake3::hash(&bytes).as_bytes(), id.as_bytes());
            }
        }
        Err(SliceError::TooShort { expected, got }) => assert!(got < expected),
        Err(SliceError::TrailingBytes { expected, got }) => assert!(got > expected),
        Err(_) => {}
    }
    Some(())
}

fn own(mut data: &[u8]) -> Option<()> {
    let size = u64::from(u32::from_be_bytes(take(&mut data)?)) % (MAX_FILE + 1);
    let [first, groups] = take(&mut data)?;
    let place = usize::from(u16::from_be_bytes(take(&mut data)?));
    let [bits] = take(&mut data)?;

    let file: Vec<u8> = (0..size).map(|n| (n ^ (n >> 8)) as u8).collect();
    let mut hasher = Hasher::new();
    hasher.update(&file);
    let (id, outboard) = hasher.finalize();
    let start = u64::from(first) * GROUP;
    let range = start..(start + u64::from(groups) * GROUP).min(size);
    let Some(bytes) = file.get(range.start as usize..range.end as usize) else {
        assert!(slice_len(size, &range).is_err());
        return None;
    };
    let mut slice = match encode_slice(size, range.clone(), &outboard, bytes) {
        Ok(slice) => slice,
        Err(_) => {
            assert!(slice_len(size, &range).is_err());
            return None;
        }
    };
    assert_eq!(verify_slice(&id, size, range.clone(), &slice).as_deref(), Ok(bytes));
    if bits != 0 && !slice.is_empty() {
        let place = place % slice.len();
        slice[place] ^= bits;
        assert!(matches!(verify_slice(&id, size, range, &slice), Err(SliceError::WrongHash { .. })));
    }
    Some(())
}
