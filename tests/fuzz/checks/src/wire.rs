//! Decoders that take one whole thing.

use bbh_wire::frame::Body;
use bbh_wire::packet::{MAX_DESTINATIONS, SIGNATURE_BLOCK};
use bbh_wire::{Beacon, Destination, MAX_MESSAGE, Message, Packet, Protection};

/// A message, kind first: what is accepted has these bytes for its only encoding.
pub fn message(data: &[u8]) {
    let Ok(Some(message)) = Message::decode(data) else { return };
    assert!(data.len() <= MAX_MESSAGE);
    assert_eq!(message.kind(), data[0]);
    assert_eq!(message.encode(), data, "{message:?} has two encodings");
    if let Message::AttachRequest(request) = message {
        // Ids and signed bytes are made of whatever has passed the decoder.
        let attachment = request.attachment;
        let _ = attachment.node();
        let _ = bbh_wire::message::Attachment::signed_bytes(attachment.parent, attachment.counter, &attachment.name);
    }
}

/// A packet: what is accepted has these bytes for its only encoding and keeps the header's rules.
pub fn packet(data: &[u8]) {
    let Ok(packet) = Packet::decode(data) else { return };
    let mut again = Vec::new();
    packet.encode(&mut again);
    assert_eq!(again, data, "{packet:?} has two encodings");
    assert_eq!(packet.encoded_len(), data.len());
    match &packet.destination {
        Destination::One(_) => assert_ne!(packet.protection, Protection::Signed),
        Destination::List(nodes) => assert!((1..=MAX_DESTINATIONS).contains(&nodes.len())),
        Destination::Broadcast => assert_eq!(packet.protection, Protection::Signed),
    }
    if packet.protection == Protection::Signed {
        assert!(packet.payload.len() >= SIGNATURE_BLOCK);
        let _ = packet.signed_bytes(&packet.payload[SIGNATURE_BLOCK..]);
    }
    // What relays change is not authenticated, all the rest of the header is.
    let header = packet.associated_data();
    let relayed = Packet { hop_limit: packet.hop_limit.wrapping_sub(1), congested: !packet.congested, ..packet };
    assert_eq!(relayed.associated_data(), header);
}

/// A beacon: what is accepted comes back, but for bytes of later versions.
pub fn beacon(data: &[u8]) {
    let Ok(beacon) = Beacon::decode(data) else { return };
    assert_eq!(beacon.encode(), data[..Beacon::LEN]);
}

/// A decrypted frame: what is accepted, written and read again, is the same.
pub fn body(data: &[u8]) {
    let Ok(body) = Body::decode(data) else { return };
    let mut again = Vec::new();
    body.encode(&mut again);
    assert!(again.len() <= data.len());
    assert_eq!(Body::decode(&again), Ok(body));
}
