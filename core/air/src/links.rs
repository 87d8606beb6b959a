//! Links: setting them up, what passes over them and when, silence and the end.
//!
//! Both directions of a link have a queue of their own. The queue's *head* waits until both radios are free; among
//! heads the one that has waited longest goes first, so all directions that have something to send take turns.
//!
//! A head whose other radio is still busy keeps its place: until that radio is free, only younger transmissions that
//! will be over by then may start. So nobody starves because its two radios are never free at the same moment, no
//! radio stands idle for a long transmission elsewhere, and a chain of relays falls into step.

use std::collections::{BTreeSet, VecDeque};

use bbh_types::radio::{LinkId, LinkLimits, PeerAddr, RadioEvent};

use crate::air::{Air, RadioId, SendError};
use crate::chance::nanos;
use crate::schedule::Happening;

/// What a link of this air can carry.
const LIMITS: LinkLimits = LinkLimits::BLUETOOTH;

/// A connection being set up.
pub(crate) struct Dialling {
    peer: PeerAddr,
    token: u64,
    /// When it fails, if it does.
    deadline: u64,
}

/// The head of a queue that waits to be sent; ordered by how long it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Head {
    ticket: u64,
    link: u64,
    side: usize,
}

/// One link. Its ends are sides 0 (the dialler) and 1.
pub(crate) struct Link {
    ends: [RadioId; 2],
    sides: [Side; 2],
    /// While out of range, or with an end that vanished: marks the [`Happening::Supervision`] that counts.
    silent: Option<u64>,
}

/// One end of a link and what it sends.
#[derive(Default)]
struct Side {
    /// This end was told that the link closed, or its radio vanished.
    closed: bool,
    /// This end wants to close once its queue is empty.
    closing: bool,
    queue: VecDeque<Vec<u8>>,
    /// On the air now.
    current: Option<Vec<u8>>,
    /// Left, but not arrived.
    flying: VecDeque<Flying>,
    /// The queue's head while it waits.
    head: Option<Head>,
    /// How long the head will take on the air, in nanoseconds, with all attempts.
    airtime: u64,
    /// When the last transmission ended.
    last_left: Option<u64>,
}

enum Flying {
    Bytes(Vec<u8>),
    Close,
}

/// Numbers the two ends of a link differently, as two real radios would.
fn link_id(link: u64, side: usize) -> LinkId {
    LinkId(link * 2 + side as u64)
}

fn of_link_id(id: LinkId) -> (u64, usize) {
    (id.0 / 2, usize::from(id.0 % 2 == 1))
}

impl Air {
    // ---- setting up -------------------------------------------------------------------------------------------

    pub(crate) fn connect(&mut self, id: RadioId, peer: PeerAddr, t: u64) {
        let token = self.new_token();
        let reachable = self.reachable(id, peer).is_some();
        let Some(radio) = self.radios.get_mut(&id) else { return };
        if radio.dialling.is_some() {
            self.emit(id, RadioEvent::OpenFailed { peer });
            return;
        }
        let deadline = t.saturating_add(nanos(self.config.connect_timeout));
        radio.dialling = Some(Dialling { peer, token, deadline });
        if reachable {
            let takes = self.chance.between(self.config.setup_min, self.config.setup_max);
            self.schedule.push(t.saturating_add(takes), Happening::SetUp { dialler: id, token });
        } else {
            self.schedule.push(deadline, Happening::SetUpFailed { dialler: id, token });
        }
    }

    /// The radio at this address, if a link could be opened to it now.
    fn reachable(&self, id: RadioId, peer: PeerAddr) -> Option<RadioId> {
        let target = *self.addresses.get(&peer)?;
        let room = |r: RadioId| self.radios.get(&r).is_some_and(|r| r.links.len() < self.config.max_links);
        let advertises = self.radios.get(&target).is_some_and(|r| r.beacon.is_some());
        (target != id && advertises && self.hear_each_other(id, target) && room(id) && room(target)).then_some(target)
    }

    pub(crate) fn set_up(&mut self, dialler: RadioId, token: u64, t: u64) {
        let Some(radio) = self.radios.get(&dialler) else { return };
        let address = radio.address;
        let Some((peer, deadline)) = radio.dialling.as_ref().filter(|d| d.token == token).map(|d| (d.peer, d.deadline))
        else {
            return;
        };
        let Some(target) = self.reachable(dialler, peer) else {
            self.schedule.push(deadline.max(t), Happening::SetUpFailed { dialler, token });
            return;
        };
        self.last_link += 1;
        let link = self.last_link;
        let ends = [dialler, target];
        self.links.insert(link, Link { ends, sides: Default::default(), silent: None });
        for (side, (end, peer)) in [(dialler, peer), (target, address)].into_iter().enumerate() {
            if let Some(radio) = self.radios.get_mut(&end) {
                radio.links.insert(link);
            }
            let opened = RadioEvent::Opened { link: link_id(link, side), peer, dialler: side == 0, limits: LIMITS };
            self.emit(end, opened);
        }
        if let Some(radio) = self.radios.get_mut(&dialler) {
            radio.dialling = None;
        }
    }

    pub(crate) fn set_up_failed(&mut self, dialler: RadioId, token: u64) {
        let Some(radio) = self.radios.get_mut(&dialler) else { return };
        if let Some(dialling) = radio.dialling.take_if(|d| d.token == token) {
            self.emit(dialler, RadioEvent::OpenFailed { peer: dialling.peer });
        }
    }

    // ---- sending ----------------------------------------------------------------------------------------------

    pub(crate) fn hand_over(&mut self, id: RadioId, at: LinkId, bytes: Vec<u8>, t: u64) -> Result<(), SendError> {
        let (link, side) = of_link_id(at);
        let state = self.links.get_mut(&link).filter(|l| l.ends[side] == id).ok_or(SendError::NotOpen)?;
        let sender = &mut state.sides[side];
        if sender.closed || sender.closing {
            return Err(SendError::NotOpen);
        }
        if bytes.is_empty() {
            return Err(SendError::Empty);
        }
        if bytes.len() > LIMITS.max_frame {
            return Err(SendError::TooLong { got: bytes.len(), max: LIMITS.max_frame });
        }
        let in_flight = sender.queue.len() + usize::from(sender.current.is_some());
        if in_flight >= LIMITS.max_in_flight {
            return Err(SendError::TooManyInFlight(in_flight));
        }
        sender.queue.push_back(bytes);
        // A stream goes on where it stopped when its next transmission comes late, but not too late.
        let catch_up = nanos(self.config.catch_up);
        let from = match sender.last_left {
            Some(left) if left.saturating_add(catch_up) > t => left,
            _ => t,
        };
        self.wait(link, side);
        let free = self.free_at(link);
        self.try_start(link, side, from.max(free).min(t), t);
        self.start_waiting(t);
        Ok(())
    }

    /// When both ends of the link are free, as far as is known.
    fn free_at(&self, link: u64) -> u64 {
        let ends = self.links.get(&link).map(|l| l.ends);
        ends.into_iter().flatten().filter_map(|end| self.radios.get(&end)).map(|r| r.free_at).max().unwrap_or(0)
    }

    /// Puts the queue's head, if it has one and may go, in line at both radios.
    fn wait(&mut self, link: u64, side: usize) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let receiver_closed = state.sides[1 - side].closed;
        let sender = &mut state.sides[side];
        let may_go = state.silent.is_none() && !sender.closed && !receiver_closed;
        if !may_go || sender.head.is_some() {
            return;
        }
        let Some(len) = sender.queue.front().map(Vec::len) else { return };
        let rate = state.ends.iter().filter_map(|end| self.radios.get(end)).map(|r| r.rate).min().unwrap_or(1);
        let nanos = u128::from(self.chance.attempts()) * len as u128 * 1_000_000_000 / u128::from(rate);
        sender.airtime = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        self.last_ticket += 1;
        let head = Head { ticket: self.last_ticket, link, side };
        sender.head = Some(head);
        for end in state.ends {
            if let Some(radio) = self.radios.get_mut(&end) {
                radio.heads.insert(head);
            }
        }
    }

    /// Takes a head out of the line.
    fn stop_waiting(&mut self, link: u64, side: usize) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let Some(head) = state.sides[side].head.take() else { return };
        for end in state.ends {
            if let Some(radio) = self.radios.get_mut(&end) {
                radio.heads.remove(&head);
            }
        }
    }

    /// A radio that others waited for may be free.
    pub(crate) fn free(&mut self, id: RadioId, t: u64) {
        let Some(radio) = self.radios.get_mut(&id) else { return };
        if radio.wake_at != Some(t) {
            return;
        }
        radio.wake_at = None;
        self.freed.insert(id);
    }

    /// Lets go whoever can at the radios that became free, the longest waiting first whichever radio it waits at.
    pub(crate) fn start_waiting(&mut self, t: u64) {
        // What starts may open a gap for others, so this goes on until nothing does.
        while !self.freed.is_empty() {
            let freed = std::mem::take(&mut self.freed);
            let heads: BTreeSet<Head> =
                freed.iter().filter_map(|id| self.radios.get(id)).flat_map(|r| r.heads.iter().copied()).collect();
            for head in heads {
                self.try_start(head.link, head.side, t, t);
            }
        }
    }

    /// Starts a head's transmission at `from` if both radios are free at `t` and it delays nobody older; otherwise
    /// sees to it that it is tried again. `from` is not before both became free, and not after `t`.
    fn try_start(&mut self, link: u64, side: usize, from: u64, t: u64) {
        let Some(state) = self.links.get(&link) else { return };
        let ends = state.ends;
        let Some(head) = state.sides[side].head else { return };
        let airtime = state.sides[side].airtime;
        let mut busy = false;
        for end in ends {
            if self.radios.get(&end).is_some_and(|r| r.free_at > t) {
                busy = true;
                self.wake(end);
            }
        }
        let over = ends.map(|end| self.over_at(end, from, airtime));
        if busy || ends.iter().zip(over).any(|(end, over)| self.delays_older(*end, head, over)) {
            return;
        }
        self.start(head, from.saturating_add(airtime));
        for (end, over) in ends.into_iter().zip(over) {
            let Some(radio) = self.radios.get_mut(&end) else { continue };
            radio.free_at = over;
            if radio.heads.is_empty() {
                continue;
            }
            // Those that kept themselves free for this radio now have a while.
            let others = radio.heads.iter().filter_map(|h| self.links.get(&h.link)).flat_map(|l| l.ends);
            self.freed.extend(others.filter(|other| *other != end));
            self.wake(end);
        }
    }

    /// When a radio will be free again that starts a transmission: after its airtime and the scanning that goes with
    /// it.
    fn over_at(&self, id: RadioId, from: u64, airtime: u64) -> u64 {
        let duty = self.radios.get(&id).map(|r| r.duty).unwrap_or_default();
        // A share s of the whole for scanning is s/(1-s) of what is not.
        let share = self.config.scan_share(duty);
        let scanning = (airtime as f64 * (share / (1.0 - share))) as u64;
        from.saturating_add(airtime).saturating_add(scanning)
    }

    /// Whether an older head at this radio could start before `over`, if this radio did not start `head`.
    fn delays_older(&self, id: RadioId, head: Head, over: u64) -> bool {
        let Some(radio) = self.radios.get(&id) else { return false };
        radio.heads.range(..head).filter_map(|older| self.links.get(&older.link)).any(|link| {
            let other = link.ends[usize::from(link.ends[0] == id)];
            self.radios.get(&other).is_some_and(|r| r.free_at < over)
        })
    }

    /// Sees to it that the radio's heads are tried when it becomes free.
    fn wake(&mut self, id: RadioId) {
        let Some(radio) = self.radios.get_mut(&id) else { return };
        if radio.wake_at != Some(radio.free_at) {
            radio.wake_at = Some(radio.free_at);
            self.schedule.push(radio.free_at, Happening::Free(id));
        }
    }

    /// Puts a head on the air until `end_at`.
    fn start(&mut self, head: Head, end_at: u64) {
        self.stop_waiting(head.link, head.side);
        let Some(state) = self.links.get_mut(&head.link) else { return };
        let sender = &mut state.sides[head.side];
        sender.current = sender.queue.pop_front();
        self.schedule.push(end_at, Happening::Left { link: head.link, side: head.side });
        self.wait(head.link, head.side);
    }

    /// A transmission's airtime is over.
    pub(crate) fn left(&mut self, link: u64, side: usize, t: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let sender = &mut state.sides[side];
        let Some(bytes) = sender.current.take() else { return };
        if state.silent.is_some() {
            // Nobody acknowledged it: it is sent again if the two meet again.
            sender.queue.push_front(bytes);
            return;
        }
        sender.last_left = Some(t);
        sender.flying.push_back(Flying::Bytes(bytes));
        let (id, closed) = (state.ends[side], sender.closed);
        let arrives = t.saturating_add(nanos(self.config.latency));
        self.schedule.push(arrives, Happening::Arrived { link, side });
        if !closed {
            self.emit(id, RadioEvent::Sent { link: link_id(link, side), count: 1 });
        }
        self.close_if_drained(link, side, t);
    }

    pub(crate) fn arrived(&mut self, link: u64, side: usize) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let Some(flying) = state.sides[side].flying.pop_front() else { return };
        if state.sides[1 - side].closed {
            return;
        }
        let (to, id) = (state.ends[1 - side], link_id(link, 1 - side));
        match flying {
            Flying::Bytes(bytes) => self.emit(to, RadioEvent::Data { link: id, bytes }),
            Flying::Close => {
                self.tell_closed(link, 1 - side);
                self.remove_link(link);
            }
        }
    }

    // ---- the end ----------------------------------------------------------------------------------------------

    pub(crate) fn close(&mut self, id: RadioId, at: LinkId, t: u64) {
        let (link, side) = of_link_id(at);
        let Some(state) = self.links.get_mut(&link).filter(|l| l.ends[side] == id) else { return };
        state.sides[side].closing = true;
        self.close_if_drained(link, side, t);
    }

    /// Closes this end if it wants to and has sent everything; the other end hears of it after the latency.
    fn close_if_drained(&mut self, link: u64, side: usize, t: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let sender = &state.sides[side];
        if !sender.closing || sender.closed || sender.current.is_some() || !sender.queue.is_empty() {
            return;
        }
        let silent = state.silent.is_some();
        self.tell_closed(link, side);
        // What the other end still wants to say finds no listener.
        self.stop_waiting(link, 1 - side);
        if !silent {
            self.send_close(link, side, t);
        }
        self.free_ends(link);
        self.remove_if_closed(link);
    }

    fn send_close(&mut self, link: u64, side: usize, t: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.sides[side].flying.push_back(Flying::Close);
        let arrives = t.saturating_add(nanos(self.config.latency));
        self.schedule.push(arrives, Happening::Arrived { link, side });
    }

    /// Tells an end that the link is closed, once.
    fn tell_closed(&mut self, link: u64, side: usize) {
        let Some(state) = self.links.get_mut(&link) else { return };
        let end = state.ends[side];
        if !std::mem::replace(&mut state.sides[side].closed, true) {
            self.emit(end, RadioEvent::Closed { link: link_id(link, side) });
        }
    }

    fn remove_if_closed(&mut self, link: u64) {
        if self.links.get(&link).is_some_and(|l| l.sides.iter().all(|s| s.closed)) {
            self.remove_link(link);
        }
    }

    fn remove_link(&mut self, link: u64) {
        self.stop_waiting(link, 0);
        self.stop_waiting(link, 1);
        let Some(state) = self.links.remove(&link) else { return };
        for end in state.ends {
            if let Some(radio) = self.radios.get_mut(&end) {
                radio.links.remove(&link);
            }
        }
    }

    /// An end of the link has vanished.
    pub(crate) fn end_vanished(&mut self, link: u64, id: RadioId, t: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        for side in 0..2 {
            if state.ends[side] == id {
                state.sides[side].closed = true;
            }
        }
        self.remove_if_closed(link);
        self.range_changed(link, t);
    }

    /// Checks whether the link's ends hear each other, and lets it fall silent or go on.
    pub(crate) fn range_changed(&mut self, link: u64, t: u64) {
        let Some(state) = self.links.get(&link) else { return };
        let hear = self.hear_each_other(state.ends[0], state.ends[1]);
        match (hear, state.silent.is_some()) {
            (false, false) => self.fall_silent(link, t),
            (true, true) => self.go_on(link, t),
            _ => {}
        }
    }

    fn fall_silent(&mut self, link: u64, t: u64) {
        let token = self.new_token();
        self.stop_waiting(link, 0);
        self.stop_waiting(link, 1);
        if let Some(state) = self.links.get_mut(&link) {
            state.silent = Some(token);
        }
        let at = t.saturating_add(nanos(self.config.supervision));
        self.schedule.push(at, Happening::Supervision { link, token });
        self.free_ends(link);
    }

    fn go_on(&mut self, link: u64, t: u64) {
        let Some(state) = self.links.get_mut(&link) else { return };
        state.silent = None;
        for side in 0..2 {
            // Nothing was on the way while the two were apart: no catching up from before.
            state.sides[side].last_left = None;
        }
        for side in 0..2 {
            if self.links.get(&link).is_some_and(|l| l.sides[side].closed) {
                self.send_close(link, side, t);
            }
            self.wait(link, side);
        }
        self.free_ends(link);
    }

    pub(crate) fn supervision(&mut self, link: u64, token: u64) {
        if self.links.get(&link).is_some_and(|l| l.silent == Some(token)) {
            self.tell_closed(link, 0);
            self.tell_closed(link, 1);
            self.remove_link(link);
        }
    }

    /// Something no longer waits at the link's ends, or does again: what waited for it may go.
    fn free_ends(&mut self, link: u64) {
        if let Some(link) = self.links.get(&link) {
            self.freed.extend(link.ends);
        }
    }
}
