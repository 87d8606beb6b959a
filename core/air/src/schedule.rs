//! What will happen when: a queue of moments, first in time first, first scheduled first among equals.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::air::RadioId;

/// What happens. A `token` tells an event that still counts from one that has been overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Happening {
    /// A radio that others wait for may be free.
    Free(RadioId),
    /// The transmission in one direction of a link has left.
    Left { link: u64, side: usize },
    /// What left that side of a link has arrived at the other.
    Arrived { link: u64, side: usize },
    /// A scanner hears an advertiser.
    Heard { scanner: RadioId, advertiser: RadioId, token: u64 },
    /// A scanner reports once more what it knows.
    Repeat { scanner: RadioId, token: u64 },
    /// A connection may be up.
    SetUp { dialler: RadioId, token: u64 },
    /// A connection has failed.
    SetUpFailed { dialler: RadioId, token: u64 },
    /// A radio takes another address.
    Rotate(RadioId),
    /// A link has been silent for too long.
    Supervision { link: u64, token: u64 },
}

/// The queue; times in nanoseconds.
#[derive(Default)]
pub(crate) struct Schedule {
    heap: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    sequence: u64,
}

impl Schedule {
    pub(crate) fn push(&mut self, at: u64, happening: Happening) {
        self.sequence += 1;
        self.heap.push(Reverse((at, self.sequence, happening)));
    }

    pub(crate) fn next_at(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// The next happening at or before `until`.
    pub(crate) fn pop(&mut self, until: u64) -> Option<(u64, Happening)> {
        if self.next_at()? > until {
            return None;
        }
        self.heap.pop().map(|Reverse((at, _, happening))| (at, happening))
    }
}
