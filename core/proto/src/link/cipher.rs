//! Noise's transport cipher (ChaCha20-Poly1305, a 64-bit counter as nonce), in place, with automatic rekeying.
//!
//! Both sides replace each direction's key by Noise's REKEY (specification, 11.3) after every 2^20 messages: that
//! stretch of messages is an epoch, and the epoch of a message follows from its nonce. On a link nonces are implicit,
//! since its bytes come in order or not at all; so a replayed, left out or reordered frame is opened with the wrong
//! nonce and fails like a forged one. A session's packets may be lost and reordered: they carry their nonce, and
//! [`SessionReceiver`] remembers which it has seen.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{ChaCha20Poly1305, KeyInit, Nonce, Tag};
use zeroize::Zeroizing;

/// Length of the authentication tag, in bytes.
pub const TAG_LEN: usize = bbh_wire::frame::TAG;
/// Base-2 logarithm of the number of messages between two rekeyings.
pub const EPOCH_BITS: u32 = 20;
/// How far back in a session's sequence a late packet may lie, in packets.
pub const REPLAY_WINDOW: u64 = 8192;
/// How many epochs ahead a session's packet may be: 2 million packets may be lost in a row.
const MAX_EPOCHS_AHEAD: u64 = 2;

/// A message that was not sealed with this key and nonce: forged, damaged, replayed or out of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("authentication failed")]
pub struct NotAuthentic;

/// The key of one direction in one epoch. Wiped when dropped.
#[derive(Clone)]
struct Key(ChaCha20Poly1305);

impl Key {
    fn new(key: &[u8; 32]) -> Self {
        Self(ChaCha20Poly1305::new(key.into()))
    }

    fn nonce(counter: u64) -> Nonce {
        let mut nonce = Nonce::default();
        nonce[4..].copy_from_slice(&counter.to_le_bytes());
        nonce
    }

    fn seal(&self, counter: u64, associated: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        self.0
            .encrypt_inout_detached(&Self::nonce(counter), associated, buffer.into())
            .expect("no message comes near the cipher's limit of 256 GiB")
            .into()
    }

    fn open(
        &self,
        counter: u64,
        associated: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), NotAuthentic> {
        self.0
            .decrypt_inout_detached(&Self::nonce(counter), associated, buffer.into(), &Tag::from(*tag))
            .map_err(|_| NotAuthentic)
    }

    /// The next epoch's key: the first 32 bytes of 32 zero bytes, sealed with the last nonce.
    fn next(&self) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        self.seal(u64::MAX, &[], &mut *key);
        Self::new(&key)
    }
}

const fn epoch(nonce: u64) -> u64 {
    nonce >> EPOCH_BITS
}

/// The sending half of a link or session.
pub struct Sealer {
    key: Key,
    nonce: u64,
}

impl Sealer {
    /// Begins at nonce 0.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: Key::new(key), nonce: 0 }
    }

    /// The nonce that the next message will have, which is also the number of messages sealed.
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    /// Encrypts a message where it stands; returns its tag.
    pub fn seal(&mut self, associated: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = self.nonce;
        let tag = self.key.seal(nonce, associated, buffer);
        // Unreachable at any speed before the sun burns out, and then a repeated nonce must still not happen.
        self.nonce = nonce.checked_add(1).expect("fewer than 2^64 messages are sealed");
        if epoch(self.nonce) != epoch(nonce) {
            self.key = self.key.next();
        }
        tag
    }
}

/// The receiving half of a link: nonces are counted, not sent.
pub struct Opener {
    key: Key,
    nonce: u64,
}

impl Opener {
    /// Begins at nonce 0.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { key: Key::new(key), nonce: 0 }
    }

    /// Decrypts a message where it stands; `sealed` is ciphertext and tag.
    ///
    /// # Errors
    /// [`NotAuthentic`], also if it is shorter than a tag; the link can't be used any more.
    pub fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], NotAuthentic> {
        let (buffer, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(NotAuthentic)?;
        let nonce = self.nonce;
        self.key.open(nonce, &[], buffer, tag)?;
        self.nonce = nonce.checked_add(1).ok_or(NotAuthentic)?;
        if epoch(self.nonce) != epoch(nonce) {
            self.key = self.key.next();
        }
        Ok(buffer)
    }
}

/// Which of the last [`REPLAY_WINDOW`] nonces have been seen.
struct ReplayWindow {
    /// One more than the highest nonce seen.
    next: u64,
    /// One bit for each nonce of the window, at its value modulo the window's length.
    seen: Box<[u64; (REPLAY_WINDOW / 64) as usize]>,
}

impl ReplayWindow {
    fn new() -> Self {
        Self { next: 0, seen: Box::new([0; (REPLAY_WINDOW / 64) as usize]) }
    }

    const fn place(nonce: u64) -> (usize, u64) {
        let bit = nonce % REPLAY_WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn admits(&self, nonce: u64) -> bool {
        let (word, bit) = Self::place(nonce);
        nonce >= self.next || (self.next - nonce <= REPLAY_WINDOW && self.seen[word] & bit == 0)
    }

    /// To be called for authenticated nonces only, else a forger could push the window on.
    fn mark(&mut self, nonce: u64) {
        if nonce >= self.next {
            if nonce - self.next >= REPLAY_WINDOW {
                self.seen.fill(0);
            } else {
                // The places of the nonces skipped still hold the bits of those a window's length before.
                for skipped in self.next..nonce {
                    let (word, bit) = Self::place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.next = nonce + 1;
        }
        let (word, bit) = Self::place(nonce);
        self.seen[word] |= bit;
    }
}

/// Why a session's packet was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// Its nonce was seen before, or is too far back to know.
    #[error("replayed or too late")]
    Replayed,
    /// Its nonce lies too far ahead to be worth trying.
    #[error("sequence too far ahead")]
    TooFarAhead,
    /// Forged or damaged.
    #[error("authentication failed")]
    NotAuthentic,
}

/// The receiving half of a session: nonces are explicit, each is taken once.
pub struct SessionReceiver {
    current: Key,
    current_epoch: u64,
    /// The key of the epoch before, for packets that were overtaken.
    previous: Option<Key>,
    window: ReplayWindow,
}

impl SessionReceiver {
    /// Begins at epoch 0.
    pub fn new(key: &[u8; 32]) -> Self {
        Self { current: Key::new(key), current_epoch: 0, previous: None, window: ReplayWindow::new() }
    }

    /// Decrypts a message where it stands; `sealed` is ciphertext and tag. Nothing changes unless it is authentic,
    /// and a forged one costs two rekeyings and one pass over its bytes at most.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open<'a>(&mut self, nonce: u64, associated: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], OpenError> {
        let (buffer, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(OpenError::NotAuthentic)?;
        // The last nonce is the one that rekeying uses.
        if !self.window.admits(nonce) || nonce == u64::MAX {
            return Err(OpenError::Replayed);
        }
        let epoch = epoch(nonce);
        let opened = |result: Result<(), NotAuthentic>| result.map_err(|_| OpenError::NotAuthentic);
        if epoch == self.current_epoch {
            opened(self.current.open(nonce, associated, buffer, tag))?;
        } else if epoch + 1 == self.current_epoch {
            let key = self.previous.as_ref().ok_or(OpenError::Replayed)?;
            opened(key.open(nonce, associated, buffer, tag))?;
        } else if epoch < self.current_epoch {
            return Err(OpenError::Replayed);
        } else if epoch - self.current_epoch > MAX_EPOCHS_AHEAD {
            return Err(OpenError::TooFarAhead);
        } else {
            let mut before = self.current.clone();
            let mut key = before.next();
            for _ in self.current_epoch + 1..epoch {
                before = key;
                key = before.next();
            }
            opened(key.open(nonce, associated, buffer, tag))?;
            self.previous = Some(before);
            self.current = key;
            self.current_epoch = epoch;
        }
        self.window.mark(nonce);
        Ok(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = [7; 32];

    fn sealed_at(nonce: u64) -> Vec<u8> {
        let mut key = Key::new(&KEY);
        for _ in 0..epoch(nonce) {
            key = key.next();
        }
        let mut message = b"beer".to_vec();
        let tag = key.seal(nonce, b"header", &mut message);
        message.extend_from_slice(&tag);
        message
    }

    fn open(receiver: &mut SessionReceiver, nonce: u64) -> Result<(), OpenError> {
        receiver.open(nonce, b"header", &mut sealed_at(nonce)).map(|plain| assert_eq!(plain, b"beer"))
    }

    #[test]
    fn the_cipher_is_the_one_of_noise() {
        use snow::params::CipherChoice;
        use snow::resolvers::{CryptoResolver, DefaultResolver};
        let mut theirs = DefaultResolver.resolve_cipher(&CipherChoice::ChaChaPoly).unwrap();
        theirs.set(&KEY);
        let mut key = Key::new(&KEY);
        for nonce in [0, 1, 300, 1 << 40] {
            let mut expected = [0; 20];
            theirs.encrypt(nonce, b"header", b"beer", &mut expected);
            let mut message = *b"beer";
            let tag = key.seal(nonce, b"header", &mut message);
            assert_eq!([&message[..], &tag].concat(), expected);
            theirs.rekey();
            key = key.next();
        }
    }

    #[test]
    fn both_halves_of_a_link_rekey_at_the_same_message() {
        let mut sealer = Sealer::new(&KEY);
        let mut opener = Opener::new(&KEY);
        let last = (1 << EPOCH_BITS) - 1;
        (sealer.nonce, opener.nonce) = (last, last);
        for nonce in last..last + 3 {
            let mut message = b"beer".to_vec();
            let tag = sealer.seal(&[], &mut message);
            message.extend_from_slice(&tag);
            let fresh = Key::new(&KEY).open(nonce, &[], &mut message.clone()[..4], &tag);
            assert_eq!(fresh.is_ok(), nonce == last, "the first key serves the first epoch only");
            assert_eq!(opener.open(&mut message).unwrap(), b"beer");
        }
    }

    #[test]
    fn each_nonce_is_taken_once_at_every_edge_of_the_window() {
        let mut receiver = SessionReceiver::new(&KEY);
        let top = 3 * REPLAY_WINDOW + 100;
        assert_eq!(open(&mut receiver, 5), Ok(()));
        assert_eq!(open(&mut receiver, top), Ok(()));
        assert_eq!(open(&mut receiver, top), Err(OpenError::Replayed));
        let oldest = top + 1 - REPLAY_WINDOW;
        assert_eq!(open(&mut receiver, oldest - 1), Err(OpenError::Replayed), "one behind the window");
        assert_eq!(open(&mut receiver, oldest), Ok(()), "the window's last");
        assert_eq!(open(&mut receiver, oldest), Err(OpenError::Replayed));
        assert_eq!(open(&mut receiver, top + 1), Ok(()));
        assert_eq!(open(&mut receiver, oldest + 1), Ok(()), "the window moved on by one");
        assert_eq!(open(&mut receiver, oldest + 2), Ok(()));
    }

    #[test]
    fn the_window_agrees_with_a_plain_list_of_what_was_seen() {
        let mut window = ReplayWindow::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut state = 1_u64;
        let mut base = 0_u64;
        for _ in 0..200_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let draw = state >> 33;
            base += match draw % 1000 {
                0 => REPLAY_WINDOW - 1 + draw / 1000 % 3,
                1 => 3 * REPLAY_WINDOW,
                2..500 => draw / 1000 % 3,
                _ => 0,
            };
            let nonce = base.saturating_sub((draw / 7) % (REPLAY_WINDOW + 20));
            let highest = seen.last().copied();
            let late = highest.is_some_and(|highest: u64| highest >= nonce && highest - nonce >= REPLAY_WINDOW);
            let expected = !late && !seen.contains(&nonce);
            assert_eq!(window.admits(nonce), expected, "nonce {nonce}, highest {highest:?}");
            if expected {
                window.mark(nonce);
                seen.insert(nonce);
            }
        }
    }

    #[test]
    fn a_session_follows_into_later_epochs_and_takes_the_overtaken_of_the_one_before() {
        let mut receiver = SessionReceiver::new(&KEY);
        let start = 1 << EPOCH_BITS;
        assert_eq!(open(&mut receiver, 0), Ok(()));
        assert_eq!(open(&mut receiver, start + 1), Ok(()));
        assert_eq!(open(&mut receiver, start - 1), Ok(()));
        assert_eq!(open(&mut receiver, 3 * start), Ok(()), "two epochs on");
        assert_eq!(open(&mut receiver, 3 * start - 1), Ok(()), "the one in between is known too");
        assert_eq!(open(&mut receiver, start + 2), Err(OpenError::Replayed));
    }

    #[test]
    fn a_forged_nonce_changes_nothing() {
        let mut receiver = SessionReceiver::new(&KEY);
        let start = 1 << EPOCH_BITS;
        assert_eq!(open(&mut receiver, 3), Ok(()));
        for nonce in [4, start, 2 * start + 9] {
            let mut forged = sealed_at(nonce + 1);
            assert_eq!(receiver.open(nonce, b"header", &mut forged), Err(OpenError::NotAuthentic));
        }
        for nonce in [3 * start, u64::MAX - 1] {
            assert_eq!(receiver.open(nonce, b"header", &mut [0; 20]), Err(OpenError::TooFarAhead));
        }
        assert_eq!(receiver.open(u64::MAX, b"header", &mut [0; 20]), Err(OpenError::Replayed));
        assert_eq!(receiver.open(9, b"header", &mut [0; 15]), Err(OpenError::NotAuthentic));
        assert_eq!(receiver.current_epoch, 0);
        assert_eq!(open(&mut receiver, 4), Ok(()));
    }
}
