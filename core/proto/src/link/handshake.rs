//! The Noise handshake of links and of end-to-end sessions: `Noise_XX_25519_ChaChaPoly_BLAKE2s`.
//!
//! | message | payload |
//! |---|---|
//! | 1, in clear | oldest and newest version the initiator speaks, `u8` each |
//! | 2 | version chosen `u8`, identity proof, largest frame the responder takes `u32` big-endian |
//! | 3 | identity proof, largest frame the initiator takes |
//!
//! An identity proof is the Ed25519 key and its signature over the Noise static key ([`NoiseKey`]). Bytes behind a
//! payload's known part are left to later versions. Without a common version the responder answers with its own two
//! version bytes instead of message 2; that is not authenticated, and all it can do is end a handshake.

use bbh_types::NodeId;
use bbh_wire::message::Signature;
use bbh_wire::{MAX_VERSION, MIN_VERSION};
use rand_chacha::ChaCha12Rng;
use rand_core::{Rng, SeedableRng};
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::{CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::identity::NoiseKey;

const PATTERN: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
const PROOF: usize = 32 + 64;
/// Largest handshake message; the known ones have at most 197 bytes.
pub const MAX_HANDSHAKE_MESSAGE: usize = 512;
/// Smallest limit on frames that a node may announce: every link has to carry every relayed packet.
pub const MIN_MAX_FRAME: u32 = 4096;

/// What a handshake is for. A message of one kind means nothing to the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A link between neighbours.
    Link,
    /// A session from end to end.
    Session,
}

impl Purpose {
    const fn prologue(self) -> &'static [u8] {
        match self {
            Self::Link => b"BBH link 1",
            Self::Session => b"BBH session 1",
        }
    }
}

/// Protocol versions a node speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

impl Versions {
    /// What this program speaks.
    pub const OURS: Self = Self { min: MIN_VERSION, max: MAX_VERSION };

    /// The newest version that both speak.
    fn common(self, other: Self) -> Option<u8> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl std::fmt::Display for Versions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.min, self.max)
    }
}

/// Why a handshake came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// No protocol version is spoken by both.
    #[error(
        "no common protocol version: this device speaks {ours}, the other {theirs}; update the one with the older program"
    )]
    VersionMismatch {
        /// This side's.
        ours: Versions,
        /// The other's, as it says.
        theirs: Versions,
    },
    /// Not a Noise message of this handshake: damaged, forged, of another purpose or out of turn.
    #[error("the other device's handshake is damaged, forged or out of turn")]
    Malformed,
    /// A payload ends before its known part does.
    #[error("the other device's handshake lacks a part")]
    Incomplete,
    /// The Noise key is not signed by the node that claims it.
    #[error("the other device has no valid proof of its identity")]
    WrongProof,
    /// The other side is this very node, or has a copy of its secret.
    #[error("the other device has this device's own identity")]
    OwnIdentity,
    /// The other side takes only frames too small for relayed packets.
    #[error("the other device takes frames of {offered} bytes at most, but {MIN_MAX_FRAME} are needed")]
    FramesTooSmall {
        /// What it takes.
        offered: u32,
    },
}

/// What a completed handshake has established.
pub struct Established {
    /// Key for what this side sends.
    pub send: Zeroizing<[u8; 32]>,
    /// Key for what the other side sends.
    pub receive: Zeroizing<[u8; 32]>,
    /// The other side's proven id.
    pub remote: NodeId,
    /// The other side's Ed25519 key.
    pub remote_key: [u8; 32],
    /// The version to speak.
    pub version: u8,
    /// The largest frame that the other side takes, in bytes, at least [`MIN_MAX_FRAME`].
    pub remote_max_frame: u32,
}

/// Gives snow the default primitives, but random bytes from a generator of ours.
struct SeededResolver {
    seed: Zeroizing<[u8; 32]>,
}

struct SeededRandom(ChaCha12Rng);

impl Random for SeededRandom {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), snow::Error> {
        self.0.fill_bytes(dest);
        Ok(())
    }
}

impl CryptoResolver for SeededResolver {
    // Asked for once by each handshake, and each handshake has a seed of its own.
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(SeededRandom(ChaCha12Rng::from_seed(*self.seed))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// One handshake under way. Messages alternate: the initiator's [`Handshake::write`], the responder's
/// [`Handshake::read`] and `write`, and so on, until [`Handshake::is_complete`].
pub struct Handshake {
    state: HandshakeState,
    proof: [u8; PROOF],
    own_key: [u8; 32],
    versions: Versions,
    max_frame: u32,
    version: Option<u8>,
    remote_key: Option<[u8; 32]>,
    remote_max_frame: u32,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake").field("initiator", &self.state.is_initiator()).finish_non_exhaustive()
    }
}

impl Handshake {
    /// A handshake that this side begins or answers. `max_frame` is the largest frame this side takes, in bytes.
    pub fn new(purpose: Purpose, initiator: bool, key: &NoiseKey, max_frame: u32, rng: &mut ChaCha12Rng) -> Self {
        Self::with_versions(purpose, initiator, key, max_frame, rng, Versions::OURS)
    }

    /// The same for a program that speaks other versions.
    pub fn with_versions(
        purpose: Purpose,
        initiator: bool,
        key: &NoiseKey,
        max_frame: u32,
        rng: &mut ChaCha12Rng,
        versions: Versions,
    ) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(&mut *seed);
        let params = PATTERN.parse().expect("the pattern is one that snow knows");
        let state = Builder::with_resolver(params, Box::new(SeededResolver { seed }))
            .local_private_key(key.secret())
            .and_then(|builder| builder.prologue(purpose.prologue()))
            .and_then(|builder| if initiator { builder.build_initiator() } else { builder.build_responder() })
            .expect("key and prologue are set once and the resolver knows the pattern's primitives");
        let mut proof = [0; PROOF];
        proof[..32].copy_from_slice(key.node_key());
        proof[32..].copy_from_slice(&key.proof().to_bytes());
        Self {
            state,
            proof,
            own_key: *key.node_key(),
            versions,
            max_frame,
            version: None,
            remote_key: None,
            remote_max_frame: 0,
        }
    }

    /// Whether it is this side's turn to [`Handshake::write`].
    pub fn is_my_turn(&self) -> bool {
        !self.is_complete() && self.state.is_my_turn()
    }

    /// Whether all three messages have passed.
    pub fn is_complete(&self) -> bool {
        self.state.is_handshake_finished()
    }

    /// This side's next message.
    ///
    /// # Errors
    /// [`HandshakeError::Malformed`] if it is not this side's turn.
    pub fn write(&mut self) -> Result<Vec<u8>, HandshakeError> {
        let mut payload = Vec::with_capacity(1 + PROOF + 4);
        match (self.state.is_initiator(), self.version) {
            (true, None) => payload.extend_from_slice(&[self.versions.min, self.versions.max]),
            (false, None) => return Err(HandshakeError::Malformed),
            (initiator, Some(version)) => {
                if !initiator {
                    payload.push(version);
                }
                payload.extend_from_slice(&self.proof);
                payload.extend_from_slice(&self.max_frame.to_be_bytes());
            }
        }
        let mut message = vec![0; MAX_HANDSHAKE_MESSAGE];
        let length = self.state.write_message(&payload, &mut message).map_err(|_| HandshakeError::Malformed)?;
        message.truncate(length);
        Ok(message)
    }

    /// The other side's next message. After [`HandshakeError::Malformed`] the genuine message may still come and be
    /// read; after any other error the handshake is over.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub fn read(&mut self, message: &[u8]) -> Result<(), HandshakeError> {
        if message.len() > MAX_HANDSHAKE_MESSAGE || self.is_complete() || self.state.is_my_turn() {
            return Err(HandshakeError::Malformed);
        }
        if let (true, &[min, max]) = (self.state.is_initiator(), message) {
            return Err(HandshakeError::VersionMismatch { ours: self.versions, theirs: Versions { min, max } });
        }
        let mut payload = vec![0; message.len()];
        let length = self.state.read_message(message, &mut payload).map_err(|_| HandshakeError::Malformed)?;
        let mut rest = &payload[..length];
        if self.version.is_none() {
            self.version = Some(if self.state.is_initiator() {
                let [chosen] = take(&mut rest)?;
                let theirs = Versions { min: chosen, max: chosen };
                self.versions.common(theirs).ok_or(HandshakeError::VersionMismatch { ours: self.versions, theirs })?
            } else {
                let [min, max] = take(&mut rest)?;
                let theirs = Versions { min, max };
                let common = self.versions.common(theirs);
                // Nothing else is known of the initiator before its second message.
                self.version = Some(common.ok_or(HandshakeError::VersionMismatch { ours: self.versions, theirs })?);
                return Ok(());
            });
        }
        self.read_proof(rest)
    }

    fn read_proof(&mut self, mut rest: &[u8]) -> Result<(), HandshakeError> {
        let node_key: [u8; 32] = take(&mut rest)?;
        let signature = Signature::from_bytes(&take(&mut rest)?);
        let max_frame = u32::from_be_bytes(take(&mut rest)?);
        let noise_key: &[u8; 32] =
            self.state.get_remote_static().and_then(|key| key.try_into().ok()).ok_or(HandshakeError::Malformed)?;
        if !NoiseKey::check(&node_key, noise_key, &signature) {
            return Err(HandshakeError::WrongProof);
        }
        if node_key == self.own_key {
            return Err(HandshakeError::OwnIdentity);
        }
        if max_frame < MIN_MAX_FRAME {
            return Err(HandshakeError::FramesTooSmall { offered: max_frame });
        }
        self.remote_key = Some(node_key);
        self.remote_max_frame = max_frame;
        Ok(())
    }

    /// What a responder sends instead of message 2 after [`HandshakeError::VersionMismatch`].
    pub fn refusal(&self) -> [u8; 2] {
        [self.versions.min, self.versions.max]
    }

    /// The keys and the proven other side, once [`Handshake::is_complete`].
    pub fn finish(mut self) -> Option<Established> {
        if !self.is_complete() {
            return None;
        }
        let (remote_key, version) = (self.remote_key?, self.version?);
        let (first, second) = self.state.dangerously_get_raw_split();
        let (first, second) = (Zeroizing::new(first), Zeroizing::new(second));
        let (send, receive) = if self.state.is_initiator() { (first, second) } else { (second, first) };
        Some(Established {
            send,
            receive,
            remote: NodeId::of_key(&remote_key),
            remote_key,
            version,
            remote_max_frame: self.remote_max_frame,
        })
    }
}

/// Reads `N` bytes off the front of a decrypted payload.
fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], HandshakeError> {
    let (head, rest) = bytes.split_first_chunk::<N>().ok_or(HandshakeError::Incomplete)?;
    *bytes = rest;
    Ok(*head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Identity;

    struct Ends {
        initiator: Handshake,
        responder: Handshake,
    }

    fn identity(number: u8) -> Identity {
        Identity::from_seed([number; 32])
    }

    fn end(purpose: Purpose, initiator: bool, node: u8, versions: Versions) -> Handshake {
        let mut rng = ChaCha12Rng::seed_from_u64(u64::from(node) * 2 + u64::from(initiator));
        Handshake::with_versions(purpose, initiator, identity(node).noise(), 4096, &mut rng, versions)
    }

    fn ends() -> Ends {
        Ends {
            initiator: end(Purpose::Link, true, 1, Versions::OURS),
            responder: end(Purpose::Link, false, 2, Versions::OURS),
        }
    }

    fn run(ends: &mut Ends) -> Result<(), HandshakeError> {
        ends.responder.read(&ends.initiator.write()?)?;
        ends.initiator.read(&ends.responder.write()?)?;
        ends.responder.read(&ends.initiator.write()?)
    }

    #[test]
    fn both_ends_learn_each_others_proven_id_and_share_keys() {
        let mut ends = ends();
        run(&mut ends).unwrap();
        let (a, b) = (ends.initiator.finish().unwrap(), ends.responder.finish().unwrap());
        assert_eq!((a.remote, b.remote), (identity(2).node_id(), identity(1).node_id()));
        assert_eq!((a.remote_key, a.version, a.remote_max_frame), (identity(2).public_key(), 1, 4096));
        assert_eq!((&*a.send, &*a.receive), (&*b.receive, &*b.send));
        assert_ne!(a.send, a.receive);
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let mut ends = Ends {
            initiator: end(Purpose::Link, true, 1, Versions { min: 1, max: 4 }),
            responder: end(Purpose::Link, false, 2, Versions { min: 2, max: 3 }),
        };
        run(&mut ends).unwrap();
        assert_eq!(ends.initiator.finish().unwrap().version, 3);
        assert_eq!(ends.responder.finish().unwrap().version, 3);
    }

    #[test]
    fn without_a_common_version_both_ends_name_both_ranges() {
        let (old, new) = (Versions { min: 1, max: 2 }, Versions { min: 3, max: 5 });
        let mut ends =
            Ends { initiator: end(Purpose::Link, true, 1, old), responder: end(Purpose::Link, false, 2, new) };
        let refused = run(&mut ends).unwrap_err();
        assert_eq!(refused, HandshakeError::VersionMismatch { ours: new, theirs: old });
        let told = ends.initiator.read(&ends.responder.refusal()).unwrap_err();
        assert_eq!(told, HandshakeError::VersionMismatch { ours: old, theirs: new });
        assert!(told.to_string().contains("1 to 2") && told.to_string().contains("3 to 5"), "{told}");
    }

    #[test]
    fn who_claims_anothers_key_is_refused_by_either_end() {
        let others = end(Purpose::Link, true, 3, Versions::OURS).proof;
        let mut ends = ends();
        ends.responder.proof = others;
        assert_eq!(run(&mut ends), Err(HandshakeError::WrongProof));
        let mut ends = self::ends();
        ends.initiator.proof = others;
        assert_eq!(run(&mut ends), Err(HandshakeError::WrongProof));
    }

    #[test]
    fn a_copy_of_this_node_and_a_node_with_tiny_frames_are_refused() {
        let mut ends = ends();
        ends.initiator = end(Purpose::Link, true, 2, Versions::OURS);
        assert_eq!(run(&mut ends), Err(HandshakeError::OwnIdentity));
        let mut ends = self::ends();
        ends.responder.max_frame = 100;
        assert_eq!(run(&mut ends), Err(HandshakeError::FramesTooSmall { offered: 100 }));
    }

    #[test]
    fn link_and_session_handshakes_do_not_mix() {
        let mut ends = ends();
        ends.initiator = end(Purpose::Session, true, 1, Versions::OURS);
        assert_eq!(run(&mut ends), Err(HandshakeError::Malformed));
    }

    #[test]
    fn a_damaged_message_does_not_spoil_the_genuine_one() {
        let mut ends = ends();
        ends.responder.read(&ends.initiator.write().unwrap()).unwrap();
        let genuine = ends.responder.write().unwrap();
        for at in 0..genuine.len() {
            let mut damaged = genuine.clone();
            damaged[at] ^= 1;
            assert_eq!(ends.initiator.read(&damaged), Err(HandshakeError::Malformed));
        }
        ends.initiator.read(&genuine).unwrap();
        ends.responder.read(&ends.initiator.write().unwrap()).unwrap();
        assert!(ends.responder.finish().is_some());
    }

    #[test]
    fn what_a_later_version_adds_to_a_payload_is_ignored() {
        let mut ends = ends();
        ends.responder.read(&ends.initiator.write().unwrap()).unwrap();
        let mut payload = vec![1];
        payload.extend_from_slice(&ends.responder.proof);
        payload.extend_from_slice(&4096_u32.to_be_bytes());
        payload.extend_from_slice(b"something new");
        let mut message = [0; MAX_HANDSHAKE_MESSAGE];
        let length = ends.responder.state.write_message(&payload, &mut message).unwrap();
        ends.initiator.read(&message[..length]).unwrap();
        ends.responder.read(&ends.initiator.write().unwrap()).unwrap();
        assert_eq!(ends.initiator.finish().unwrap().remote, identity(2).node_id());
    }
}
