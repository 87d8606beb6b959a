//! Beacons heard and shown: whom to dial, and how hard to listen (design §6).

use std::collections::BTreeMap;
use std::time::Duration;

use bbh_types::radio::{PeerAddr, RadioCommand, ScanDuty};
use bbh_types::{Instant, TreeId};
use bbh_wire::{Beacon, Role};
use rand_chacha::ChaCha12Rng;
use rand_core::Rng;

use super::{Relation, TreeAction, TreeManager};

/// How long a node listens at full duty after it has lost a neighbour or come into another tree.
pub const LISTEN_HARD: Duration = Duration::from_secs(10);
/// Most beacons remembered.
const MAX_CANDIDATES: usize = 64;
/// How long a beacon is worth dialling after it was last heard.
const CANDIDATE_LIFETIME: Duration = Duration::from_secs(90);
/// Failures after which a device is forgotten until it is heard again.
const MAX_FAILURES: u32 = 5;

#[derive(Debug)]
struct Candidate {
    beacon: Beacon,
    heard: Instant,
    failures: u32,
    not_before: Instant,
}

#[derive(Debug, Default)]
pub(super) struct Discovery {
    candidates: BTreeMap<PeerAddr, Candidate>,
    dialling: Option<PeerAddr>,
    dial_at: Option<Instant>,
    full_until: Option<Instant>,
    duty: ScanDuty,
    shown: Option<Vec<u8>>,
}

impl Discovery {
    fn heard(&mut self, now: Instant, peer: PeerAddr, beacon: Beacon, rng: &mut ChaCha12Rng) {
        if !self.candidates.contains_key(&peer) && self.candidates.len() >= MAX_CANDIDATES {
            let oldest = self.candidates.iter().min_by_key(|(_, c)| c.heard).map(|(&peer, _)| peer);
            oldest.and_then(|peer| self.candidates.remove(&peer));
        }
        // A little disorder, so that two who hear each other seldom dial at the same time (fix 15).
        let soon = now + Duration::from_millis(rng.next_u64() % 200);
        let candidate =
            self.candidates.entry(peer).or_insert(Candidate { beacon, heard: now, failures: 0, not_before: soon });
        if candidate.beacon.tree != beacon.tree {
            candidate.failures = 0;
            candidate.not_before = soon;
        }
        candidate.beacon = beacon;
        candidate.heard = now;
    }

    pub(super) fn dial_ended(&mut self, peer: PeerAddr) {
        if self.dialling == Some(peer) {
            self.dialling = None;
        }
    }

    pub(super) fn back_off(&mut self, now: Instant, peer: PeerAddr, rng: &mut ChaCha12Rng) {
        let Some(candidate) = self.candidates.get_mut(&peer) else { return };
        candidate.failures += 1;
        let base = 500_u64 << candidate.failures.min(6);
        candidate.not_before = now + Duration::from_millis(base / 2 + rng.next_u64() % base);
        if candidate.failures > MAX_FAILURES {
            self.candidates.remove(&peer);
        }
    }

    pub(super) fn forget(&mut self, peer: PeerAddr) {
        self.candidates.remove(&peer);
    }

    pub(super) fn listen_hard(&mut self, now: Instant) {
        self.full_until = Some(now + LISTEN_HARD);
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        [self.dial_at, self.full_until].into_iter().flatten().min()
    }

    /// Whom to dial now, or when to look again.
    fn choose(&mut self, now: Instant, own: TreeId) -> Option<PeerAddr> {
        self.candidates.retain(|_, candidate| now.since(candidate.heard) < CANDIDATE_LIFETIME);
        let worth = |c: &Candidate| c.beacon.tree != own && c.beacon.free_slots > 0;
        let ready = self
            .candidates
            .iter()
            .filter(|(_, c)| worth(c) && now >= c.not_before)
            // A beacon that boasts of a large tree and then fails loses its place in front.
            .max_by_key(|(_, c)| (std::cmp::Reverse(c.failures), c.beacon.size_class, c.heard))
            .map(|(&peer, _)| peer);
        self.dial_at = match ready {
            Some(_) => None,
            None => self.candidates.values().filter(|c| worth(c)).map(|c| c.not_before).min(),
        };
        ready
    }
}

impl TreeManager {
    /// The radio has heard a beacon.
    pub fn discovered(&mut self, now: Instant, peer: PeerAddr, beacon: &[u8]) {
        if let Ok(beacon) = Beacon::decode(beacon) {
            self.discovery.heard(now, peer, beacon, &mut self.rng);
            self.refresh(now);
        }
    }

    /// The radio was switched off and on: what was asked of it must be asked again.
    pub fn radio_restarted(&mut self, now: Instant) {
        let full_until = self.discovery.full_until;
        self.discovery = Discovery { full_until, ..Discovery::default() };
        self.refresh(now);
    }

    /// Brings beacon, scanning and dialling up to date with the state.
    pub(super) fn refresh(&mut self, now: Instant) {
        self.show_beacon();
        self.set_duty(now);
        self.dial(now);
    }

    /// Every node with a free slot shows itself; the others could not be dialled anyway.
    fn show_beacon(&mut self) {
        let info = self.info();
        let beacon = (info.free_slots > 0).then(|| {
            Beacon {
                tree: info.tree,
                // Nothing that changes with every join: a beacon that changes is heard anew by everybody.
                epoch: 0,
                role: info.role,
                free_slots: info.free_slots.min(3),
                size_class: info.size.max(1).ilog2() as u8,
                psm: 0,
            }
            .encode()
        });
        if beacon != self.discovery.shown {
            self.discovery.shown.clone_from(&beacon);
            self.actions.push_back(TreeAction::Radio(RadioCommand::Advertise(beacon)));
        }
    }

    fn set_duty(&mut self, now: Instant) {
        if self.discovery.full_until.is_some_and(|until| now >= until) {
            self.discovery.full_until = None;
        }
        let duty = if self.free_slots() == 0 {
            ScanDuty::Off
        } else if self.role() == Role::Free || self.discovery.full_until.is_some() {
            ScanDuty::Full
        } else {
            ScanDuty::Low
        };
        if duty != self.discovery.duty {
            self.discovery.duty = duty;
            self.actions.push_back(TreeAction::Radio(RadioCommand::Scan(duty)));
        }
    }

    /// One dial at a time, and none while another tree's node is being talked to.
    fn dial(&mut self, now: Instant) {
        let talking = self.neighbours.values().any(|n| matches!(n.relation, Relation::Opening | Relation::Contact));
        if self.discovery.dialling.is_some() || talking || self.free_slots() == 0 {
            self.discovery.dial_at = None;
            return;
        }
        if let Some(peer) = self.discovery.choose(now, self.tree) {
            self.discovery.dialling = Some(peer);
            self.actions.push_back(TreeAction::Radio(RadioCommand::Connect(peer)));
        }
    }
}
