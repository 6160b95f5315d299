//! What the trips of requests, from start to answer, tell of the way to the
//! upstream. Only whole trips can be measured, and two things follow from them.
//!
//! How long can a request be on its way that has no answer? Where answers are
//! usually quick, a long trip means that something held the request back, so the
//! longest counts, and is forgotten slowly. Where they never are, trips tell
//! nothing of the way. A refusal says that it was longer than thought. That is
//! the [`Trips::span`].
//!
//! How long after a request can one start that must be counted a period later?
//! Between the counts of the two lie the way back of the first, the time from
//! its answer to the second's start, and the second's way there. The way back
//! of the one and the way there of the other make a trip as well, if one put
//! together of two, so together they take no less than any trip takes: the
//! [`Trips::floor`]. So what every trip takes costs no rate; what one takes
//! longer does.
//!
//! Trips of one moment do not tell the floor: something may hold up all of them, such
//! as opening the connections of the first burst. So it takes several moments. Nor do
//! trips that are short for the number of requests beside them: those may only have
//! waited for each other.

use std::time::Duration;

/// The least and the most that an automatic guard takes. A request is seldom on
/// its way for a tenth of the least, but a busy machine can hold one back that
/// long, and an answer in time costs nothing.
const LEAST: Duration = Duration::from_millis(250);
const MOST: Duration = Duration::from_secs(1);

/// The shortest trip is that of a time between once and twice as long, or of more if
/// none tells anything. Long enough that a way which is longer for a while is not
/// taken for the shortest.
const MEMORY: Duration = Duration::from_secs(30);

/// Nothing is known before so many trips that tell, or after a time without any; nor
/// before so many moments. A moment begins with a trip that started so long after the
/// first answer of the one before.
const ENOUGH: u32 = 16;
const MOMENTS: u32 = 4;
const APART: Duration = Duration::from_millis(250);

/// A trip tells nothing of the way if it takes less than so many nanoseconds for each
/// request beside it: some three times what sending and answering one costs where the
/// API is a process beside ours.
const BESIDE: u64 = 40_000;

/// The floor lies below the shortest trip by one part in so many, but by so many
/// nanoseconds at least, since the quickest way there and the quickest way back need
/// not have been those of one trip; by so many times what trips take longer than that
/// on average; and by up to so many times more while few are known.
const PART: u64 = 100;
const WAKE: u64 = 50_000;
const MARGIN: u64 = 2;
const MORE: u64 = 4;

/// What is known of the time that requests are on their way.
#[derive(Debug)]
pub(super) struct Trips {
    longest: Duration,
    /// The shortest since `since`, and that of [`MEMORY`] before; times are
    /// durations since the lane's epoch.
    shortest: [Option<Duration>; 2],
    since: Duration,
    /// When the last trip ended that told something.
    last: Duration,
    /// How much longer trips take than the shortest, in nanoseconds, on an average that
    /// is moving as far as over [`ENOUGH`].
    excess: u64,
    /// Trips that told something since nothing was known, and how many are enough.
    known: u32,
    enough: u32,
    /// How many moments these make, and when the first answer of the last one came.
    moments: u32,
    moment: Duration,
    /// What follows from all that, since it is asked for more often than it changes.
    floor: Duration,
}

impl Trips {
    /// Before the first trip.
    pub(super) fn new() -> Self {
        Self {
            longest: MOST,
            shortest: [None; 2],
            since: Duration::ZERO,
            last: Duration::ZERO,
            excess: 0,
            known: 0,
            enough: ENOUGH,
            moments: 0,
            moment: Duration::ZERO,
            floor: Duration::ZERO,
        }
    }

    /// An answer came at `now`, to a request that was sent `trip` ago; `beside` others
    /// had no answer when it was sent, or were sent since.
    pub(super) fn answered(&mut self, trip: Duration, beside: u64, now: Duration) {
        // Faster than can be: something is not as it was.
        if trip < self.floor || now > self.last + MEMORY {
            self.forget();
        }
        let tells = trip.as_nanos() >= u128::from(BESIDE) * u128::from(beside);
        // Those that only wait for others must not push a shorter one out.
        if tells && now > self.since + MEMORY {
            self.shortest = [None, self.shortest[0]];
            self.since = now;
        }
        let latest = self.shortest[0].get_or_insert(trip);
        *latest = trip.min(*latest);
        let shortest = self.shortest().unwrap_or(trip);
        if tells {
            self.learn(trip, shortest, now);
        }
        self.longest -= self.longest / 100;
        if shortest < LEAST {
            self.longest = self.longest.max(trip).min(MOST);
        }
        self.floor = self.told();
    }

    /// A `trip` that tells something ended at `now`.
    fn learn(&mut self, trip: Duration, shortest: Duration, now: Duration) {
        self.known = self.known.saturating_add(1);
        let over = u64::from(self.known.min(ENOUGH));
        let longer = (trip - shortest).as_nanos() as u64;
        self.excess = (self.excess * (over - 1)).saturating_add(longer) / over;
        if self.moments == 0 || now >= self.moment + APART + trip {
            self.moments = self.moments.saturating_add(1);
            self.moment = now;
        }
        self.last = now;
    }

    /// The upstream refused a request although the limits allowed it. If that
    /// may be because of the floor, it is trusted again after twice as many trips.
    pub(super) fn refused(&mut self) {
        self.longest = MOST;
        if !self.floor.is_zero() {
            self.enough = self.enough.saturating_mul(2);
        }
        self.forget();
    }

    /// How long a request can be on its way, at present.
    pub(super) fn span(&self) -> Duration {
        (self.longest * 2).clamp(LEAST, MOST)
    }

    /// By when nearly all answers come, as far as trips take alike; `None` if nothing
    /// is known.
    pub(super) fn answered_by(&self) -> Option<Duration> {
        let shortest = self.shortest().filter(|_| !self.floor.is_zero())?;
        Some(shortest + (shortest - self.floor))
    }

    /// What the way back of one request and the way there of another take
    /// together, at least; zero if nothing is known.
    pub(super) fn floor(&self) -> Duration {
        self.floor
    }

    /// The floor as the trips tell it now.
    fn told(&self) -> Duration {
        match self.shortest() {
            Some(shortest) if self.known >= self.enough && self.moments >= MOMENTS => {
                let shortest = shortest.as_nanos() as u64;
                let more = self.excess.saturating_mul(MORE * u64::from(ENOUGH));
                let more = more / u64::from(self.known);
                let margin = self.excess.saturating_mul(MARGIN).saturating_add(more);
                let margin = margin.saturating_add((shortest / PART).max(WAKE));
                Duration::from_nanos(shortest.saturating_sub(margin))
            }
            _ => Duration::ZERO,
        }
    }

    fn shortest(&self) -> Option<Duration> {
        self.shortest.into_iter().flatten().min()
    }

    /// The ways may not be what they were. Shorter ones than now do no harm.
    pub(super) fn forget(&mut self) {
        self.known = 0;
        self.moments = 0;
        self.floor = Duration::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// One request after the other, each answered after the next of `trips`.
    fn answer(trips: &mut Trips, each: impl IntoIterator<Item = Duration>) {
        for trip in each {
            let now = trips.last + trip;
            trips.answered(trip, 0, now);
        }
    }

    fn steady(trip: Duration, times: usize) -> impl Iterator<Item = Duration> {
        std::iter::repeat_n(trip, times)
    }

    #[test]
    fn the_guard_starts_wide_and_narrows_as_answers_come_quickly() {
        let mut trips = Trips::new();
        assert_eq!(trips.span(), MOST);
        answer(&mut trips, steady(ms(5), 300));
        assert_eq!(trips.span(), LEAST);
    }

    #[test]
    fn a_long_trip_among_quick_ones_and_a_refusal_widen_it_for_a_while() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(5), 300));
        answer(&mut trips, [ms(320)]);
        assert_eq!(trips.span(), ms(640));
        answer(&mut trips, steady(ms(5), 300));
        assert_eq!(trips.span(), LEAST);
        trips.refused();
        assert_eq!(trips.span(), MOST);
    }

    #[test]
    fn answers_that_are_always_slow_do_not_widen_it() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(3000), 300));
        assert_eq!(trips.span(), LEAST);
        assert_eq!(trips.answered_by(), Some(ms(3030)));
        answer(&mut trips, (0..300).map(|nth| ms(nth * 1700 % 5000)));
        assert_eq!(trips.answered_by(), None);
    }

    #[test]
    fn what_every_trip_takes_is_known_after_enough_of_them() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(100), 15));
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, [ms(100)]);
        assert_eq!(trips.floor(), ms(99));
        // One that takes 16 ms more adds 1 ms to the average; few are known.
        answer(&mut trips, [ms(116)]);
        assert!(trips.floor() < ms(95));
        answer(&mut trips, steady(ms(100), 500));
        answer(&mut trips, [ms(116)]);
        assert!(trips.floor().abs_diff(ms(97)) < ms(1));
    }

    #[test]
    fn trips_that_vary_as_much_as_they_take_and_short_ones_have_no_floor() {
        let mut trips = Trips::new();
        answer(&mut trips, (0..400).map(|nth| ms(1 + nth * 17 % 50)));
        assert_eq!(trips.floor(), ms(0));
        let mut trips = Trips::new();
        answer(&mut trips, steady(Duration::from_micros(60), 20_000));
        assert_eq!(trips.floor(), Duration::from_micros(10));
    }

    /// Found by the bench: they were taken for what every trip takes.
    #[test]
    fn the_trips_of_one_moment_tell_no_floor() {
        let mut trips = Trips::new();
        for nth in 0..10_000 {
            trips.answered(ms(5), 100, ms(10) + Duration::from_micros(nth * 20));
        }
        answer(&mut trips, steady(ms(5), 100));
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, steady(ms(5), 100));
        assert_eq!(trips.floor(), ms(5) * 99 / 100);
    }

    #[test]
    fn requests_that_overlap_are_of_one_moment() {
        let mut trips = Trips::new();
        (0..30).for_each(|nth| trips.answered(ms(1000), 10, ms(1000 + nth * 100)));
        assert_eq!(trips.floor(), ms(0));
        (30..40).for_each(|nth| trips.answered(ms(1000), 10, ms(1000 + nth * 100)));
        assert_eq!(trips.floor(), ms(990));
    }

    #[test]
    fn trips_that_wait_for_each_other_tell_no_floor_and_keep_one_that_is_known() {
        let mut trips = Trips::new();
        let held_up = |trips: &mut Trips, seconds: u64| {
            let from = trips.last;
            (1..=seconds).for_each(|nth| trips.answered(ms(20), 501, from + ms(1000 * nth)));
            trips.answered(ms(41), 1000, from + ms(1000 * seconds + 500));
        };
        held_up(&mut trips, 29);
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, steady(ms(10), 4000));
        assert_eq!(trips.floor(), ms(10) * 99 / 100);
        // However long they go on and whatever tells something among them.
        held_up(&mut trips, 29);
        held_up(&mut trips, 29);
        assert!((ms(1)..=ms(10)).contains(&trips.floor()));
        answer(&mut trips, steady(ms(10), 4000));
        let from = trips.last;
        trips.answered(ms(20), 501, from + MEMORY);
        assert_eq!(trips.floor(), ms(10) * 99 / 100);
        trips.answered(ms(20), 501, from + MEMORY + ms(1));
        assert_eq!(trips.floor(), ms(0));
    }

    #[test]
    fn a_short_trip_is_the_shortest_though_it_waited_for_others() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(100), 40));
        trips.answered(ms(80), 5000, trips.last + ms(80));
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, steady(ms(100), 40));
        assert!(trips.floor() < ms(80));
    }

    #[test]
    fn a_trip_below_the_floor_and_silence_make_all_known_trips_void() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(100), 40));
        answer(&mut trips, [ms(99)]);
        assert!(trips.floor() > ms(97));
        answer(&mut trips, [ms(90)]);
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, steady(ms(90), 15));
        assert_eq!(trips.floor(), ms(90) * 99 / 100);
        let later = trips.last + MEMORY * 2;
        (0..100).for_each(|nth| trips.answered(ms(90), 0, later + ms(nth)));
        assert_eq!(trips.floor(), ms(0));
    }

    #[test]
    fn the_shortest_trip_is_remembered_for_half_a_minute_to_a_minute() {
        let mut trips = Trips::new();
        answer(&mut trips, [ms(50)]);
        answer(&mut trips, steady(ms(100), 290));
        assert!(trips.floor() < ms(1));
        answer(&mut trips, steady(ms(100), 590));
        assert_eq!(trips.floor(), ms(99));
    }

    #[test]
    fn after_a_refusal_the_floor_takes_twice_as_many_trips() {
        let mut trips = Trips::new();
        answer(&mut trips, steady(ms(100), 40));
        // Three that were on their way together.
        (0..3).for_each(|_| trips.refused());
        answer(&mut trips, steady(ms(100), 31));
        assert_eq!(trips.floor(), ms(0));
        answer(&mut trips, [ms(100)]);
        assert_eq!(trips.floor(), ms(99));
    }
}
