//! Who else is in the tree? A node knows what is below it; its ancestors tell the rest, each what is below it apart
//! from the branch that asks (the report's question to the root, 9.4.2, answered on the way).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bbh_types::{Instant, NodeId};
use bbh_wire::message::{Device, RootReply};

use crate::api::Event;

/// How long ancestors have to answer.
pub const DEVICES_TIMEOUT: Duration = Duration::from_secs(3);
/// Most devices listed, and most lists under way.
const MAX_DEVICES: usize = 20_000;
const MAX_QUERIES: usize = 16;

#[derive(Debug)]
struct Question {
    token: u64,
    until: Instant,
    parent: NodeId,
    found: BTreeMap<NodeId, (Device, NodeId)>,
    /// By ancestor: whether its last page has come.
    ancestors: BTreeMap<u8, bool>,
    /// Links to the root, once it has answered.
    root_at: Option<u8>,
}

impl Question {
    fn is_answered(&self) -> bool {
        self.root_at.is_some_and(|root| (1..=root).all(|hops| self.ancestors.get(&hops) == Some(&true)))
    }

    fn answer(self) -> Event {
        Event::Devices { token: self.token, devices: self.found.into_values().collect() }
    }
}

/// The lists that are being made.
#[derive(Debug, Default)]
pub struct DeviceQueries {
    next: u32,
    open: BTreeMap<u32, Question>,
    done: VecDeque<Event>,
}

impl DeviceQueries {
    /// Starts a list with what this node knows; without a parent that is all. Returns the number of the question to
    /// send up.
    pub fn start(
        &mut self,
        now: Instant,
        token: u64,
        own: Vec<(Device, NodeId)>,
        parent: Option<NodeId>,
    ) -> Option<u32> {
        let found = own.into_iter().map(|(device, via)| (device.node, (device, via))).collect();
        let until = now + DEVICES_TIMEOUT;
        let Some(parent) = parent.filter(|_| self.open.len() < MAX_QUERIES) else {
            let question = Question {
                token,
                until,
                parent: NodeId::from_bytes([0; 16]),
                found,
                ancestors: BTreeMap::new(),
                root_at: None,
            };
            self.done.push_back(question.answer());
            return None;
        };
        self.next = self.next.wrapping_add(1);
        let question = Question { token, until, parent, found, ancestors: BTreeMap::new(), root_at: None };
        self.open.insert(self.next, question);
        Some(self.next)
    }

    /// A page of an ancestor.
    pub fn handle_reply(&mut self, me: NodeId, reply: RootReply) {
        let Some(question) = self.open.get_mut(&reply.query) else { return };
        for device in reply.devices.into_inner() {
            if device.node != me && question.found.len() < MAX_DEVICES {
                let hops = device.hops.saturating_add(reply.hops);
                let parent = question.parent;
                question.found.entry(device.node).or_insert((Device { hops, ..device }, parent));
            }
        }
        *question.ancestors.entry(reply.hops).or_default() |= reply.last;
        if reply.root {
            question.root_at = Some(reply.hops);
        }
        if question.is_answered() {
            self.finish(reply.query);
        }
    }

    fn finish(&mut self, query: u32) {
        if let Some(question) = self.open.remove(&query) {
            self.done.push_back(question.answer());
        }
    }

    /// Closes lists whose time is over with what has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        let over: Vec<u32> = self.open.iter().filter(|(_, q)| now >= q.until).map(|(&query, _)| query).collect();
        for query in over {
            self.finish(query);
        }
    }

    /// When a list's time is over.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.open.values().map(|question| question.until).min()
    }

    /// A finished list.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.done.pop_front()
    }
}
