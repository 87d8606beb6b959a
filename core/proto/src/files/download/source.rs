//! What is known of the nodes that have a content.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bbh_types::{ContentId, Instant, NodeId};

use super::transfer::{Phase, Transfer};

/// How long an offer may be acted on without asking again.
const OFFER_LASTS: Duration = Duration::from_secs(30);
/// Liars that are remembered, over all contents.
const MAX_LIARS: usize = 4096;

/// An answer to an inquiry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Offered {
    /// To which inquiry.
    pub(super) inquiry: u32,
    pub(super) at: Instant,
    pub(super) size: u64,
    pub(super) queue_position: Option<u16>,
    /// Its queue takes no more.
    pub(super) full: bool,
}

/// A node that has the content, or had it.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) offer: Option<Offered>,
    pub(super) hops: Option<u8>,
    /// Bytes verified from it.
    pub(super) verified: u64,
    /// Bytes per second when it last sent.
    pub(super) rate: u64,
    /// Times it has failed since it last sent something that was right.
    pub(super) failures: u32,
    pub(super) transfer: Option<Transfer>,
}

impl Source {
    /// Whether an order may be sent to it, as an answer to this inquiry.
    pub(super) fn is_candidate(&self, inquiry: Option<u32>, now: Instant) -> bool {
        self.transfer.as_ref().is_none_or(|transfer| transfer.stalled)
            && self.offer.is_some_and(|offer| {
                !offer.full && Some(offer.inquiry) == inquiry && now.since(offer.at) <= OFFER_LASTS
            })
    }

    /// Whether it has an order and has not fallen silent.
    pub(super) fn is_working(&self) -> bool {
        self.transfer.as_ref().is_some_and(|transfer| !transfer.stalled)
    }

    /// Our place in its queue, if it has an order there.
    pub(super) fn queued_at(&self) -> Option<u16> {
        match self.transfer.as_ref().filter(|transfer| !transfer.stalled)?.phase {
            Phase::Queued { position, .. } => Some(position),
            Phase::Ordered | Phase::Serving => None,
        }
    }

    /// The place in its queue that it offers; 0 for a slot.
    pub(super) fn place(&self) -> u16 {
        self.offer.and_then(|offer| offer.queue_position).unwrap_or(0)
    }

    /// Who is asked first: the smallest.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        (self.failures, self.place(), self.hops, Reverse(self.rate), Reverse(self.verified))
    }
}

/// Nodes that have sent wrong bytes, each for the content in question.
#[derive(Debug, Default)]
pub(super) struct Liars {
    known: BTreeSet<(ContentId, NodeId)>,
    /// The same, oldest first.
    order: VecDeque<(ContentId, NodeId)>,
}

impl Liars {
    pub(super) fn add(&mut self, content: ContentId, node: NodeId) {
        if self.known.insert((content, node)) {
            self.order.push_back((content, node));
            if self.order.len() > MAX_LIARS
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    pub(super) fn has(&self, content: ContentId, node: NodeId) -> bool {
        self.known.contains(&(content, node))
    }
}
