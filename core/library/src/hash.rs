//! One pass over a file: BLAKE3 tree and MD5.

use std::io::{self, Read};
use std::sync::mpsc::{channel, sync_channel};
use std::thread;

use bbh_bao::Hasher;
use bbh_types::{ContentId, Md5Hash};
use md5::{Digest, Md5};

use crate::outboards::OutboardWriter;

/// Read at once, a multiple of [`bbh_bao::GROUP`].
const BUFFER: usize = 256 << 10;

/// Buffers between the two hashing threads of one file.
const BUFFERS: usize = 4;

/// From this size on MD5 gets a thread of its own. BLAKE3 is six to eight times as fast with vector
/// instructions: it and the reading hide behind MD5, which alone sets the pace then.
const TWO_THREADS_FROM: u64 = 4 << 20;

/// Why a file was not hashed to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HashError {
    #[error(transparent)]
    Read(io::Error),
    #[error("the hash tree could not be written: {0}")]
    Outboard(io::Error),
    #[error("cancelled")]
    Cancelled,
}

/// What one pass yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hashes {
    pub(crate) content_id: ContentId,
    pub(crate) md5: Md5Hash,
    /// Bytes seen.
    pub(crate) size: u64,
}

/// The machinery of one worker: its buffer is used for file after file.
pub(crate) struct Pass<'a> {
    buffer: Vec<u8>,
    /// Whether there are processors to spare for a second thread.
    two_threads: bool,
    cancelled: &'a (dyn Fn() -> bool + Sync),
    on_bytes: &'a (dyn Fn(u64) + Sync),
}

impl<'a> Pass<'a> {
    pub(crate) fn new(
        two_threads: bool,
        cancelled: &'a (dyn Fn() -> bool + Sync),
        on_bytes: &'a (dyn Fn(u64) + Sync),
    ) -> Self {
        Self { buffer: Vec::new(), two_threads, cancelled, on_bytes }
    }

    /// Hashes what `reader` gives, which `expected` bytes are believed to be; stops soon after that number,
    /// so that a file which grows faster than it is read comes to an end too.
    pub(crate) fn hash(
        &mut self,
        reader: impl Read,
        expected: u64,
        outboard: &mut OutboardWriter<'_>,
    ) -> Result<Hashes, HashError> {
        let mut reader = reader.take(expected.saturating_add(1));
        if self.two_threads && expected >= TWO_THREADS_FROM {
            self.hash_on_two_threads(&mut reader, outboard)
        } else {
            self.hash_here(&mut reader, expected, outboard)
        }
    }

    fn hash_here(
        &mut self,
        reader: &mut impl Read,
        expected: u64,
        outboard: &mut OutboardWriter<'_>,
    ) -> Result<Hashes, HashError> {
        let (mut tree, mut md5) = (Hasher::new(), Md5::new());
        let wanted = usize::try_from(expected).unwrap_or(BUFFER).clamp(4096, BUFFER);
        if self.buffer.len() < wanted {
            self.buffer.resize(wanted, 0);
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = loop {
            match self.step(reader, &mut buffer, &mut tree, outboard) {
                Ok(0) => break Ok(()),
                Ok(length) => md5.update(&buffer[..length]),
                Err(error) => break Err(error),
            }
        };
        self.buffer = buffer;
        result?;
        finish(tree, md5, outboard)
    }

    fn hash_on_two_threads(
        &mut self,
        reader: &mut impl Read,
        outboard: &mut OutboardWriter<'_>,
    ) -> Result<Hashes, HashError> {
        let (full, to_md5) = sync_channel::<(Vec<u8>, usize)>(BUFFERS);
        let (empty, from_md5) = channel();
        let mut tree = Hasher::new();
        let md5 = thread::scope(|scope| {
            let md5 = scope.spawn(move || {
                let mut md5 = Md5::new();
                while let Ok((buffer, length)) = to_md5.recv() {
                    md5.update(&buffer[..length]);
                    // The reader may be at its end already.
                    let _ = empty.send(buffer);
                }
                md5
            });
            let mut made = 0;
            let read = loop {
                let mut buffer = if made < BUFFERS {
                    made += 1;
                    vec![0; BUFFER]
                } else {
                    match from_md5.recv() {
                        Ok(buffer) => buffer,
                        // Only after a panic of the other thread, which `join` reports.
                        Err(_) => break Ok(()),
                    }
                };
                match self.step(reader, &mut buffer, &mut tree, outboard) {
                    Ok(0) => break Ok(()),
                    Ok(length) if full.send((buffer, length)).is_ok() => {}
                    Ok(_) => break Ok(()),
                    Err(error) => break Err(error),
                }
            };
            drop(full);
            let md5 = md5.join().expect("MD5 of a byte slice does not panic");
            read.map(|()| md5)
        })?;
        finish(tree, md5, outboard)
    }

    /// Reads one buffer and puts it into the tree; 0 at the end.
    fn step(
        &self,
        reader: &mut impl Read,
        buffer: &mut [u8],
        tree: &mut Hasher,
        outboard: &mut OutboardWriter<'_>,
    ) -> Result<usize, HashError> {
        if (self.cancelled)() {
            return Err(HashError::Cancelled);
        }
        let length = fill(reader, buffer).map_err(HashError::Read)?;
        tree.update(&buffer[..length]);
        outboard.append(&tree.take_pairs()).map_err(HashError::Outboard)?;
        if length > 0 {
            (self.on_bytes)(length as u64);
        }
        Ok(length)
    }
}

fn finish(tree: Hasher, md5: Md5, outboard: &mut OutboardWriter<'_>) -> Result<Hashes, HashError> {
    let size = tree.size();
    let (content_id, pairs) = tree.finish();
    outboard.append(&pairs).map_err(HashError::Outboard)?;
    Ok(Hashes { content_id, md5: Md5Hash(md5.finalize().into()), size })
}

/// Reads until the buffer is full or the input ends.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match reader.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
