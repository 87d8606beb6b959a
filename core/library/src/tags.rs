//! Tags in sound and video files. Whatever is wrong with them, the file is shared all the same.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Cursor, Read, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use bbh_types::{BoundedString, FileKind, Tags};
use id3::TagLike;
use lofty::config::ParseOptions;
use lofty::file::TaggedFileExt;
use lofty::probe::Probe;
use lofty::tag::ItemKey;

/// Most bytes of an ID3v2 tag that are looked at: texts behind larger pictures are not found.
const MAX_ID3_BYTES: u64 = 4 << 20;
/// Longest text frame that is looked at, in bytes.
const MAX_FRAME_BYTES: usize = 8192;
/// Most frames that are looked at.
const MAX_FRAMES: usize = 512;

/// What is found in one file, by lower-case key.
type Found = BTreeMap<&'static str, String>;

/// The tags of a file that is called `name`; empty if there are none, or none that can be read.
pub(crate) fn read_tags(file: &mut File, name: &str) -> Tags {
    if !matches!(FileKind::of_name(name), FileKind::Audio | FileKind::Video) {
        return Tags::default();
    }
    let mp3 = name.to_ascii_lowercase().ends_with(".mp3");
    // The parsers meet files of any origin: a panic in one of them shall cost the tags only.
    let found = catch_unwind(AssertUnwindSafe(|| if mp3 { read_mp3(file) } else { read_other(file) }));
    bounded(found.unwrap_or_default())
}

fn bounded(found: Found) -> Tags {
    let tags = found.into_iter().filter_map(|(key, value)| {
        let value = value.trim_matches(|c: char| c.is_whitespace() || c == '\0');
        (!value.is_empty()).then(|| (BoundedString::truncated(key), BoundedString::truncated(value)))
    });
    Tags::truncated(tags.collect())
}

fn put(found: &mut Found, key: &'static str, value: Option<impl Into<String>>) {
    if let Some(value) = value.map(Into::into)
        && !value.trim().is_empty()
    {
        // The first source wins: ID3v1 cuts its texts at 30 characters.
        found.entry(key).or_insert(value);
    }
}

/// ID3v2 at the start, ID3v1 at the end; each for itself.
fn read_mp3(file: &mut File) -> Found {
    let mut found = Found::new();
    if let Ok(Some(texts)) = id3v2_texts(file) {
        let tag = match id3::Tag::read_from2(Cursor::new(texts)) {
            Ok(tag) => Some(tag),
            Err(error) => error.partial_tag,
        };
        if let Some(tag) = tag {
            put(&mut found, "title", tag.title());
            put(&mut found, "artist", tag.artist());
            put(&mut found, "album", tag.album());
            put(&mut found, "album_artist", tag.album_artist());
            put(&mut found, "composer", tag.get("TCOM").and_then(|frame| frame.content().text()));
            put(&mut found, "genre", tag.genre_parsed());
            let year = tag.date_recorded().map(|date| date.year).or_else(|| tag.year());
            put(&mut found, "year", year.map(|year| year.to_string()));
            put(&mut found, "track", tag.track().map(|track| track.to_string()));
            let comment = tag.comments().find(|comment| comment.description.is_empty());
            put(&mut found, "comment", comment.or_else(|| tag.comments().next()).map(|comment| comment.text.as_str()));
        }
    }
    if let Ok(tag) = id3::v1::Tag::read_from(&mut *file) {
        put(&mut found, "genre", tag.genre());
        put(&mut found, "title", Some(tag.title));
        put(&mut found, "artist", Some(tag.artist));
        put(&mut found, "album", Some(tag.album));
        put(&mut found, "year", Some(tag.year));
        put(&mut found, "track", tag.track.map(|track| track.to_string()));
        put(&mut found, "comment", Some(tag.comment));
    }
    found
}

/// FLAC, MP4, Ogg and all others that `lofty` knows by their first bytes.
fn read_other(file: &mut File) -> Found {
    let mut found = Found::new();
    if file.rewind().is_err() {
        return found;
    }
    let options = ParseOptions::new().read_properties(false).read_cover_art(false);
    let Ok(probe) = Probe::new(io::BufReader::new(file)).options(options).guess_file_type() else {
        return found;
    };
    let Ok(tagged) = probe.read() else { return found };
    let primary = tagged.primary_tag();
    for tag in primary.into_iter().chain(tagged.tags()) {
        for (key, item) in [
            ("title", ItemKey::TrackTitle),
            ("artist", ItemKey::TrackArtist),
            ("album", ItemKey::AlbumTitle),
            ("album_artist", ItemKey::AlbumArtist),
            ("composer", ItemKey::Composer),
            ("genre", ItemKey::Genre),
            ("track", ItemKey::TrackNumber),
            ("comment", ItemKey::Comment),
        ] {
            put(&mut found, key, tag.get_string(item));
        }
        let date = tag.get_string(ItemKey::Year).or_else(|| tag.get_string(ItemKey::RecordingDate));
        put(&mut found, "year", date.map(|date| date.chars().take(4).collect::<String>()));
    }
    found
}

/// The ID3v2 tag of a file reduced to short, plain text frames, so that the parser behind meets no
/// pictures, no frames that claim gigabytes and none that inflate to them.
fn id3v2_texts(file: &mut File) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 10];
    file.rewind()?;
    file.read_exact(&mut header)?;
    let [b'I', b'D', b'3', version @ 2..=4, _, flags, size @ ..] = header else {
        return Ok(None);
    };
    let mut body = Vec::new();
    file.take(u64::from(syncsafe(size)).min(MAX_ID3_BYTES)).read_to_end(&mut body)?;
    // Before version 4 the whole tag may be escaped, from then on single frames say so themselves.
    if flags & 0x80 != 0 && version < 4 {
        unescape(&mut body);
    }
    let mut rest = &body[..];
    if flags & 0x40 != 0 && version > 2 {
        let Some((size, _)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        // Version 3 does not count these four bytes, version 4 does.
        let length = if version == 3 { u32::from_be_bytes(*size) as usize + 4 } else { syncsafe(*size) as usize };
        rest = rest.get(length..).unwrap_or_default();
    }
    let frames = text_frames(rest, version);
    let mut texts = vec![b'I', b'D', b'3', version, 0, 0];
    let length = u32::try_from(frames.len()).unwrap_or(0);
    texts.extend([21, 14, 7, 0].map(|shift| (length >> shift & 0x7f) as u8));
    texts.extend(frames);
    Ok(Some(texts))
}

fn text_frames(mut rest: &[u8], version: u8) -> Vec<u8> {
    let mut frames = Vec::new();
    for _ in 0..MAX_FRAMES {
        let header_length = if version == 2 { 6 } else { 10 };
        let Some((header, behind)) = rest.split_at_checked(header_length) else { break };
        let size = match (version, header) {
            (2, &[_, _, _, a, b, c]) => u32::from_be_bytes([0, a, b, c]),
            (3, &[_, _, _, _, a, b, c, d, _, _]) => u32::from_be_bytes([a, b, c, d]),
            (_, &[_, _, _, _, a, b, c, d, _, _]) => syncsafe([a, b, c, d]),
            _ => break,
        };
        let Ok(size) = usize::try_from(size) else { break };
        if header[0] == 0 || size > behind.len() {
            break;
        }
        let packed = match version {
            2 => false,
            // Compressed, encrypted or grouped.
            3 => header[9] & 0xe0 != 0,
            _ => header[9] & 0x4c != 0,
        };
        let id = &header[..if version == 2 { 3 } else { 4 }];
        let wanted: &[&[u8]] = if version == 2 {
            &[b"TT2", b"TP1", b"TP2", b"TAL", b"TCM", b"TCO", b"TYE", b"TRK", b"COM"]
        } else {
            &[b"TIT2", b"TPE1", b"TPE2", b"TALB", b"TCOM", b"TCON", b"TYER", b"TDRC", b"TRCK", b"COMM"]
        };
        if wanted.contains(&id) && !packed && (1..=MAX_FRAME_BYTES).contains(&size) && frames.len() < 1 << 20 {
            frames.extend_from_slice(header);
            frames.extend_from_slice(&behind[..size]);
        }
        rest = &behind[size..];
    }
    frames
}

fn syncsafe(bytes: [u8; 4]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 7 | u32::from(byte & 0x7f))
}

/// Undoes ID3's unsynchronisation: the 0 after each 255 goes.
fn unescape(bytes: &mut Vec<u8>) {
    let mut after_ff = false;
    bytes.retain(|byte| {
        let escape = after_ff && *byte == 0;
        after_ff = *byte == 0xff;
        !escape
    });
}
