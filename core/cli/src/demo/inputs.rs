//! The files that the demo shares, made on the spot, and the check of what arrived.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use id3::{Tag, TagLike, Version};
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use sha2::{Digest, Sha256};

/// A word that stands in the audio file's tags and nowhere else.
pub const TAG_WORD: &str = "schwarzbier";

/// The folder that is shared.
pub struct Inputs {
    /// Itself.
    pub folder: PathBuf,
    /// An audio file with ID3v1 and ID3v2 tags.
    pub audio: PathBuf,
    /// Random bytes.
    pub large: PathBuf,
}

impl Inputs {
    /// Makes the folder below `parent`. The large file's bytes come from a fixed seed: each run sends the same.
    pub fn create(parent: &Path, large_size: u64) -> io::Result<Self> {
        let folder = parent.join("Brewery tour");
        fs::create_dir_all(&folder)?;
        let audio = folder.join("track 01.mp3");
        let large = folder.join("camera recording.bin");
        fs::write(
            folder.join("tour notes.txt"),
            "Meet at the old mash tun at noon. The horse is in the yard; please do not feed it malt.\n",
        )?;
        write_audio(&audio)?;
        write_random(&large, large_size)?;
        Ok(Self { folder, audio, large })
    }
}

/// Two seconds of silence as MPEG-1 layer III at 44.1 kHz and 128 kbit/s, an ID3v2.4 tag before and an ID3v1 tag after.
fn write_audio(path: &Path) -> io::Result<()> {
    // 144 * 128000 / 44100 bytes, the header included. Side information of zeros means: no bits of audio.
    const FRAME: usize = 417;
    let mut frame = [0; FRAME];
    frame[..4].copy_from_slice(&[0xff, 0xfb, 0x90, 0x00]);
    let mut bytes = frame.repeat(77);
    let (title, artist, album) = ("Silence before the toast", "The Blue Brewery Horses", "Schwarzbier Sessions");
    let mut v1 = [0; 128];
    v1[..3].copy_from_slice(b"TAG");
    for (start, text) in [(3, title), (33, artist), (63, album), (93, "2026")] {
        v1[start..start + text.len()].copy_from_slice(text.as_bytes());
    }
    (v1[126], v1[127]) = (1, 255);
    bytes.extend_from_slice(&v1);
    fs::write(path, bytes)?;
    let mut tag = Tag::new();
    tag.set_title(title);
    tag.set_artist(artist);
    tag.set_album(album);
    tag.set_year(2026);
    tag.set_track(1);
    tag.write_to_path(path, Version::Id3v24).map_err(io::Error::other)
}

fn write_random(path: &Path, size: u64) -> io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    let mut generator = ChaCha12Rng::seed_from_u64(2005);
    let mut block = vec![0; 1 << 20];
    let mut left = size;
    while left > 0 {
        generator.fill_bytes(&mut block);
        let part = usize::try_from(left).unwrap_or(block.len()).min(block.len());
        file.write_all(&block[..part])?;
        left -= part as u64;
    }
    file.flush()
}

/// SHA-256 of a file, in hexadecimal: computed here, apart from everything that the transfer itself relies on.
pub fn sha256(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(HEXLOWER.encode(&hash.finalize())),
            read => hash.update(&block[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_audio_file_carries_both_tags_around_whole_frames() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = Inputs::create(folder.path(), 3_000_000).unwrap();
        let mut file = File::open(&inputs.audio).unwrap();
        assert_eq!(id3::v1v2::is_candidate(&mut file).unwrap(), id3::v1v2::FormatVersion::Both);
        assert_eq!(id3::v1::Tag::read_from(&mut file).unwrap().album, "Schwarzbier Sessions");
        let tag = Tag::read_from_path(&inputs.audio).unwrap();
        assert_eq!(tag.artist(), Some("The Blue Brewery Horses"));
        assert!(tag.album().unwrap().to_lowercase().contains(TAG_WORD));
        let names = fs::read_dir(&inputs.folder).unwrap().map(|entry| entry.unwrap().path().display().to_string());
        assert!(names.into_iter().all(|name| !name.to_lowercase().contains(TAG_WORD)));
        let text = fs::read_to_string(inputs.folder.join("tour notes.txt")).unwrap();
        assert!(!text.to_lowercase().contains(TAG_WORD));
        assert_eq!(fs::metadata(&inputs.large).unwrap().len(), 3_000_000);
    }

    #[test]
    fn sha256_is_that_of_the_standard() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "abc").unwrap();
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(file.path()).unwrap(), expected);
    }
}
