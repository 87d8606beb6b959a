//! Hashing many files on all processors.

use std::fs::{self, File};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use bbh_types::Tags;

use crate::hash::{HashError, Hashes, Pass};
use crate::outboards::OutboardDir;
use crate::persist::Stamp;
use crate::report::{Job, Progress, Reason};
use crate::tags::read_tags;
use crate::walk::Found;

/// What was learned of one file.
pub(crate) struct Hashed {
    pub(crate) hashes: Hashes,
    pub(crate) stamp: Stamp,
    pub(crate) tags: Tags,
}

/// Hashes `work` and calls `done` on the calling thread with the position of each file, as they get
/// ready. Ends early if the job is cancelled or `done` fails; files under way are then given up.
///
/// Returns the bytes read.
pub(crate) fn hash_files<E>(
    work: &[Found],
    outboards: &OutboardDir,
    job: Job<'_>,
    mut done: impl FnMut(usize, Result<Hashed, Reason>) -> Result<(), E>,
) -> Result<u64, E> {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicUsize::new(0);
    let (bytes, files) = (AtomicU64::new(0), AtomicU64::new(0));
    let stop = AtomicBool::new(false);
    let bytes_total = work.iter().map(|found| found.stamp.size).sum();
    let report = || {
        if let Some(progress) = job.progress {
            progress(Progress {
                files_done: files.load(Ordering::Relaxed),
                files_total: work.len() as u64,
                bytes_done: bytes.load(Ordering::Relaxed),
                bytes_total,
            });
        }
    };
    let cancelled = || stop.load(Ordering::Relaxed) || job.cancel.is_some_and(|cancel| cancel.load(Ordering::Relaxed));
    let on_bytes = |count| {
        bytes.fetch_add(count, Ordering::Relaxed);
        report();
    };
    let result = thread::scope(|scope| {
        let (results, hashed) = channel();
        for _ in 0..processors.min(work.len()) {
            let results = results.clone();
            let (next, files, report, cancelled, on_bytes) = (&next, &files, &report, &cancelled, &on_bytes);
            scope.spawn(move || {
                let mut pass = Pass::new(processors > 1, cancelled, on_bytes);
                while !cancelled() {
                    let position = next.fetch_add(1, Ordering::Relaxed);
                    let Some(found) = work.get(position) else { break };
                    let Some(result) = hash_file(found, outboards, &mut pass) else { break };
                    files.fetch_add(1, Ordering::Relaxed);
                    report();
                    if results.send((position, result)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(results);
        for (position, result) in hashed {
            if let Err(error) = done(position, result) {
                stop.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    });
    result.map(|()| bytes.into_inner())
}

/// Hashes one file, once more if it changed meanwhile. Nothing if cancelled.
fn hash_file(found: &Found, outboards: &OutboardDir, pass: &mut Pass<'_>) -> Option<Result<Hashed, Reason>> {
    for _ in 0..2 {
        let (mut file, stamp) = match open(found) {
            Ok(opened) => opened,
            Err(reason) => return Some(Err(reason)),
        };
        let mut outboard = outboards.writer();
        let hashes = match pass.hash(&file, stamp.size, &mut outboard) {
            Ok(hashes) => hashes,
            Err(HashError::Cancelled) => return None,
            Err(HashError::Read(error)) => return Some(Err(Reason::of(&error))),
            Err(HashError::Outboard(error)) => return Some(Err(Reason::NoRoom(error.to_string()))),
        };
        let tags = read_tags(&mut file, &found.name);
        // Both: it may have been written to, or another file may have taken its place.
        let now = fs::metadata(&found.path).and_then(|by_path| Ok((Stamp::of(&by_path), Stamp::of(&file.metadata()?))));
        match now {
            Ok(now) if now == (stamp, stamp) && hashes.size == stamp.size => {
                let kept = outboard.finish(&hashes.content_id);
                let hashed = kept.map(|()| Hashed { hashes, stamp, tags });
                return Some(hashed.map_err(|error| Reason::NoRoom(error.to_string())));
            }
            Ok(_) => {}
            Err(error) => return Some(Err(Reason::of(&error))),
        }
    }
    Some(Err(Reason::Changing))
}

fn open(found: &Found) -> Result<(File, Stamp), Reason> {
    let file = File::open(&found.path).map_err(|error| Reason::of(&error))?;
    let metadata = file.metadata().map_err(|error| Reason::of(&error))?;
    if metadata.is_file() { Ok((file, Stamp::of(&metadata))) } else { Err(Reason::Special) }
}
