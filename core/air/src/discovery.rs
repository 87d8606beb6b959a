//! Advertising, scanning, and how long it takes that one hears the other.
//!
//! A *pair* exists from the moment that one radio scans, another advertises and both are in range, until one of the
//! three ends. It is heard after the time of an inquiry; a new beacon is heard after another one. Raising the duty
//! starts a new inquiry, in which all are heard anew; lowering it does not.

use std::collections::BTreeMap;

use bbh_types::radio::{RadioEvent, ScanDuty};

use crate::air::{Air, RadioId};
use crate::chance::nanos;
use crate::grid::Spot;
use crate::schedule::Happening;

/// What a scanner knows of an advertiser in range.
pub(crate) struct Heard {
    /// Marks the [`Happening::Heard`] that counts; `None` once the current beacon has been reported.
    pending: Option<u64>,
    /// When it was last reported.
    reported: u64,
}

/// How another radio and this one hear each other's beacons.
#[derive(Clone, Copy, Default)]
struct Hearing {
    /// The other hears this one.
    hears: bool,
    /// This one hears the other.
    is_heard: bool,
}

impl Air {
    pub(crate) fn advertise(&mut self, id: RadioId, beacon: Option<Vec<u8>>, t: u64) {
        let Some(radio) = self.radios.get_mut(&id) else { return };
        if radio.beacon == beacon {
            return;
        }
        let ends = beacon.is_none();
        radio.beacon = beacon;
        for scanner in self.grid.hearers(&radio.spot) {
            if ends {
                self.forget(scanner, id);
            } else {
                self.listen_for(scanner, id, t);
            }
        }
    }

    pub(crate) fn scan(&mut self, id: RadioId, duty: ScanDuty, t: u64) {
        let Some(radio) = self.radios.get_mut(&id).filter(|radio| !radio.deaf) else { return };
        let raised = match (radio.duty, duty) {
            (old, new) if old == new => return,
            (_, ScanDuty::Off) => {
                radio.duty = duty;
                radio.heard.clear();
                radio.repeat = None;
                return;
            }
            (ScanDuty::Full, _) => false,
            _ => true,
        };
        radio.duty = duty;
        if raised {
            radio.heard.clear();
            let spot = radio.spot;
            for advertiser in self.grid.heard_by(&spot) {
                self.listen_for(id, advertiser, t);
            }
        } else {
            let pending: Vec<RadioId> =
                radio.heard.iter().filter(|(_, h)| h.pending.is_some()).map(|(a, _)| *a).collect();
            for advertiser in pending {
                self.inquire(id, advertiser, t);
            }
        }
        let token = self.new_token();
        if let Some(radio) = self.radios.get_mut(&id) {
            radio.repeat = Some(token);
            let next = t.saturating_add(self.repeat_interval(duty));
            self.schedule.push(next, Happening::Repeat { scanner: id, token });
        }
    }

    /// A radio was carried from one spot to another: pairs end and begin.
    pub(crate) fn moved(&mut self, old: &Spot, new: &Spot, t: u64) {
        let (before, after) = (self.audience(old), self.audience(new));
        for (other, hearing) in &before {
            let now = after.get(other).copied().unwrap_or_default();
            if hearing.hears && !now.hears {
                self.forget(*other, old.id);
            }
            if hearing.is_heard && !now.is_heard {
                self.forget(old.id, *other);
            }
        }
        for (other, hearing) in &after {
            let then = before.get(other).copied().unwrap_or_default();
            if hearing.hears && !then.hears {
                self.listen_for(*other, new.id, t);
            }
            if hearing.is_heard && !then.is_heard {
                self.listen_for(new.id, *other, t);
            }
        }
    }

    /// Who hears a radio at this spot, and whom it hears.
    fn audience(&self, spot: &Spot) -> BTreeMap<RadioId, Hearing> {
        if self.grid.is_mutual() {
            let both = Hearing { hears: true, is_heard: true };
            return self.grid.around(spot).into_iter().map(|other| (other, both)).collect();
        }
        let mut audience: BTreeMap<RadioId, Hearing> = BTreeMap::new();
        for other in self.grid.hearers(spot) {
            audience.entry(other).or_default().hears = true;
        }
        for other in self.grid.heard_by(spot) {
            audience.entry(other).or_default().is_heard = true;
        }
        audience
    }

    /// A radio takes another address: nobody can dial the old one any more, and its beacon is heard anew.
    pub(crate) fn rotate(&mut self, id: RadioId, t: u64) {
        let Some(interval) = self.config.address_rotation else { return };
        if !self.radios.contains_key(&id) {
            return;
        }
        let address = self.new_address(id);
        let Some(radio) = self.radios.get_mut(&id) else { return };
        let old = std::mem::replace(&mut radio.address, address);
        let spot = radio.spot;
        self.addresses.remove(&old);
        for scanner in self.grid.hearers(&spot) {
            self.listen_for(scanner, id, t);
        }
        self.schedule.push(t.saturating_add(nanos(interval)), Happening::Rotate(id));
    }

    /// A radio is about to vanish: nobody hears it any more.
    pub(crate) fn part(&mut self, id: RadioId) {
        let Some(radio) = self.radios.get(&id) else { return };
        for scanner in self.grid.hearers(&radio.spot) {
            self.forget(scanner, id);
        }
    }

    fn forget(&mut self, scanner: RadioId, advertiser: RadioId) {
        if let Some(radio) = self.radios.get_mut(&scanner) {
            radio.heard.remove(&advertiser);
        }
    }

    /// The two are in range: if one scans and the other advertises, its current beacon is going to be heard. An
    /// inquiry under way goes on.
    fn listen_for(&mut self, scanner: RadioId, advertiser: RadioId, t: u64) {
        let advertises = self.radios.get(&advertiser).is_some_and(|a| a.beacon.is_some());
        let Some(radio) = self.radios.get(&scanner) else { return };
        let under_way = radio.heard.get(&advertiser).is_some_and(|h| h.pending.is_some());
        if advertises && radio.duty != ScanDuty::Off && !under_way {
            self.inquire(scanner, advertiser, t);
        }
    }

    /// Draws when the pair is going to be heard.
    fn inquire(&mut self, scanner: RadioId, advertiser: RadioId, t: u64) {
        let token = self.new_token();
        let Some(radio) = self.radios.get_mut(&scanner) else { return };
        let longest = match radio.duty {
            ScanDuty::Off => return,
            ScanDuty::Low => self.config.inquiry_low,
            ScanDuty::Full => self.config.inquiry_full,
        };
        radio.heard.entry(advertiser).or_insert(Heard { pending: None, reported: 0 }).pending = Some(token);
        let at = t.saturating_add(self.chance.between(std::time::Duration::ZERO, longest));
        self.schedule.push(at, Happening::Heard { scanner, advertiser, token });
    }

    /// A beacon comes in, unless the pair has ended.
    pub(crate) fn hear(&mut self, scanner: RadioId, advertiser: RadioId, token: u64, t: u64) {
        let Some(heard) = self.radios.get_mut(&scanner).and_then(|r| r.heard.get_mut(&advertiser)) else { return };
        if heard.pending != Some(token) {
            return;
        }
        if self.chance.lost() {
            self.inquire(scanner, advertiser, t);
            return;
        }
        heard.pending = None;
        heard.reported = t;
        self.report(scanner, advertiser);
    }

    /// Reports what has not been reported lately, all at once: an idle node is woken once, not once per neighbour.
    pub(crate) fn repeat(&mut self, scanner: RadioId, token: u64, t: u64) {
        let Some(duty) = self.radios.get(&scanner).filter(|r| r.repeat == Some(token)).map(|r| r.duty) else {
            return;
        };
        let interval = self.repeat_interval(duty);
        let mut again = Vec::new();
        if let Some(radio) = self.radios.get_mut(&scanner) {
            for (advertiser, heard) in &mut radio.heard {
                let due = heard.pending.is_none() && t.saturating_sub(heard.reported) >= interval / 2;
                if due && !self.chance.lost() {
                    heard.reported = t;
                    again.push(*advertiser);
                }
            }
        }
        for advertiser in again {
            self.report(scanner, advertiser);
        }
        self.schedule.push(t.saturating_add(interval), Happening::Repeat { scanner, token });
    }

    fn report(&mut self, scanner: RadioId, advertiser: RadioId) {
        let Some(radio) = self.radios.get(&advertiser) else { return };
        if let Some(beacon) = radio.beacon.clone() {
            let peer = radio.address;
            self.emit(scanner, RadioEvent::Discovered { peer, beacon });
        }
    }

    fn repeat_interval(&self, duty: ScanDuty) -> u64 {
        nanos(if duty == ScanDuty::Full { self.config.repeat_full } else { self.config.repeat_low })
    }
}
