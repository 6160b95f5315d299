//! Who waits, in which order.
//!
//! One line for each combination of keys that the limits tell apart, and one for
//! all where they tell none. Inside a line the order is that of arrival; of the
//! lines whose head may go, the one whose head came first is served first. A line
//! whose keys must wait is parked until then and holds nobody else up.
//!
//! Nothing here knows what waits or why; the gate decides.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::pacing::Rank;

/// The lines of one lane.
#[derive(Debug)]
pub(super) struct Lines<T> {
    lines: HashMap<u64, Line<T>>,
    /// The lines that are not parked, by the place of their head.
    ready: BTreeMap<Rank, u64>,
    parked: BTreeSet<(Instant, u64)>,
    /// Items in parked lines.
    held: usize,
    len: usize,
    next: u64,
}

#[derive(Debug)]
struct Line<T> {
    items: VecDeque<(Rank, T)>,
    parked: Option<Instant>,
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self {
            lines: HashMap::new(),
            ready: BTreeMap::new(),
            parked: BTreeSet::new(),
            held: 0,
            len: 0,
            next: 0,
        }
    }
}

impl<T> Lines<T> {
    /// Behind all others.
    pub(super) fn push_back(&mut self, key: u64, item: T) {
        self.push(key, Duration::MAX, item);
    }

    /// Before all that were never served, among the others by when it `arrived`.
    pub(super) fn put_back(&mut self, key: u64, arrived: Duration, item: T) {
        self.push(key, arrived, item);
    }

    /// The head of the line that is served next, and its place in the order: who was
    /// put back goes before all others, by the time of its arrival.
    pub(super) fn best(&self) -> Option<(Rank, &T)> {
        let (_, key) = self.ready.first_key_value()?;
        let (rank, item) = self.lines.get(key)?.items.front()?;
        Some((*rank, item))
    }

    /// Takes what [`Lines::best`] shows.
    pub(super) fn take_best(&mut self) -> Option<T> {
        let (_, key) = self.ready.pop_first()?;
        let line = self.lines.get_mut(&key)?;
        let (_, item) = line.items.pop_front()?;
        self.len -= 1;
        match line.items.front() {
            Some((head, _)) => {
                self.ready.insert(*head, key);
            }
            None => {
                self.lines.remove(&key);
            }
        }
        Some(item)
    }

    /// Nobody of the line that [`Lines::best`] heads goes before `until`.
    pub(super) fn park_best(&mut self, until: Instant) {
        let Some((_, key)) = self.ready.pop_first() else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&key) {
            line.parked = Some(until);
            self.held += line.items.len();
            self.parked.insert((until, key));
        }
    }

    /// Lets the lines go on whose time has come by `now`.
    pub(super) fn unpark(&mut self, now: Instant) {
        while let Some((until, _)) = self.parked.first()
            && *until <= now
        {
            self.unpark_first();
        }
    }

    /// Lets all lines go on.
    pub(super) fn unpark_all(&mut self) {
        while !self.parked.is_empty() {
            self.unpark_first();
        }
    }

    /// When the next line goes on by itself.
    pub(super) fn next_unpark(&self) -> Option<Instant> {
        self.parked.first().map(|(until, _)| *until)
    }

    /// Keeps only what is `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&T) -> bool) {
        self.unpark_all();
        self.ready.clear();
        self.len = 0;
        self.lines.retain(|key, line| {
            line.items.retain(|(_, item)| wanted(item));
            self.len += line.items.len();
            if let Some((head, _)) = line.items.front() {
                self.ready.insert(*head, *key);
            }
            !line.items.is_empty()
        });
        self.lines.shrink_to(64);
    }

    /// All that wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Those of them in parked lines.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    fn push(&mut self, key: u64, arrived: Duration, item: T) {
        let line = self.lines.entry(key).or_insert_with(|| Line {
            items: VecDeque::new(),
            parked: None,
        });
        let rank = (arrived, self.next);
        self.next += 1;
        let head = line.items.front().map(|(head, _)| *head);
        let place = match line.items.back() {
            Some((last, _)) if *last > rank => {
                line.items.partition_point(|(other, _)| *other < rank)
            }
            _ => line.items.len(),
        };
        line.items.insert(place, (rank, item));
        self.len += 1;
        if place > 0 {
            self.held += usize::from(line.parked.is_some());
            return;
        }
        // Another head may go sooner.
        if let Some(until) = line.parked.take() {
            self.parked.remove(&(until, key));
            self.held -= line.items.len() - 1;
        } else if let Some(head) = head {
            self.ready.remove(&head);
        }
        self.ready.insert(rank, key);
    }

    fn unpark_first(&mut self) {
        let Some((_, key)) = self.parked.pop_first() else {
            return;
        };
        if let Some(line) = self.lines.get_mut(&key) {
            line.parked = None;
            self.held -= line.items.len();
            if let Some((head, _)) = line.items.front() {
                self.ready.insert(*head, key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lines.take_best()).collect()
    }

    #[test]
    fn of_several_lines_the_head_that_came_first_goes_first() {
        let mut lines = Lines::default();
        for (key, item) in [(1, "a1"), (2, "b1"), (1, "a2"), (3, "c1"), (2, "b2")] {
            lines.push_back(key, item);
        }
        // Put back one by one, in the order in which they were answered.
        for (key, arrived, item) in [(3, 2, "c0"), (1, 1, "a0"), (3, 3, "c00"), (4, 2, "d0")] {
            lines.put_back(key, Duration::from_secs(arrived), item);
        }
        assert_eq!(
            all(&mut lines),
            ["a0", "c0", "d0", "c00", "a1", "b1", "a2", "c1", "b2"]
        );
        assert_eq!((lines.len(), lines.lines.len()), (0, 0));
    }

    #[test]
    fn a_parked_line_holds_up_nobody_and_comes_back_in_its_old_place() {
        let mut lines = Lines::default();
        let now = Instant::now();
        for (key, item) in [(1, "a1"), (2, "b1"), (1, "a2")] {
            lines.push_back(key, item);
        }
        lines.park_best(now + Duration::from_secs(1));
        lines.push_back(1, "a3");
        assert_eq!(lines.best().map(|(_, item)| *item), Some("b1"));
        assert_eq!(lines.held(), 3);
        lines.unpark(now);
        assert_eq!(lines.next_unpark(), Some(now + Duration::from_secs(1)));
        lines.unpark(now + Duration::from_secs(1));
        assert_eq!(all(&mut lines), ["a1", "b1", "a2", "a3"]);
        assert_eq!(lines.held(), 0);
    }

    #[test]
    fn another_head_of_a_parked_line_is_asked_for() {
        let mut lines = Lines::default();
        for (key, item) in [(1, "a1"), (1, "a2"), (2, "b1")] {
            lines.push_back(key, item);
        }
        lines.park_best(Instant::now());
        lines.put_back(1, Duration::ZERO, "a0");
        assert_eq!((lines.held(), lines.next_unpark()), (0, None));
        assert_eq!(all(&mut lines), ["a0", "a1", "a2", "b1"]);
    }

    proptest! {
        /// Whatever is pushed, parked and dropped, everything comes out once and
        /// each line in its own order.
        #[test]
        fn nothing_is_lost_and_no_line_is_reordered(steps in prop::collection::vec((0u8..7, 0u64..4), 0..200)) {
            let mut lines = Lines::default();
            let (start, mut pushed, mut out) = (Instant::now(), 0u64, Vec::new());
            for (step, key) in steps {
                match step {
                    0..=2 => { lines.push_back(key, (key, pushed)); pushed += 1; }
                    3 => lines.park_best(start + Duration::from_secs(key)),
                    4 => lines.unpark(start + Duration::from_secs(key)),
                    5 => if let Some((key, number)) = out.pop() {
                        lines.put_back(key, Duration::from_secs(number), (key, number));
                    },
                    _ => out.extend(lines.take_best()),
                }
                prop_assert_eq!(lines.len() as u64 + out.len() as u64, pushed);
                let parked = lines.lines.values().filter(|line| line.parked.is_some());
                prop_assert_eq!(lines.held(), parked.map(|line| line.items.len()).sum::<usize>());
            }
            lines.retain(|_| true);
            out.extend(std::iter::from_fn(|| lines.take_best()));
            prop_assert_eq!(out.len() as u64, pushed);
            for key in 0..4 {
                let line: Vec<_> = out.iter().filter(|(of, _)| *of == key).collect();
                prop_assert!(line.is_sorted());
            }
        }
    }
}
