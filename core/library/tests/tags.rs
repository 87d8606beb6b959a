//! Tags of real files of several kinds, and hostile ones.

mod common;

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use bbh_types::FileRecord;
use common::{World, bytes};
use id3::{TagLike, Version};

fn tag<'a>(record: &'a FileRecord, key: &str) -> Option<&'a str> {
    record.tags.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
}

fn share_one(world: &World, path: &Path) -> FileRecord {
    let report = world.share("music");
    assert_eq!(report.problems, []);
    world.library.entry(path).expect("it was shared").record.clone()
}

/// 128 bytes at the end of a file, as of 1996.
fn id3v1(title: &str, artist: &str, year: &str, track: u8, genre: u8) -> Vec<u8> {
    let mut tag = b"TAG".to_vec();
    for (text, length) in [(title, 30), (artist, 30), ("Old Album", 30), (year, 4), ("old comment", 28)] {
        let mut field = text.as_bytes().to_vec();
        field.resize(length, 0);
        tag.extend(field);
    }
    tag.extend([0, track, genre]);
    assert_eq!(tag.len(), 128);
    tag
}

fn id3v2() -> id3::Tag {
    let mut tag = id3::Tag::new();
    tag.set_title("Das längste Lied, dessen Titel mehr als dreißig Zeichen hat");
    tag.set_artist("Die Brüder");
    tag.set_album("Hopfen & Malz");
    tag.set_genre("(17)");
    tag.set_year(1979);
    tag.set_track(7);
    tag.add_frame(id3::frame::Comment { lang: "deu".into(), description: String::new(), text: "Prost".into() });
    tag
}

#[test]
fn id3v1_alone() {
    let world = World::new();
    let mut data = bytes(10_000, 1);
    data.extend(id3v1("Old Song", "Old Artist", "1996", 4, 17));
    let record = share_one(&world, &world.write("music/old.mp3", data));
    assert_eq!(tag(&record, "title"), Some("Old Song"));
    assert_eq!(tag(&record, "artist"), Some("Old Artist"));
    assert_eq!(tag(&record, "album"), Some("Old Album"));
    assert_eq!(tag(&record, "year"), Some("1996"));
    assert_eq!(tag(&record, "track"), Some("4"));
    assert_eq!(tag(&record, "comment"), Some("old comment"));
    assert_eq!(tag(&record, "genre"), Some("Rock"));
    assert_eq!(world.names("old artist"), ["old.mp3"]);
}

#[test]
fn id3v2_alone_in_each_version() {
    for version in [Version::Id3v22, Version::Id3v23, Version::Id3v24] {
        let world = World::new();
        let path = world.write("music/new.mp3", bytes(10_000, 1));
        id3v2().write_to_path(&path, version).unwrap();
        let record = share_one(&world, &path);
        assert_eq!(tag(&record, "title"), Some("Das längste Lied, dessen Titel mehr als dreißig Zeichen hat"));
        assert_eq!(tag(&record, "artist"), Some("Die Brüder"), "{version}");
        assert_eq!(tag(&record, "album"), Some("Hopfen & Malz"));
        assert_eq!(tag(&record, "genre"), Some("Rock"));
        assert_eq!(tag(&record, "year"), Some("1979"), "{version}");
        assert_eq!(tag(&record, "track"), Some("7"));
        assert_eq!(tag(&record, "comment"), Some("Prost"));
        assert!(record.tags.windows(2).all(|pair| pair[0].0 < pair[1].0), "sorted by key");
        assert_eq!(world.names("brueder"), [""; 0]);
        assert_eq!(world.names("BRUDER hopfen"), ["new.mp3"]);
    }
}

#[test]
fn unsynchronised_tags_and_tags_behind_a_large_picture() {
    for version in [Version::Id3v23, Version::Id3v24] {
        let world = World::new();
        let path = world.write("music/new.mp3", bytes(10_000, 1));
        let mut tag_with_picture = id3::Tag::new();
        tag_with_picture.add_frame(id3::frame::Picture {
            mime_type: "image/jpeg".into(),
            picture_type: id3::frame::PictureType::CoverFront,
            description: String::new(),
            data: [0xff, 0x00, 0xff, 0xe0].repeat(100_000),
        });
        tag_with_picture.set_title("\u{ff}\u{e0} behind the picture");
        let mut encoded = Vec::new();
        id3::Encoder::new().version(version).unsynchronisation(true).encode(&tag_with_picture, &mut encoded).unwrap();
        encoded.extend(fs::read(&path).unwrap());
        fs::write(&path, encoded).unwrap();
        let record = share_one(&world, &path);
        assert_eq!(tag(&record, "title"), Some("\u{ff}\u{e0} behind the picture"), "{version}");
    }
}

#[test]
fn of_both_the_longer_id3v2_counts_and_id3v1_fills_the_gaps() {
    let world = World::new();
    let mut data = bytes(10_000, 1);
    data.extend(id3v1("Das laengste Lied, dessen Tite", "Old Artist", "1996", 4, 9));
    let path = world.write("music/both.mp3", data);
    let mut tag_without_artist = id3v2();
    tag_without_artist.remove_artist();
    tag_without_artist.write_to_path(&path, Version::Id3v24).unwrap();
    let record = share_one(&world, &path);
    assert_eq!(tag(&record, "title"), Some("Das längste Lied, dessen Titel mehr als dreißig Zeichen hat"));
    assert_eq!(tag(&record, "artist"), Some("Old Artist"));
    assert_eq!(tag(&record, "genre"), Some("Rock"));
}

fn vorbis_comments(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    let mut put = |text: &str| {
        block.extend((text.len() as u32).to_le_bytes());
        block.extend(text.as_bytes());
    };
    put("encoder");
    block.extend((fields.len() as u32).to_le_bytes());
    for (key, value) in fields {
        let text = format!("{key}={value}");
        block.extend((text.len() as u32).to_le_bytes());
        block.extend(text.as_bytes());
    }
    block
}

fn flac_file(comments: &[u8]) -> Vec<u8> {
    let mut file = b"fLaC\0\0\0\x22".to_vec();
    let mut info = [0; 34];
    info[..4].copy_from_slice(&[16, 0, 16, 0]);
    info[10..14].copy_from_slice(&[0x0a, 0xc4, 0x42, 0xf0]);
    file.extend(info);
    file.push(0x84);
    file.extend(&(comments.len() as u32).to_be_bytes()[1..]);
    file.extend(comments);
    file.extend(bytes(1000, 3));
    file
}

#[test]
fn flac() {
    let world = World::new();
    let comments =
        vorbis_comments(&[("TITLE", "Lied"), ("ARTIST", "Sänger"), ("DATE", "2001-05-06"), ("TRACKNUMBER", "3")]);
    let record = share_one(&world, &world.write("music/a.flac", flac_file(&comments)));
    assert_eq!(tag(&record, "title"), Some("Lied"));
    assert_eq!(tag(&record, "artist"), Some("Sänger"));
    assert_eq!(tag(&record, "year"), Some("2001"));
    assert_eq!(tag(&record, "track"), Some("3"));
}

fn mp4_atom(name: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut atom = (content.len() as u32 + 8).to_be_bytes().to_vec();
    atom.extend(name);
    atom.extend(content);
    atom
}

#[test]
fn mp4() {
    let world = World::new();
    let text = |name: &[u8; 4], value: &str| {
        let data = mp4_atom(b"data", &[&[0, 0, 0, 1, 0, 0, 0, 0], value.as_bytes()]);
        mp4_atom(name, &[&data])
    };
    let list = mp4_atom(b"ilst", &[&text(b"\xa9nam", "Lied"), &text(b"\xa9ART", "Sänger"), &text(b"\xa9day", "2001")]);
    let handler = mp4_atom(b"hdlr", &[&[0; 8], b"mdirappl", &[0; 9]]);
    let meta = mp4_atom(b"meta", &[&[0; 4], &handler, &list]);
    let moov = mp4_atom(b"moov", &[&mp4_atom(b"udta", &[&meta])]);
    let file = [mp4_atom(b"ftyp", &[b"M4A \0\0\0\0M4A "]), moov, mp4_atom(b"mdat", &[&bytes(1000, 1)])].concat();
    let record = share_one(&world, &world.write("music/a.m4a", file));
    assert_eq!(tag(&record, "title"), Some("Lied"));
    assert_eq!(tag(&record, "artist"), Some("Sänger"));
    assert_eq!(tag(&record, "year"), Some("2001"));
}

/// An ID3v2 tag out of raw frames.
fn raw_id3(version: u8, flags: u8, frames: &[u8]) -> Vec<u8> {
    let size = frames.len() as u32;
    let mut tag = vec![b'I', b'D', b'3', version, 0, flags];
    tag.extend([21, 14, 7, 0].map(|shift| (size >> shift & 0x7f) as u8));
    tag.extend(frames);
    tag
}

#[test]
fn hostile_tags_cost_nothing_and_the_file_is_shared() {
    let world = World::new();
    let title = |size: [u8; 4], flags: [u8; 2], text: &[u8]| [b"TIT2", &size[..], &flags, text].concat();
    let good = title([0, 0, 0, 6], [0, 0], b"\0Title");
    let hostile: Vec<(&str, Vec<u8>)> = vec![
        ("claims 4 GiB.mp3", raw_id3(3, 0, &title([0xff; 4], [0, 0], b"\0x"))),
        ("zero size.mp3", raw_id3(3, 0, &title([0; 4], [0, 0], b""))),
        ("tag larger than file.mp3", vec![b'I', b'D', b'3', 4, 0, 0, 0x7f, 0x7f, 0x7f, 0x7f, b'T']),
        ("long extended header.mp3", raw_id3(3, 0x40, &[0xff; 20])),
        ("short extended header.mp3", raw_id3(4, 0x40, &[0])),
        ("cut header.mp3", b"ID3\x04".to_vec()),
        ("half utf-16.mp3", raw_id3(4, 0, &title([0, 0, 0, 4], [0, 0], b"\x01\xff\xfe\xd8"))),
        ("bad encoding.mp3", raw_id3(4, 0, &title([0, 0, 0, 4], [0, 0], b"\x09abc"))),
        ("many frames.mp3", raw_id3(3, 0, &good.repeat(10_000))),
        ("flac length.flac", flac_file(&[0xff; 40])),
        ("flac cut.flac", b"fLaC\x84\xff\xff\xff".to_vec()),
        ("mp4 loop.mp4", [0, 0, 0, 0].iter().chain(b"ftypmoov").chain(&[0; 64]).copied().collect()),
        ("mp4 huge.mp4", mp4_atom(b"ftyp", &[b"M4A \0\0\0\0", b"\xff\xff\xff\xffmoov"])),
        ("ogg noise.ogg", [b"OggS".to_vec(), bytes(5000, 1)].concat()),
        ("empty.mp3", vec![]),
        ("noise.mp3", bytes(5000, 2)),
        ("noise.wav", [b"RIFF\xff\xff\xff\xffWAVE".to_vec(), bytes(5000, 3)].concat()),
        ("noise.opus", bytes(5000, 4)),
    ];
    for (name, data) in &hostile {
        world.write(&format!("music/{name}"), data);
    }
    let report = world.share("music");
    assert_eq!((report.added.len(), report.problems.len()), (hostile.len(), 0));
    let record = |name: &str| world.library.entry(&world.path(name)).unwrap().record.clone();
    assert_eq!(tag(&record("music/many frames.mp3"), "title"), Some("Title"));
    for entry in world.library.entries() {
        assert!(entry.record.tags.iter().all(|(_, value)| value.len() <= 256));
    }
}

/// A zlib stream of a short text that is stored as it is.
fn zlib(text: &[u8]) -> Vec<u8> {
    let length = text.len() as u16;
    let (mut low, mut high) = (1_u32, 0);
    for byte in text {
        low = (low + u32::from(*byte)) % 65_521;
        high = (high + low) % 65_521;
    }
    let checksum = (high << 16 | low).to_be_bytes();
    [&[0x78, 0x01, 1], &length.to_le_bytes()[..], &(!length).to_le_bytes(), text, &checksum].concat()
}

#[test]
fn compressed_frames_are_not_inflated_and_the_others_are_read() {
    let text = b"\0Inflated";
    let packed = [&(text.len() as u32).to_be_bytes()[..], &zlib(text)].concat();
    for (version, flags) in [(3, [0, 0x80]), (4, [0, 0x09])] {
        let frame = [b"TIT2", &(packed.len() as u32).to_be_bytes()[..], &flags, &packed].concat();
        let frames = [&frame[..], b"TPE1\0\0\0\x07\0\0\0Artist"].concat();
        let encoded = raw_id3(version, 0, &frames);
        let parsed = id3::Tag::read_from2(std::io::Cursor::new(&encoded)).unwrap();
        assert_eq!(parsed.title(), Some("Inflated"), "it is a frame that the parser would inflate");

        let world = World::new();
        let record = share_one(&world, &world.write("music/bomb.mp3", encoded));
        assert_eq!(tag(&record, "artist"), Some("Artist"));
        assert_eq!(tag(&record, "title"), None);
    }
}

#[test]
fn long_texts_are_cut_and_what_is_no_sound_or_film_is_not_parsed() {
    let world = World::new();
    let path = world.write("music/long.mp3", bytes(1000, 1));
    let mut long = id3::Tag::new();
    long.set_title("ü".repeat(1000));
    long.write_to_path(&path, Version::Id3v24).unwrap();
    let record = share_one(&world, &path);
    assert_eq!(tag(&record, "title"), Some(&*"ü".repeat(128)));

    let document = world.write("music/song.doc", fs::read(&path).unwrap());
    assert!(share_one(&world, &document).tags.is_empty());
}

#[test]
fn a_gigantic_file_with_a_tag_at_each_end_is_not_read_for_them() {
    // Sparse, and only hashed: what matters is that the tags of a large file are found at its ends.
    let world = World::new();
    let path = world.write("music/large.mp3", "");
    id3v2().write_to_path(&path, Version::Id3v23).unwrap();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(20 << 20)).unwrap();
    file.write_all(&id3v1("x", "y", "1996", 1, 1)).unwrap();
    let record = share_one(&world, &path);
    assert_eq!(tag(&record, "artist"), Some("Die Brüder"));
}
