//! Hash trees in files, one for each content of more than one group.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bbh_bao::{OutboardRead, PAIR_LEN, Pair, outboard_len};
use bbh_types::ContentId;

const EXTENSION: &str = "obao";
const TEMPORARY: &str = "tmp-";

/// A folder of outboards that belongs to one library alone. A file `<content id>.obao` holds the nodes in the layout
/// of [`OutboardRead`], nothing else.
#[derive(Debug)]
pub(crate) struct OutboardDir {
    dir: PathBuf,
    next_temporary: AtomicU64,
}

impl OutboardDir {
    /// Makes the folder and removes what an interrupted run left in it.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&dir)?;
        for file in fs::read_dir(&dir)? {
            let file = file?;
            if file.file_name().to_string_lossy().starts_with(TEMPORARY) {
                fs::remove_file(file.path())?;
            }
        }
        Ok(Self { dir, next_temporary: AtomicU64::new(0) })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn path_of(&self, id: &ContentId) -> PathBuf {
        self.dir.join(format!("{id}.{EXTENSION}"))
    }

    /// The contents that have a file here.
    pub(crate) fn contents(&self) -> io::Result<Vec<ContentId>> {
        let mut contents = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let name = file?.file_name();
            let id = name.to_str().and_then(|name| name.strip_suffix(EXTENSION)?.strip_suffix('.'));
            contents.extend(id.and_then(|id| id.parse::<ContentId>().ok()));
        }
        Ok(contents)
    }

    /// Removes the outboard of a content that is no longer shared.
    pub(crate) fn remove(&self, id: &ContentId) {
        // Small files have none; one that stays costs space only and goes at the next start.
        let _ = fs::remove_file(self.path_of(id));
    }

    /// A new outboard, kept only if [`OutboardWriter::finish`] is reached.
    pub(crate) fn writer(&self) -> OutboardWriter<'_> {
        OutboardWriter { dir: self, temporary: None }
    }

    /// The outboard of a content of `size` bytes.
    pub(crate) fn read(&self, id: &ContentId, size: u64) -> io::Result<FileOutboard> {
        let expected = outboard_len(size);
        if expected == 0 {
            return Ok(FileOutboard(None));
        }
        let file = File::open(self.path_of(id))?;
        if file.metadata()?.len() != expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the stored hash tree has the wrong length"));
        }
        Ok(FileOutboard(Some(file)))
    }
}

/// Takes the nodes as they come; nothing touches the disk before the first one.
pub(crate) struct OutboardWriter<'a> {
    dir: &'a OutboardDir,
    temporary: Option<(PathBuf, BufWriter<File>)>,
}

impl OutboardWriter<'_> {
    pub(crate) fn append(&mut self, pairs: &[u8]) -> io::Result<()> {
        if pairs.is_empty() {
            return Ok(());
        }
        let (_, file) = match &mut self.temporary {
            Some(temporary) => temporary,
            None => {
                let number = self.dir.next_temporary.fetch_add(1, Ordering::Relaxed);
                let path = self.dir.dir.join(format!("{TEMPORARY}{number}"));
                let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
                self.temporary.insert((path, BufWriter::new(file)))
            }
        };
        file.write_all(pairs)
    }

    /// Puts the complete outboard in its place. Not forced to disk: one that a power failure damaged is
    /// found by its length or by the check of each slice, and made anew.
    pub(crate) fn finish(mut self, id: &ContentId) -> io::Result<()> {
        if let Some((path, file)) = &mut self.temporary {
            file.flush()?;
            fs::rename(path, self.dir.path_of(id))?;
            self.temporary = None;
        }
        Ok(())
    }
}

impl Drop for OutboardWriter<'_> {
    fn drop(&mut self) {
        if let Some((path, _)) = &self.temporary {
            // Otherwise the next start does it.
            let _ = fs::remove_file(path);
        }
    }
}

/// An outboard of which single nodes are read; of a file of one group there are none.
#[derive(Debug)]
pub(crate) struct FileOutboard(Option<File>);

impl OutboardRead for FileOutboard {
    type Error = io::Error;

    fn pair(&self, index: u64) -> io::Result<Pair> {
        let mut pair = [0; PAIR_LEN as usize];
        let file = self.0.as_ref().ok_or(io::ErrorKind::NotFound)?;
        read_exact_at(file, &mut pair, index * PAIR_LEN)?;
        Ok(pair)
    }
}

/// Reads at a position without moving the file's own, so that several threads can share it.
pub(crate) fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    return std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset);
    #[cfg(windows)]
    {
        let mut done = 0;
        while done < buffer.len() {
            match std::os::windows::fs::FileExt::seek_read(file, &mut buffer[done..], offset + done as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => done += count,
            }
        }
        return Ok(());
    }
}
