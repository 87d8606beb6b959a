//! Who is below this node: what children tell, what the parent is told, and the answer to those who ask for devices.

use bbh_types::radio::LinkId;
use bbh_types::{BoundedString, BoundedVec, Instant, NodeId};
use bbh_wire::frame::CloseReason;
use bbh_wire::message::{
    Attachment, Device, MAX_ATTACHMENTS, MAX_DEVICES_PER_PAGE, RootQuery, RootReply, RoutingConnect, RoutingDisconnect,
    RoutingResync,
};

use super::{TreeAction, TreeManager};
use crate::routing::table::{MAX_DESCENDANTS, RouteError};

/// Changed routes a second that are taken from a child, after a burst: each costs a signature check. An honest child
/// stays far below: its routes change as its nodes move, and begin anew only as an edge turns.
pub(super) const ROUTES_RATE: f64 = 1000.0;
pub(super) const ROUTES_BURST: f64 = MAX_DESCENDANTS as f64;
/// Pages of device lists sent a second, after a burst, which fits into the queue of any link.
pub(super) const PAGES_RATE: f64 = 8.0;
pub(super) const PAGES_BURST: f64 = 16.0;
/// Most pages that answer one question: the nearest nodes come first.
const MAX_PAGES: usize = 8;

impl TreeManager {
    pub(super) fn handle_connect(&mut self, now: Instant, link: LinkId, via: NodeId, routes: RoutingConnect) {
        if !self.in_sequence(now, link, via, routes.sequence) {
            return;
        }
        let mut news = Vec::new();
        let mut checked = 0_u32;
        for attachment in routes.attachments.into_inner() {
            let outcome = self.table.insert(via, attachment.clone());
            checked += u32::from(matches!(outcome, Ok(true) | Err(RouteError::BadSignature)));
            match outcome {
                Ok(true) => news.push(attachment),
                Ok(false) => {}
                Err(RouteError::BadSignature) => self.counters.forged_attachments += 1,
                Err(_) => self.counters.refused_attachments += 1,
            }
        }
        let bucket = self.neighbours.get_mut(&link).map(|neighbour| &mut neighbour.routes);
        if bucket.is_some_and(|bucket| (0..checked).any(|_| !bucket.take(now))) {
            self.counters.too_fast += 1;
            self.actions.push_back(TreeAction::Close(link, CloseReason::ProtocolError));
        }
        if !news.is_empty() {
            self.tell_parent(news);
            self.changed(now);
        }
    }

    pub(super) fn handle_disconnect(&mut self, now: Instant, link: LinkId, via: NodeId, routes: RoutingDisconnect) {
        if !self.in_sequence(now, link, via, routes.sequence) {
            return;
        }
        let lost: Vec<NodeId> = routes.nodes.iter().copied().filter(|&node| self.table.remove(via, node) > 0).collect();
        if !lost.is_empty() {
            self.tell_parent_lost(lost);
            self.changed(now);
        }
    }

    /// Whether a routing change is the one expected; if not, all are asked for again (fix 12). Number 0 starts anew.
    fn in_sequence(&mut self, now: Instant, link: LinkId, via: NodeId, sequence: u32) -> bool {
        let Some(neighbour) = self.neighbours.get_mut(&link) else { return false };
        let expected = neighbour.routes_in;
        if sequence == 0 && expected != 0 {
            neighbour.routes_in = 1;
            let gone = self.table.clear_below(via);
            if !gone.is_empty() {
                self.tell_parent_lost(gone);
                self.changed(now);
            }
            return true;
        }
        if sequence == expected {
            neighbour.routes_in += 1;
            return true;
        }
        // Asked for once: what was sent before the request arrives is refused silently.
        if expected != u32::MAX {
            neighbour.routes_in = u32::MAX;
            self.actions.push_back(TreeAction::Send(link, RoutingResync {}.into()));
        }
        false
    }

    pub(super) fn tell_parent(&mut self, attachments: Vec<Attachment>) {
        let Some(parent) = self.parent else { return };
        for chunk in attachments.chunks(MAX_ATTACHMENTS) {
            let message =
                RoutingConnect { sequence: self.routes_out, attachments: BoundedVec::truncated(chunk.to_vec()) };
            self.routes_out += 1;
            self.actions.push_back(TreeAction::Send(parent, message.into()));
        }
    }

    pub(super) fn tell_parent_lost(&mut self, nodes: Vec<NodeId>) {
        let Some(parent) = self.parent else { return };
        for chunk in nodes.chunks(MAX_ATTACHMENTS) {
            let message = RoutingDisconnect { sequence: self.routes_out, nodes: BoundedVec::truncated(chunk.to_vec()) };
            self.routes_out += 1;
            self.actions.push_back(TreeAction::Send(parent, message.into()));
        }
    }

    /// Starts the sequence anew with everything.
    pub(super) fn tell_parent_all(&mut self) {
        self.routes_out = 0;
        let all: Vec<Attachment> = self.table.attachments().cloned().collect();
        if all.is_empty() {
            // Even nothing has to be said: the number 0 clears what the parent may still hold.
            let none = RoutingConnect { sequence: 0, attachments: BoundedVec::default() };
            self.routes_out = 1;
            self.actions.extend(self.parent.map(|parent| TreeAction::Send(parent, none.into())));
        }
        self.tell_parent(all);
    }

    /// A fresh, signed attachment of this node to `parent`.
    pub(super) fn attach_to(&mut self, parent: NodeId) -> Attachment {
        self.next_counter += 1;
        self.identity.attach(parent, self.next_counter, &self.name)
    }

    // ------------------------------------------------------------ devices

    /// The link to ask and the question, for [`crate::routing::devices`].
    pub fn ask_ancestors(&mut self, query: u32) -> bool {
        let Some(parent) = self.parent else { return false };
        let question = RootQuery { query, origin: self.me, hops: 1 };
        self.actions.push_back(TreeAction::Send(parent, question.into()));
        true
    }

    pub(super) fn handle_root_query(&mut self, now: Instant, via: NodeId, query: RootQuery) {
        if !self.table.is_below(query.origin, via) {
            self.counters.misplaced += 1;
            return;
        }
        let name = BoundedString::truncated(&self.name);
        let mut devices = vec![Device { node: self.me, name, hops: 0 }];
        devices.extend(self.table.devices(Some(via)).take(MAX_PAGES * MAX_DEVICES_PER_PAGE - 1));
        let pages = devices.chunks(MAX_DEVICES_PER_PAGE);
        let count = pages.len();
        for (number, page) in pages.enumerate() {
            if !self.pages.take(now) {
                self.counters.too_fast += 1;
                break;
            }
            let reply = RootReply {
                query: query.query,
                hops: query.hops,
                root: self.parent.is_none(),
                last: number + 1 == count,
                devices: BoundedVec::truncated(page.to_vec()),
            };
            self.actions.push_back(TreeAction::SendTo(query.origin, reply.into()));
        }
        if let Some(parent) = self.parent {
            let question = RootQuery { hops: query.hops.saturating_add(1), ..query };
            self.actions.push_back(TreeAction::Send(parent, question.into()));
        }
    }
}
