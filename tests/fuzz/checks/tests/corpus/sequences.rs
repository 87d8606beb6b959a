//! Seeds of the targets that take a sequence of steps, and of those that take a file.

use bbh_node::air::protocol::{FromHub, Message as _, ToHub};
use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioCommand, RadioEvent, ScanDuty};

use crate::vectors;

/// What they begin with: target, name, content.
pub fn seeds() -> Vec<(&'static str, &'static str, Vec<u8>)> {
    let mut seeds = vec![("air", "client", client()), ("air", "hub", hub())];
    seeds.extend(link().map(|(name, bytes)| ("link", name, bytes)));
    seeds.extend(session().map(|(name, bytes)| ("session", name, bytes)));
    seeds.extend(node().map(|(name, bytes)| ("node", name, bytes)));
    seeds.extend(tags().map(|(name, bytes)| ("tags", name, bytes)));
    seeds
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat()
}

fn client() -> Vec<u8> {
    let mut stream = Vec::new();
    let mut say = |message: ToHub| message.encode(&mut stream);
    say(ToHub::Join { x: 0.0, y: 5.0 });
    say(ToHub::Command(RadioCommand::Advertise(Some(vec![7; 18]))));
    say(ToHub::Command(RadioCommand::Scan(ScanDuty::Full)));
    say(ToHub::Command(RadioCommand::Connect(PeerAddr(0))));
    for _ in 0..3 {
        say(ToHub::Move { x: 0.0, y: 4.0 });
    }
    say(ToHub::Send { link: LinkId(0), bytes: vec![1; 300] });
    say(ToHub::Send { link: LinkId(0), bytes: vec![2; 300] });
    say(ToHub::Move { x: 500.0, y: -1e9 });
    say(ToHub::Command(RadioCommand::Scan(ScanDuty::Low)));
    say(ToHub::Command(RadioCommand::Close(LinkId(0))));
    say(ToHub::Command(RadioCommand::Scan(ScanDuty::Off)));
    say(ToHub::Command(RadioCommand::Advertise(None)));
    stream
}

fn hub() -> Vec<u8> {
    let mut stream = Vec::new();
    let link = LinkId(3);
    FromHub::Joined.encode(&mut stream);
    for event in [
        RadioEvent::Discovered { peer: PeerAddr(2), beacon: vec![9; 18] },
        RadioEvent::Opened { link, peer: PeerAddr(2), dialler: true, limits: LinkLimits::BLUETOOTH },
        RadioEvent::OpenFailed { peer: PeerAddr(4) },
        RadioEvent::Data { link, bytes: vec![1; 30] },
        RadioEvent::Sent { link, count: 1 },
        RadioEvent::Closed { link },
        RadioEvent::State { on: true },
    ] {
        FromHub::Event(event).encode(&mut stream);
    }
    FromHub::Error("no room".into()).encode(&mut stream);
    stream
}

fn link() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let bodies: Vec<u8> = vectors("body").iter().flat_map(|(_, body)| string(body)).collect();
    let mut packets = Vec::new();
    for (_, packet) in vectors("packet") {
        packets.extend(string(&[&[1], &packet[..]].concat()));
    }
    [
        ("to-listener", vec![0, 3, 0, 0, 0, 34, 1, 1, 9, 9]),
        ("to-dialler", vec![1, 3, 0, 0, 0, 2, 7, 9]),
        ("too-large", vec![2, 0, 0xff, 0xff, 0xff, 0xff]),
        ("forged-frame", [&[2, 255, 0, 0, 0, 20][..], &[5; 20]].concat()),
        ("bodies", [&[3, 9], &bodies[..]].concat()),
        ("packets", [&[3, 255], &packets[..]].concat()),
        ("stream", vec![4, 6]),
        ("stream-bit", vec![4, 6, 1, 0, 1]),
        ("stream-without-a-piece", vec![4, 255, 0, 200, 255, 20, 0]),
        ("stream-with-a-piece-twice", vec![4, 255, 0, 200, 255, 120, 1]),
        ("handshake", vec![5, 20]),
        ("first-message", vec![5, 20, 0, 0, 36, 4]),
        ("second-message", vec![5, 20, 1, 0, 90, 1]),
        ("third-message", vec![5, 20, 2, 0, 3, 1]),
    ]
    .into_iter()
}

fn session() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    // One message there and back; the first three packets are the handshake.
    let talk = [[0, 0, 1, 0, 1, 0, 1, 0], [1, 0, 1, 0, 0, 1, 0x20, 0], [1, 0, 1, 0, 1, 0, 1, 0]].concat();
    let mut forged = talk.clone();
    for (_, message) in vectors("message").iter().filter(|(name, _)| name.starts_with("Session")) {
        for end in [0, 1] {
            forged.extend([&[6, end, 2 - end][..], &string(message)].concat());
        }
    }
    let mut packets = talk.clone();
    for (_, packet) in vectors("packet") {
        packets.extend([&[5][..], &string(&packet)].concat());
    }
    [
        ("talk", talk.clone()),
        ("both-begin", [[0, 0, 0, 9], [0, 1, 0, 9], [1, 0, 1, 0], [1, 0, 1, 0], [7, 30, 1, 0]].concat()),
        ("lost-and-repeated", vec![0, 0, 0, 9, 2, 0, 7, 12, 3, 0, 1, 0, 2, 1, 7, 12, 1, 0, 1, 0, 7, 100, 1, 0]),
        ("changed", [&talk[..], &[0, 0, 0, 50, 4, 0, 0, 60, 1, 0, 1, 0, 50, 4, 0, 0, 3, 8]].concat()),
        ("replayed", [&talk[..], &[0, 0, 0, 50, 3, 0, 3, 0, 1, 0]].concat()),
        ("forged", forged),
        ("packets", packets),
    ]
    .into_iter()
}

fn node() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let messages = vectors("message");
    // As a neighbour, to all, under a session, in clear.
    let all = |form: u8, step: &[u8]| {
        let said = messages.iter().flat_map(|(_, message)| [step, &string(message)].concat());
        [form].into_iter().chain(said).chain([5, 20]).collect::<Vec<u8>>()
    };
    let mut frames = vec![2];
    for (_, body) in vectors("body") {
        frames.extend([&[0][..], &string(&body)].concat());
    }
    let mut packets = vec![1];
    for (_, packet) in vectors("packet") {
        packets.extend([&[0][..], &string(&[&[1], &packet[..]].concat())].concat());
    }
    let mut beacons = vec![0];
    for (_, beacon) in vectors("beacon") {
        beacons.extend([&[7, 5][..], &string(&beacon), &[5, 30]].concat());
    }
    let right = |kind: u8| [10, kind, 0, 0, 0];
    let download =
        [&[6, 0, 5, 2][..], &right(1), &[5, 4], &right(2), &right(3), &right(3), &right(4), &right(3)].concat();
    let by_stranger =
        [&[6, 0, 5, 2][..], &[11, 1, 1, 0, 0, 0], &[5, 4], &[11, 1, 2, 0, 0, 0], &[11, 1, 3, 0, 0, 0]].concat();
    let liar = [&[6, 0, 5, 2][..], &right(1), &[5, 4], &right(2), &[10, 3, 4, 0, 1], &[10, 4, 0, 5, 1]].concat();
    let upload = [&right(6)[..], &right(7), &right(8), &[5, 10], &right(9), &[11, 1, 7, 0, 0, 0], &[5, 10]].concat();
    let search = [&[6, 1][..], &right(0), &[11, 1, 0, 0, 0, 0], &[5, 120, 6, 5, 6, 6, 5, 120]].concat();
    let user = [6, 0, 6, 2, 6, 3, 5, 200, 6, 7, 6, 4, 6, 0, 5, 255];
    let comes_and_goes = [8, 5, 10, 9, 5, 40, 8, 9, 5, 100, 9, 6, 0, 9];
    [
        ("neighbour", all(0, &[1])),
        ("parent", all(1, &[1])),
        ("child", all(2, &[1])),
        ("broadcasts", all(1, &[2, 1])),
        ("sessions", all(1, &[3, 2])),
        ("in-clear", all(3, &[4, 1])),
        ("frames", frames),
        ("packets", packets),
        ("beacons", beacons),
        ("download", [&[1], &download[..]].concat()),
        ("download-from-afar", [&[1], &by_stranger[..]].concat()),
        ("download-from-a-liar", [&[2], &liar[..]].concat()),
        ("upload", [&[2], &upload[..]].concat()),
        ("search", [&[3], &search[..]].concat()),
        ("user", [&[1], &user[..]].concat()),
        ("comes-and-goes", [&[2], &comes_and_goes[..]].concat()),
    ]
    .into_iter()
}

// ---------------------------------------------------------------- files

fn id3(version: u8, flags: u8, frames: &[u8]) -> Vec<u8> {
    let size = frames.len() as u32;
    let mut tag = vec![0, b'I', b'D', b'3', version, 0, flags];
    tag.extend([21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8));
    [tag, frames.to_vec(), vec![0xff, 0xfb, 0x90, 0, 0, 0]].concat()
}

fn id3_frame(id: &[u8], text: &[u8]) -> Vec<u8> {
    let size = (text.len() as u32 + 1).to_be_bytes();
    match id.len() {
        3 => [id, &size[1..], &[0], text].concat(),
        _ => [id, &size, &[0, 0, 0], text].concat(),
    }
}

fn comments() -> Vec<u8> {
    let text = |text: &str| [&(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat();
    [text("encoder"), vec![2, 0, 0, 0], text("TITLE=Lied"), text("DATE=2001-05-06")].concat()
}

fn atom(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&(content.len() as u32 + 8).to_be_bytes()[..], name, &content].concat()
}

fn mp4() -> Vec<u8> {
    let data = atom(b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0], b"Lied"]);
    let list = atom(b"ilst", &[&atom(b"\xa9nam", &[&data])]);
    let meta = atom(b"meta", &[&[0; 4], &atom(b"hdlr", &[&[0; 8], b"mdirappl", &[0; 9]]), &list]);
    let moov = atom(b"moov", &[&atom(b"udta", &[&meta])]);
    [&[2], &atom(b"ftyp", &[b"M4A \0\0\0\0M4A "])[..], &moov, &atom(b"mdat", &[&[1; 20]])].concat()
}

/// One page of an Ogg stream; the checksum is not looked at.
fn ogg_page(flags: u8, number: u8, packet: &[u8]) -> Vec<u8> {
    let mut page = [b"OggS\0", &[flags][..], &[0; 8], &[1, 0, 0, 0, number, 0, 0, 0, 0, 0, 0, 0]].concat();
    page.extend([1, packet.len() as u8]);
    page.extend(packet);
    page
}

fn tags() -> impl Iterator<Item = (&'static str, Vec<u8>)> {
    let texts = |ids: [&[u8]; 5]| ids.into_iter().flat_map(|id| id3_frame(id, b"1979")).collect::<Vec<u8>>();
    let comment = id3_frame(b"COMM", b"eng\0Prost");
    let new = [texts([b"TIT2", b"TPE1", b"TCON", b"TRCK", b"TDRC"]), comment].concat();
    let mut old = [&[0][..], &[3; 50], b"TAG", &[b'x'; 124], &[17]].concat();
    old[50 + 1 + 125] = 0;
    let flac = [b"\x01fLaC\0\0\0\x22", &[16; 34][..], &[0x84, 0, 0, comments().len() as u8], &comments(), &[0; 20]];
    let vorbis = [b"\x01vorbis\0\0\0\0\x02\x44\xac\0\0", &[0; 12][..], &[0xb8, 1]].concat();
    let ogg = [
        vec![3],
        ogg_page(2, 0, &vorbis),
        ogg_page(0, 1, &[b"\x03vorbis", &comments()[..], &[1]].concat()),
        ogg_page(4, 2, b"\x05vorbis"),
    ];
    let opus = [
        vec![4],
        ogg_page(2, 0, b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0"),
        ogg_page(4, 1, &[b"OpusTags", &comments()[..]].concat()),
    ];
    let info = b"LIST\x12\0\0\0INFOINAM\x05\0\0\0Lied\0\0";
    let wav =
        [b"\x05RIFF\x3c\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0", &info[..]].concat();
    [
        ("id3v2-4", id3(4, 0, &new)),
        ("id3v2-3-escaped", id3(3, 0x80, &texts([b"TIT2", b"TPE1", b"TCON", b"TRCK", b"TYER"]))),
        ("id3v2-2", id3(2, 0, &texts([b"TT2", b"TP1", b"TCO", b"TRK", b"TYE"]))),
        ("id3v2-extended", id3(4, 0x40, &[&[0, 0, 0, 6, 1, 0], &new[..]].concat())),
        ("id3v1", old),
        ("flac", flac.concat()),
        ("mp4", mp4()),
        ("ogg", ogg.concat()),
        ("opus", opus.concat()),
        ("wav", wav),
        ("ape", [&[10][..], b"MAC \x96\x0f", &[0; 40], b"APETAGEX\xd0\x07\0\0\x20\0\0\0", &[0; 16]].concat()),
        ("aiff", b"\x09FORM\0\0\0\x12AIFFNAME\0\0\0\x05Lied\0\0".to_vec()),
    ]
    .into_iter()
}
