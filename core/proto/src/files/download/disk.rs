//! A download's temporary file: what is verified, what is written, what is recorded as durable.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bbh_types::{ByteRanges, ContentId, Instant};

use crate::api::{DownloadRecord, Effect, StorageRequest};
use crate::messaging::Context;

/// Bytes that may have been sent to us without being recorded: what is fetched again after a kill (design §7).
pub(super) const MAX_UNRECORDED: u64 = 4 << 20;
/// Newly written bytes after which they are recorded: half of [`MAX_UNRECORDED`], so that data goes on arriving while
/// the disk makes them durable.
const RECORD_AFTER: u64 = MAX_UNRECORDED / 2;
/// Time after which fewer bytes are recorded too.
const RECORD_WITHIN: Duration = Duration::from_secs(2);

/// Whether the temporary file is there, in this run of the download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    No,
    Asked,
    Ready,
}

/// What the disk allows a source to send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Credit {
    /// Bytes that have come but are not written yet: taken off the window, so that a slow disk holds the sender back.
    pub(super) behind: u64,
    /// More than this may not be on its way.
    pub(super) most: u64,
    /// The disk owes an answer, or will be asked for something: it will allow more.
    pub(super) busy: bool,
}

/// The temporary file.
#[derive(Debug)]
pub(super) struct Disk {
    /// Proven by their hashes: written, being written, or held. Whole groups.
    verified: ByteRanges,
    verified_bytes: u64,
    /// The disk said that it has them.
    written: ByteRanges,
    written_bytes: u64,
    /// Handed to the disk: first byte and end.
    writing: BTreeMap<u64, u64>,
    writing_bytes: u64,
    /// Proven, but there is no temporary file yet.
    held: VecDeque<(u64, Vec<u8>)>,
    held_bytes: u64,
    room: Room,
    /// Bytes in the newest durable record.
    recorded_bytes: u64,
    /// Bytes in the record that is being made durable.
    recording: Option<u64>,
    recorded_at: Instant,
    /// Something but bytes has changed in the record.
    stale: bool,
}

fn bytes_in(ranges: &ByteRanges) -> u64 {
    ranges.iter().map(|range| range.end - range.start).fold(0, u64::saturating_add)
}

impl Disk {
    /// With what an earlier process has written.
    pub(super) fn new(written: ByteRanges, now: Instant) -> Self {
        let bytes = bytes_in(&written);
        Self {
            verified: written.clone(),
            verified_bytes: bytes,
            written,
            written_bytes: bytes,
            writing: BTreeMap::new(),
            writing_bytes: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            room: Room::No,
            recorded_bytes: bytes,
            recording: None,
            recorded_at: now,
            stale: false,
        }
    }

    pub(super) fn verified(&self) -> &ByteRanges {
        &self.verified
    }

    pub(super) fn verified_bytes(&self) -> u64 {
        self.verified_bytes
    }

    /// What the disk has.
    pub(super) fn written(&self) -> &ByteRanges {
        &self.written
    }

    /// Verified bytes that the disk does not have yet.
    fn unwritten(&self) -> u64 {
        self.held_bytes + self.writing_bytes
    }

    /// Verified bytes that a kill would lose.
    fn unrecorded(&self) -> u64 {
        self.verified_bytes.saturating_sub(self.recorded_bytes)
    }

    /// What sources may send now.
    pub(super) fn credit(&self) -> Credit {
        Credit {
            behind: self.unwritten(),
            most: MAX_UNRECORDED.saturating_sub(self.unrecorded()),
            busy: self.room == Room::Asked
                || self.writing_bytes > 0
                || self.recording.is_some()
                || self.written_bytes > self.recorded_bytes,
        }
    }

    /// Whether all of a file of `size` bytes is written.
    pub(super) fn is_complete(&self, size: u64) -> bool {
        self.room == Room::Ready && self.unwritten() == 0 && self.written_bytes == size
    }

    /// Asks for the temporary file, unless that is done.
    pub(super) fn reserve(&mut self, cx: &mut Context<'_>, content: ContentId, size: u64) {
        if self.room == Room::No {
            self.room = Room::Asked;
            self.stale = true;
            cx.effects.push_back(Effect::Storage(StorageRequest::Reserve { content, size }));
        }
    }

    /// Takes verified bytes; what of them is there already is left out. Gives the number of new bytes.
    pub(super) fn accept(&mut self, cx: &mut Context<'_>, content: ContentId, start: u64, bytes: Vec<u8>) -> u64 {
        let end = start + bytes.len() as u64;
        if start == end {
            return 0;
        }
        let gaps: Vec<_> = self.verified.gaps(&(start..end)).collect();
        let whole = gaps.len() == 1 && gaps[0] == (start..end);
        let parts = if whole {
            vec![(start, bytes)]
        } else {
            // Offsets within a slice fit a usize.
            let part = |at: u64| (at - start) as usize;
            gaps.iter().map(|gap| (gap.start, bytes[part(gap.start)..part(gap.end)].to_vec())).collect()
        };
        let mut new = 0;
        for (start, bytes) in parts {
            let length = bytes.len() as u64;
            new += length;
            self.verified.insert(start..start + length);
            self.verified_bytes += length;
            if self.room == Room::Ready {
                self.write(cx, content, start, bytes);
            } else {
                self.held_bytes += length;
                self.held.push_back((start, bytes));
            }
        }
        new
    }

    fn write(&mut self, cx: &mut Context<'_>, content: ContentId, start: u64, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        self.writing.insert(start, start + length);
        self.writing_bytes += length;
        cx.effects.push_back(Effect::Storage(StorageRequest::Write { content, start, bytes }));
    }

    /// The temporary file is there. False if nobody has asked for it.
    pub(super) fn on_room(&mut self, cx: &mut Context<'_>, content: ContentId) -> bool {
        if self.room != Room::Asked {
            return false;
        }
        self.room = Room::Ready;
        self.held_bytes = 0;
        for (start, bytes) in std::mem::take(&mut self.held) {
            self.write(cx, content, start, bytes);
        }
        true
    }

    /// A write has come to its end, well or not. False if it is not one of this file's.
    pub(super) fn on_written(&mut self, start: u64, end: u64, well: bool) -> bool {
        if self.writing.get(&start) != Some(&end) {
            return false;
        }
        self.writing.remove(&start);
        self.writing_bytes -= end - start;
        if well {
            self.written.insert(start..end);
            self.written_bytes += end - start;
        } else {
            self.verified.remove(start..end);
            self.verified_bytes -= end - start;
        }
        true
    }

    /// Forgets what is held, so that other bytes may come: perhaps those that prove the size.
    pub(super) fn forget_held(&mut self) {
        for (start, bytes) in std::mem::take(&mut self.held) {
            let length = bytes.len() as u64;
            self.verified.remove(start..start + length);
            self.verified_bytes -= length;
        }
        self.held_bytes = 0;
    }

    /// Stops: what is held is forgotten, what the disk is busy with may still come to be written.
    pub(super) fn halt(&mut self) {
        self.forget_held();
        self.room = Room::No;
        self.stale = true;
    }

    /// The record as such has changed.
    pub(super) fn touch(&mut self) {
        self.stale = true;
    }

    /// A record is to be made durable now, if one is due: `make` makes it. While bytes arrive, one is due for many
    /// bytes or some time; `at_once` for anything new.
    pub(super) fn record(&mut self, cx: &mut Context<'_>, at_once: bool, make: impl FnOnce(&Self) -> DownloadRecord) {
        let new = self.written_bytes.saturating_sub(self.recorded_bytes);
        let due = new >= RECORD_AFTER || (new > 0 && cx.now.since(self.recorded_at) >= RECORD_WITHIN);
        if self.recording.is_some() || !(due || self.stale || (at_once && new > 0 && self.unwritten() == 0)) {
            return;
        }
        self.stale = false;
        self.recording = Some(self.written_bytes);
        self.recorded_at = cx.now;
        cx.effects.push_back(Effect::Storage(StorageRequest::Save(make(self))));
    }

    /// When the next record is due by time.
    pub(super) fn record_at(&self) -> Option<Instant> {
        (self.recording.is_none() && self.written_bytes > self.recorded_bytes)
            .then_some(self.recorded_at + RECORD_WITHIN)
    }

    /// A record is durable, or could not be made so. False if none was asked for.
    pub(super) fn on_recorded(&mut self, well: bool) -> bool {
        let Some(bytes) = self.recording.take() else { return false };
        if well {
            self.recorded_bytes = bytes;
        }
        true
    }
}
