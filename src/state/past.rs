//! What a lane's journal says was spent, and which pauses it tells of.
//!
//! Records become a [`Past`] in their order; the past is charged to the limits,
//! or thinned out and written as the first file of a new journal. Whatever is
//! uncertain counts as later and as more: what was reserved as spent, merged
//! requests as started with the last of them.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::{Clock, Reading, SKEW, nanos};
use super::record::{HEAD, Paused, Record, Reserved, Spent, head, read_head};
use crate::pacing::{Charge, Limits};

/// Requests are merged when they lie no farther apart than this part of their
/// age; more of it when there are too many.
const FINE: u64 = 1024;

/// The most entries a past should have.
const MANY: usize = 65_536;

/// What was spent.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Past {
    pub(super) spent: Vec<Spent>,
    /// The last reservation, of which nobody knows what was used.
    reserved: Option<Reserved>,
    /// Pauses that the upstream asked for.
    paused: Vec<Paused>,
    /// What was spent until then is not known.
    pub(super) lost: Option<u64>,
    /// The clock by which all these times are.
    pub(super) reading: Option<Reading>,
    kinds: Vec<u64>,
}

impl Past {
    /// A past of which nothing is known until `at`.
    pub(super) fn lost(at: u64) -> Self {
        Self {
            lost: Some(at),
            ..Self::default()
        }
    }

    /// Reads a file on; its number and whether it came to its end. `None` if it
    /// is damaged.
    pub(super) fn read(&mut self, file: &[u8], seed: u64) -> Option<(u64, bool)> {
        let number = read_head(file, seed)?;
        let mut rest = &file[HEAD..];
        while !rest.is_empty() {
            let record = Record::read(&mut rest)?;
            if record == Record::End {
                return rest.is_empty().then_some((number, true));
            }
            self.take(record);
        }
        Some((number, false))
    }

    /// How many entries it has.
    pub(super) fn len(&self) -> usize {
        self.spent.len() + self.paused.len() + usize::from(self.reserved.is_some())
    }

    /// Goes on with the next record.
    pub(super) fn take(&mut self, record: Record) {
        match record {
            Record::Kinds(kinds) => self.set_kinds(kinds),
            Record::Spent(spent) => self.spent.push(spent),
            Record::Reserved(next) => {
                if let Some(last) = self.reserved.take() {
                    self.add(last.until.min(next.at), next.used);
                }
                self.reserved = (next.turns > 0).then_some(next);
            }
            Record::Moved(by) => self.shift(by),
            Record::Lost(at) => self.lost = Some(at),
            Record::Read(reading) => self.reading = Some(reading),
            Record::Paused(paused) => self.paused.push(paused),
            Record::End => {}
        }
    }

    fn add(&mut self, at: u64, times: u32) {
        self.spent.extend(NonZeroU32::new(times).map(|times| Spent {
            at,
            times,
            charge: Charge::ONE,
        }));
    }

    /// A key of a kind that was not there before is unknown: 0.
    pub(super) fn set_kinds(&mut self, kinds: Vec<u64>) {
        if kinds == self.kinds {
            return;
        }
        let places = kinds.iter();
        let places: Vec<Option<usize>> = places
            .map(|kind| self.kinds.iter().position(|old| old == kind))
            .collect();
        let spent = self.spent.iter_mut().map(|spent| &mut spent.charge);
        let paused = self.paused.iter_mut().map(|paused| &mut paused.charge);
        for charge in spent.chain(paused) {
            let old = charge.keys();
            let keys = places.iter();
            let keys = keys.map(|place| place.and_then(|place| old.get(place).copied()));
            let keys: Box<[u64]> = keys.map(Option::unwrap_or_default).collect();
            charge.keys = Some(keys).filter(|keys| !keys.is_empty());
        }
        self.kinds = kinds;
    }

    /// Puts all times right that `clock`, on a machine started as `boot` says,
    /// tells otherwise than the clock of the last run did.
    pub(super) fn follow(&mut self, clock: &Clock, boot: Option<u64>) {
        let moved = |reading: &Reading| clock.moved_since(reading, boot);
        if let Some(by) = self.reading.as_ref().and_then(moved) {
            self.shift(by);
        }
        self.reading = clock.reading(boot);
    }

    fn shift(&mut self, by: i64) {
        let shift = |at: &mut u64| *at = at.saturating_add_signed(by);
        self.spent.iter_mut().for_each(|spent| shift(&mut spent.at));
        for paused in &mut self.paused {
            shift(&mut paused.at);
            shift(&mut paused.until);
        }
        self.lost.iter_mut().for_each(shift);
        if let Some(reading) = &mut self.reading {
            shift(&mut reading.wall);
        }
        if let Some(reserved) = &mut self.reserved {
            shift(&mut reserved.at);
            shift(&mut reserved.until);
        }
    }

    /// Makes it what a new journal starts with: the reservation counts as used,
    /// nothing is later than `now` allows, what no limit can ask for any more is
    /// gone, and what is old is told less exactly.
    pub(super) fn thin(&mut self, now: u64, reach: Duration) {
        if let Some(last) = self.reserved.take() {
            self.add(last.until, last.turns);
        }
        // A clock that was set back since would hide these for long.
        let latest = now.saturating_add(nanos(super::journal::SPAN));
        let oldest = now.saturating_sub(nanos(reach));
        for spent in &mut self.spent {
            spent.at = spent.at.min(latest);
        }
        for paused in &mut self.paused {
            let early = paused.at.saturating_sub(latest);
            paused.at -= early;
            paused.until = paused.until.saturating_sub(early);
        }
        self.paused.retain(|paused| paused.until > now);
        // The last to end stands for all of the same charge.
        self.paused.sort_by_key(|paused| Reverse(paused.until));
        let mut known = HashSet::new();
        self.paused
            .retain(|paused| known.insert(paused.charge.clone()));
        self.lost = self.lost.map(|at| at.min(latest));
        self.lost = self.lost.filter(|at| *at > oldest);
        self.spent.retain(|spent| spent.at > oldest);
        self.spent.sort_by_key(|spent| spent.at);
        let mut fine = FINE;
        loop {
            merge(&mut self.spent, now, fine);
            if self.spent.len() <= MANY || fine == 1 {
                return;
            }
            fine /= 2;
        }
    }

    /// The first file of a journal with this past, in place of all up to `number`.
    pub(super) fn write(&self, seed: u64, number: u64) -> Vec<u8> {
        let mut file = head(seed, number);
        Record::Kinds(self.kinds.clone()).write(&mut file);
        if let Some(reading) = self.reading {
            Record::Read(reading).write(&mut file);
        }
        if let Some(at) = self.lost {
            Record::Lost(at).write(&mut file);
        }
        for paused in &self.paused {
            Record::Paused(paused.clone()).write(&mut file);
        }
        for spent in &self.spent {
            Record::Spent(spent.clone()).write(&mut file);
        }
        Record::End.write(&mut file);
        file
    }

    /// When the last of the pauses ends, if there is one.
    pub(crate) fn paused_until(&self, clock: &Clock) -> Option<Instant> {
        let until = self.paused.iter().map(|paused| paused.until).max()?;
        Some(clock.time(until))
    }

    /// Charges the limits for it. Returns the time until which nothing is left
    /// because what was spent is not known.
    pub(crate) fn charge(&self, limits: &mut Limits, clock: &Clock) -> Option<Instant> {
        let time = |at: u64| clock.time(at) + SKEW;
        let until = self.lost.map(|at| limits.spent_all(time(at)));
        // What was spent before is part of all.
        let since = self.lost.unwrap_or(0);
        for spent in self.spent.iter().filter(|spent| spent.at >= since) {
            limits.spent(&spent.charge, spent.times, time(spent.at));
        }
        for paused in &self.paused {
            limits.paused(&paused.charge, time(paused.until), clock.time(clock.read()));
        }
        until
    }
}

/// Merges requests that are alike and lie close together, for their age.
fn merge(all: &mut Vec<Spent>, now: u64, fine: u64) {
    // For each charge the place of its last entry and the time of its first.
    let mut last: HashMap<Charge, (usize, u64)> = HashMap::new();
    let mut merged: Vec<Spent> = Vec::with_capacity(all.len());
    for spent in all.drain(..) {
        let room = now.saturating_sub(spent.at) / fine;
        if let Some((place, first)) = last.get(&spent.charge) {
            let entry = &mut merged[*place];
            let times = entry.times.checked_add(spent.times.get());
            if let Some(times) = times.filter(|_| spent.at - first <= room) {
                entry.times = times;
                entry.at = spent.at;
                continue;
            }
        }
        let known = (merged.len(), spent.at);
        last.insert(spent.charge.clone(), known);
        merged.push(spent);
    }
    merged.sort_by_key(|spent| spent.at);
    *all = merged;
}
