//! Credit given to a neighbour: what it may send of each bulk flow that this node has to pass on.
//!
//! The other half of [`super::outbox`]'s credit. Credit goes back in batches of [`CREDIT_BATCH`] bytes while a flow
//! runs, and what remains after [`SETTLE_DELAY`], so that a flow that stops leaves no state on either side.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bbh_types::Instant;
use bbh_wire::frame::Flow;

use super::outbox::{FLOW_CREDIT, MAX_FLOWS};

/// Bytes passed on that are reported at once.
pub const CREDIT_BATCH: u32 = 8 * 1024;
/// How long fewer bytes than [`CREDIT_BATCH`] may go unreported.
pub const SETTLE_DELAY: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
struct Given {
    /// Bytes received for which no credit has gone back.
    outstanding: u32,
    /// Those of them that have been passed on.
    owed: u32,
}

/// The books of one link.
#[derive(Debug, Default)]
pub struct CreditLedger {
    flows: BTreeMap<Flow, Given>,
    due: BTreeSet<Flow>,
    settle_at: Option<Instant>,
}

impl CreditLedger {
    /// Books a packet of `length` bytes that has arrived. False if the neighbour had no credit for it, with one
    /// packet of `max_packet` bytes allowed beyond, or if it has too many flows: the packet has to be dropped then.
    pub fn receive(&mut self, flow: Flow, length: usize, max_packet: usize) -> bool {
        if !self.flows.contains_key(&flow) && self.flows.len() >= MAX_FLOWS {
            return false;
        }
        let outstanding = self.flows.get(&flow).map_or(0, |given| given.outstanding);
        let Some(after) = u32::try_from(length).ok().and_then(|length| outstanding.checked_add(length)) else {
            return false;
        };
        if after as usize > FLOW_CREDIT as usize + max_packet {
            return false;
        }
        self.flows.entry(flow).or_default().outstanding = after;
        true
    }

    /// Bytes received on this link have been passed on or dropped. More than was received is not counted.
    pub fn grant(&mut self, now: Instant, flow: Flow, bytes: u32) {
        let Some(given) = self.flows.get_mut(&flow) else {
            return;
        };
        given.owed = given.owed.saturating_add(bytes).min(given.outstanding);
        if given.owed >= CREDIT_BATCH {
            self.due.insert(flow);
        } else if given.owed > 0 {
            self.settle_at.get_or_insert(now + SETTLE_DELAY);
        }
    }

    /// The next credit to send: flow and bytes.
    pub fn poll(&mut self, now: Instant) -> Option<(Flow, u32)> {
        if self.settle_at.is_some_and(|at| at <= now) {
            self.settle_at = None;
            self.due.extend(self.flows.iter().filter(|(_, given)| given.owed > 0).map(|(&flow, _)| flow));
        }
        let flow = self.due.pop_first()?;
        let given = self.flows.get_mut(&flow).expect("a flow with credit due is in the books");
        let bytes = std::mem::take(&mut given.owed);
        given.outstanding -= bytes;
        if given.outstanding == 0 {
            self.flows.remove(&flow);
        }
        Some((flow, bytes))
    }

    /// When credit falls due that is not due yet.
    pub const fn poll_timeout(&self) -> Option<Instant> {
        self.settle_at
    }

    /// Flows with bytes received for which no credit has gone back.
    pub fn flows(&self) -> usize {
        self.flows.len()
    }
}
