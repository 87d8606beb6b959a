//! Who a node is: a long-term Ed25519 key, and all that follows from it (design §4).
//!
//! From one secret seed come the signing key, whose hash is the [`NodeId`], and the X25519 key that Noise uses. The
//! first signs the second, so that whoever completes a Noise handshake also proves its id.

use bbh_types::{BoundedString, NodeId};
use bbh_wire::message::{Attachment, Signature};
use bbh_wire::packet::SIGNATURE_BLOCK;
use bbh_wire::{Packet, Protection};
use bip39::Language;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use snow::params::DHChoice;
use snow::resolvers::{CryptoResolver, DefaultResolver};
use zeroize::Zeroizing;

const NOISE_CONTEXT: &str = "Blue Brewery Horse 2026 Noise static key of a node";
const FINGERPRINT_CONTEXT: &str = "Blue Brewery Horse 2026 fingerprint of an Ed25519 public key";
const NOISE_PROOF_PREFIX: &[u8] = b"BBH noise static key 1";
/// Words of a fingerprint; each carries 11 bits, 88 in all.
const FINGERPRINT_WORDS: usize = 8;

/// The static key pair of a node's Noise handshakes, and the proof of whose it is.
#[derive(Clone)]
pub struct NoiseKey {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
    node_key: [u8; 32],
    proof: Signature,
}

impl NoiseKey {
    /// The X25519 secret.
    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }

    /// The X25519 public key.
    pub const fn public(&self) -> &[u8; 32] {
        &self.public
    }

    /// The Ed25519 key of the node it belongs to.
    pub const fn node_key(&self) -> &[u8; 32] {
        &self.node_key
    }

    /// The node's signature over the public key.
    pub const fn proof(&self) -> &Signature {
        &self.proof
    }

    /// The node it belongs to.
    pub fn node_id(&self) -> NodeId {
        NodeId::of_key(&self.node_key)
    }

    /// Whether `node_key` has signed the Noise key `public`.
    pub fn check(node_key: &[u8; 32], public: &[u8; 32], proof: &Signature) -> bool {
        verify(node_key, &Self::signed_bytes(public), proof)
    }

    fn signed_bytes(public: &[u8; 32]) -> Vec<u8> {
        [NOISE_PROOF_PREFIX, public].concat()
    }
}

/// A node's long-term identity. Secrets are wiped from memory when it is dropped, and never printed.
#[derive(Clone)]
pub struct Identity {
    signing: SigningKey,
    node: NodeId,
    noise: NoiseKey,
}

impl Identity {
    /// The identity that follows from 32 secret random bytes, which the shell draws once and keeps safe.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        let seed = Zeroizing::new(seed);
        let signing = SigningKey::from_bytes(&seed);
        let node_key = signing.verifying_key().to_bytes();
        let secret = Zeroizing::new(blake3::derive_key(NOISE_CONTEXT, &*seed));
        let mut dh = DefaultResolver.resolve_dh(&DHChoice::Curve25519).expect("snow is built with Curve25519");
        dh.set(&*secret);
        let public: [u8; 32] = dh.pubkey().try_into().expect("X25519 keys have 32 bytes");
        let proof = Signature::from_bytes(&signing.sign(&NoiseKey::signed_bytes(&public)).to_bytes());
        Self { node: NodeId::of_key(&node_key), noise: NoiseKey { secret, public, node_key, proof }, signing }
    }

    /// The node's id.
    pub const fn node_id(&self) -> NodeId {
        self.node
    }

    /// The Ed25519 public key.
    pub const fn public_key(&self) -> [u8; 32] {
        self.noise.node_key
    }

    /// The key for Noise handshakes.
    pub const fn noise(&self) -> &NoiseKey {
        &self.noise
    }

    /// The signature that ties the Noise key to this identity.
    pub const fn noise_proof(&self) -> &Signature {
        &self.noise.proof
    }

    /// Signs bytes. What is signed must begin with a text that says what it is for.
    pub fn sign(&self, bytes: &[u8]) -> Signature {
        Signature::from_bytes(&self.signing.sign(bytes).to_bytes())
    }

    /// The signed statement that this node is now a child of `parent`. The name is cut to its limit.
    pub fn attach(&self, parent: NodeId, counter: u64, name: &str) -> Attachment {
        let name = BoundedString::truncated(name);
        let signature = self.sign(&Attachment::signed_bytes(parent, counter, &name));
        Attachment { key: self.public_key(), parent, counter, name, signature }
    }

    /// Signs a packet of this node: puts key and signature in front of its payload.
    pub fn sign_packet(&self, packet: &mut Packet) {
        debug_assert!(packet.protection == Protection::Signed && packet.source == self.node);
        let signature = self.sign(&packet.signed_bytes(&packet.payload));
        let mut payload = Vec::with_capacity(SIGNATURE_BLOCK + packet.payload.len());
        payload.extend_from_slice(&self.public_key());
        payload.extend_from_slice(&signature.to_bytes());
        payload.extend_from_slice(&packet.payload);
        packet.payload = payload;
    }

    /// Eight words by which people compare a node's key (see [`fingerprint_of`]).
    pub fn fingerprint(&self) -> String {
        fingerprint_of(&self.public_key())
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.node)
    }
}

/// Whether `signature` is the key's over these bytes. Strict (RFC 8032 without malleable or small-order leniency), so
/// that all nodes agree.
pub fn verify(key: &[u8; 32], bytes: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(&signature.to_bytes());
    VerifyingKey::from_bytes(key).is_ok_and(|key| key.verify_strict(bytes, &signature).is_ok())
}

/// Whether an attachment was signed by the node that attaches.
pub fn check_attachment(attachment: &Attachment) -> bool {
    let bytes = Attachment::signed_bytes(attachment.parent, attachment.counter, &attachment.name);
    verify(&attachment.key, &bytes, &attachment.signature)
}

/// The payload of a signed packet, if its source has indeed signed it.
pub fn open_signed(packet: &Packet) -> Option<&[u8]> {
    if packet.protection != Protection::Signed {
        return None;
    }
    let (key, rest) = packet.payload.split_first_chunk::<32>()?;
    let (signature, payload) = rest.split_first_chunk::<64>()?;
    let genuine = NodeId::of_key(key) == packet.source
        && verify(key, &packet.signed_bytes(payload), &Signature::from_bytes(signature));
    genuine.then_some(payload)
}

/// The fingerprint of an Ed25519 public key: eight words of the English BIP-39 list, 11 bits each, most significant
/// first, from a hash of the key that serves nothing else, joined by `-`.
pub fn fingerprint_of(key: &[u8; 32]) -> String {
    let words = Language::English.word_list();
    let hash = blake3::derive_key(FINGERPRINT_CONTEXT, key);
    let mut bits = hash[..FINGERPRINT_WORDS * 11 / 8].iter().fold(0_u128, |bits, &byte| bits << 8 | u128::from(byte));
    let mut chosen = [""; FINGERPRINT_WORDS];
    for word in chosen.iter_mut().rev() {
        *word = words[(bits & 0x7ff) as usize];
        bits >>= 11;
    }
    chosen.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bbh_wire::{Destination, Lane};

    fn broadcast(identity: &Identity) -> Packet {
        Packet {
            lane: Lane::Search,
            protection: Protection::Signed,
            congested: false,
            hop_limit: 64,
            source: identity.node_id(),
            destination: Destination::Broadcast,
            sequence: 5,
            payload: b"\0who has beer?".to_vec(),
        }
    }

    #[test]
    fn a_seed_always_gives_the_same_identity() {
        let (a, b) = (Identity::from_seed([1; 32]), Identity::from_seed([1; 32]));
        assert_eq!(a.node_id(), b.node_id());
        assert_eq!(a.noise().public(), b.noise().public());
        assert_eq!(a.node_id(), NodeId::of_key(&a.public_key()));
        assert_ne!(a.node_id(), Identity::from_seed([2; 32]).node_id());
        assert!(NoiseKey::check(&a.public_key(), a.noise().public(), a.noise_proof()));
        assert!(!NoiseKey::check(&a.public_key(), &[9; 32], a.noise_proof()));
    }

    #[test]
    fn neither_form_of_debug_shows_a_secret() {
        let identity = Identity::from_seed([7; 32]);
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.node_id()));
    }

    #[test]
    fn a_signed_packet_opens_after_relays_changed_what_they_may() {
        let identity = Identity::from_seed([1; 32]);
        let mut packet = broadcast(&identity);
        let payload = packet.payload.clone();
        identity.sign_packet(&mut packet);
        packet.hop_limit = 3;
        packet.congested = true;
        assert_eq!(open_signed(&packet), Some(&payload[..]));
    }

    #[test]
    fn a_signed_packet_is_refused_once_anything_else_in_it_changed() {
        let identity = Identity::from_seed([1; 32]);
        let mut packet = broadcast(&identity);
        identity.sign_packet(&mut packet);
        let forgeries: [fn(&mut Packet); 6] = [
            |packet| packet.sequence += 1,
            |packet| packet.lane = Lane::Control,
            |packet| packet.source = Identity::from_seed([2; 32]).node_id(),
            |packet| *packet.payload.last_mut().unwrap() ^= 1,
            |packet| packet.payload.truncate(SIGNATURE_BLOCK - 1),
            |packet| packet.protection = Protection::Clear,
        ];
        for forge in forgeries {
            let mut forged = packet.clone();
            forge(&mut forged);
            assert_eq!(open_signed(&forged), None);
        }
        // Another node may sign the same words, but not in this node's name.
        let other = Identity::from_seed([2; 32]);
        let mut claimed = broadcast(&other);
        other.sign_packet(&mut claimed);
        claimed.source = identity.node_id();
        assert_eq!(open_signed(&claimed), None);
    }

    #[test]
    fn an_attachment_is_believed_only_as_its_node_signed_it() {
        let identity = Identity::from_seed([1; 32]);
        let parent = Identity::from_seed([2; 32]).node_id();
        let attachment = identity.attach(parent, 4, "a phone");
        assert_eq!(attachment.node(), identity.node_id());
        assert!(check_attachment(&attachment));
        assert!(!check_attachment(&Attachment { counter: 5, ..attachment.clone() }));
        assert!(!check_attachment(&Attachment { parent: identity.node_id(), ..attachment.clone() }));
        assert!(!check_attachment(&Attachment { name: BoundedString::truncated("your phone"), ..attachment }));
        assert!(check_attachment(&identity.attach(parent, 5, &"long ".repeat(100))));
    }

    #[test]
    fn a_fingerprint_is_eight_words_that_tell_keys_apart() {
        let a = Identity::from_seed([1; 32]).fingerprint();
        assert_eq!(a.split('-').count(), 8);
        assert!(a.chars().all(|c| c == '-' || c.is_ascii_lowercase()), "{a}");
        assert_ne!(a, Identity::from_seed([2; 32]).fingerprint());
        assert_eq!(a, fingerprint_of(&Identity::from_seed([1; 32]).public_key()));
    }
}
