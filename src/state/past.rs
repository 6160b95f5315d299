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

/// The most entries a past has when it was thinned out, and the most pauses.
const MANY: usize = 65_536;

/// The key of those that are not told apart. In a scope of `pacing` what they spent
/// counts for each key that is told apart after it, and for those that never are.
const UNKNOWN: u64 = 0;

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

    /// A key of a kind that was not there before is [`UNKNOWN`].
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
            let keys: Box<[u64]> = keys.map(|key| key.unwrap_or(UNKNOWN)).collect();
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
    /// gone, and what is old is told less exactly. It has [`MANY`] entries at most,
    /// and as many pauses.
    pub(super) fn thin(&mut self, now: u64, reach: Duration) {
        if let Some(last) = self.reserved.take() {
            self.add(last.until, last.turns);
        }
        // A clock that was set back since would hide these for long.
        let latest = now.saturating_add(nanos(super::book::SPAN));
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
        self.lost = self.lost.map(|at| at.min(latest));
        self.lost = self.lost.filter(|at| *at > oldest);
        self.spent.retain(|spent| spent.at > oldest);
        self.spent.sort_by_key(|spent| spent.at);
        self.thin_paused();
        self.thin_spent(now);
    }

    /// Leaves one pause for each charge, and [`MANY`] at most.
    fn thin_paused(&mut self) {
        // The last to end stands for all of the same charge.
        self.paused.sort_by_key(|paused| Reverse(paused.until));
        unite(&mut self.paused);
        if self.paused.len() <= MANY {
            return;
        }
        // The longest of the others is for whoever is not known. So that this holds
        // for all whose pause it was, nothing must make these known: not what they
        // spent before, which counts for them all the same, and while they are
        // paused they spend nothing. Who has a longer pause as well keeps that.
        let mut unknown: HashSet<(usize, u64)> = HashSet::new();
        for paused in &mut self.paused[MANY / 2..] {
            unknown.extend(paused.charge.keys().iter().copied().enumerate());
            forget_keys(&mut paused.charge);
        }
        unite(&mut self.paused);
        let spent = self.spent.iter_mut();
        for keys in spent.filter_map(|spent| spent.charge.keys.as_mut()) {
            for (kind, key) in keys.iter_mut().enumerate() {
                if unknown.contains(&(kind, *key)) {
                    *key = UNKNOWN;
                }
            }
        }
    }

    /// Merges what was spent, in the order of time, into [`MANY`] entries at most.
    fn thin_spent(&mut self, now: u64) {
        let mut fine = FINE;
        while fine > 0 {
            merge(&mut self.spent, now, fine);
            if self.spent.len() <= MANY {
                return;
            }
            fine /= 2;
        }
        // They differ too much. The oldest come before all that keep their keys, so
        // without theirs they count for each of these, and for all others; and a
        // higher cost never lets more start. What is left of them is few: one entry
        // for each power of two of cost and of age.
        let oldest = self.spent.len() - MANY / 2;
        for spent in &mut self.spent[..oldest] {
            let cost = spent.charge.cost.checked_next_power_of_two();
            spent.charge.cost = cost.unwrap_or(NonZeroU32::MAX);
            forget_keys(&mut spent.charge);
        }
        merge(&mut self.spent, now, 1);
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

/// The entry that the next request with the same charge may join.
#[derive(Debug)]
struct Last {
    place: usize,
    /// The time of its first request.
    first: u64,
    /// The number of its last request, in the order of time.
    number: usize,
}

/// Merges requests that are alike and lie close together, for their age.
///
/// One whose key is not known stays before the next whose is: to that it counts,
/// and later it would not any more.
fn merge(all: &mut Vec<Spent>, now: u64, fine: u64) {
    let mut last: HashMap<Charge, Last> = HashMap::new();
    let mut merged: Vec<Spent> = Vec::with_capacity(all.len());
    // For each kind of key the number of the last request whose key is known.
    let mut known: Vec<usize> = Vec::new();
    for (number, spent) in all.drain(..).enumerate() {
        let keys = spent.charge.keys();
        known.resize(known.len().max(keys.len()), 0);
        let kinds = known.iter_mut().zip(keys);
        for (known, _) in kinds.filter(|(_, key)| **key != UNKNOWN) {
            *known = number;
        }
        let room = now.saturating_sub(spent.at) / fine;
        if let Some(last) = last.get_mut(&spent.charge) {
            let entry = &mut merged[last.place];
            let times = entry.times.checked_add(spent.times.get());
            let stays = known.iter().enumerate().any(|(kind, known)| {
                let key = keys.get(kind).copied().unwrap_or(UNKNOWN);
                key == UNKNOWN && *known > last.number
            });
            let near = spent.at - last.first <= room;
            if let Some(times) = times.filter(|_| near && !stays) {
                entry.times = times;
                entry.at = spent.at;
                last.number = number;
                continue;
            }
        }
        let entry = Last {
            place: merged.len(),
            first: spent.at,
            number,
        };
        last.insert(spent.charge.clone(), entry);
        merged.push(spent);
    }
    merged.sort_by_key(|spent| spent.at);
    *all = merged;
}

/// Of the pauses for the same charge only the first is left.
fn unite(all: &mut Vec<Paused>) {
    let mut known = HashSet::new();
    all.retain(|paused| known.insert(paused.charge.clone()));
}

/// From now on it is not known whose it was.
fn forget_keys(charge: &mut Charge) {
    if let Some(keys) = &mut charge.keys {
        keys.fill(UNKNOWN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000_000_000;

    fn spent(at: u64, times: u32, cost: u32, key: u64) -> Spent {
        let [times, cost] = [times, cost].map(|number| NonZeroU32::new(number).unwrap());
        let charge = Charge::new(cost, [key].into(), 0);
        Spent { at, times, charge }
    }

    /// How many turns there were after `since`, and their costs.
    fn turns(past: &Past, since: u64) -> [u64; 2] {
        let mut turns = [0; 2];
        for spent in past.spent.iter().filter(|spent| spent.at > since) {
            let times = u64::from(spent.times.get());
            turns[0] += times;
            turns[1] += times * u64::from(spent.charge.cost.get());
        }
        turns
    }

    /// Entries of different keys never merged, and the file grew with each of them.
    #[test]
    fn of_too_many_keys_the_oldest_are_told_apart_no_longer_and_no_turn_is_lost() {
        let many = MANY as u32 + 1000;
        let step = HOUR / u64::from(many);
        let of = |nth: u32| {
            let at = HOUR + u64::from(nth) * step;
            spent(at, nth % 3 + 1, nth % 50 + 1, nth.into())
        };
        let mut past = Past::default();
        past.spent.extend((1..=many).map(of));
        let before = past.clone();
        past.thin(HOUR * 2, Duration::from_nanos(HOUR));
        let after = &past.spent;
        assert!(after.len() <= MANY, "{}", after.len());
        assert_eq!(turns(&past, 0)[0], turns(&before, 0)[0]);
        for since in (0..20).map(|nth| HOUR + HOUR / 20 * nth) {
            let [before, after] = [&before, &past].map(|past| turns(past, since));
            assert!(after[0] >= before[0] && after[1] >= before[1], "{since}");
        }
        let kept = &before.spent[before.spent.len() - MANY / 2..];
        let (unknown, known) = after.split_at(after.len() - kept.len());
        assert!(known == kept);
        assert!(unknown.iter().all(|spent| spent.charge.keys() == [UNKNOWN]));
        assert!(unknown.last().unwrap().at <= known[0].at);
    }

    #[test]
    fn of_too_many_pauses_the_shortest_are_for_whoever_is_not_known() {
        let (now, many) = (HOUR, MANY as u64 + 2);
        let mut past = Past::default();
        past.paused.extend((1..=many).map(|key| Paused {
            at: now,
            until: now + key,
            charge: Charge::new(NonZeroU32::MIN, [key].into(), 0),
        }));
        past.spent = vec![spent(now, 1, 1, 1), spent(now, 1, 1, many)];
        past.thin(now, Duration::from_nanos(HOUR));
        assert_eq!(past.paused.len(), MANY / 2 + 1);
        let last = past.paused.last().unwrap();
        assert_eq!(last.charge.keys(), [UNKNOWN]);
        assert_eq!(last.until, now + many - MANY as u64 / 2);
        // Who has only that pause is not known by what it spent either.
        assert!(past.spent == [spent(now, 1, 1, UNKNOWN), spent(now, 1, 1, many)]);
    }

    #[test]
    fn what_was_spent_by_nobody_knows_whom_stays_before_the_keys_that_follow() {
        let of = |at, times, key| spent(at, times, 1, key);
        let mut all = vec![of(10, 1, 0), of(11, 1, 0), of(12, 1, 7), of(13, 1, 0)];
        all.extend([of(14, 1, 7), of(15, 1, 7)]);
        merge(&mut all, 1000, 1);
        assert_eq!(all, [of(11, 2, 0), of(13, 1, 0), of(15, 3, 7)]);
    }
}
