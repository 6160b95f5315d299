//! One lane's journal: what is spent is written before it is spent.
//!
//! [`Journal::spend`] is called on the cores between a turn and its request. A
//! write that has returned outlives the process however that ends, so nothing
//! is forgotten; only a machine that loses power can lose what was written
//! since the last [`Journal::tend`], a second at most. A pause that the upstream asked
//! for is written when its answer is there. Where turns come quickly
//! one record reserves those of the next 50 ms, and a turn only counts down;
//! after a crash the whole reservation counts as spent.
//!
//! The daemon tends all journals once a second, off the cores: it syncs what
//! was written, thins out what has grown, and begins anew after an error.

use std::io;
use std::num::NonZeroU64;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::book::{Book, SPAN};
use super::clock::{Clock, hash, nanos};
use super::files::{Files, Found};
use super::past::Past;
use super::record::{Paused, Record, Reserved};
use crate::config::{self, Per};
use crate::pacing::Charge;

/// Turns that are reserved at once where there is no limit.
const UNLIMITED: u32 = 4096;

/// What was spent is remembered for as long as a limit asks for it, and at least
/// so long, for limits that are yet to come.
const LEAST_REACH: Duration = Duration::from_secs(3600);

/// When the file that is written to is this long, it is thinned out.
const LONG: u64 = if cfg!(test) { 1 << 10 } else { 1 << 20 };

/// Remembers what one lane spends.
#[derive(Debug)]
pub(crate) struct Journal {
    files: Files,
    /// Which start of the machine the readings of its clock are from.
    boot: Option<u64>,
    /// Held while a record is written: a few microseconds, never over an await.
    book: Mutex<Book>,
    /// Held by who changes the files; taken before `book`, never on a core.
    tending: Mutex<Tending>,
}

#[derive(Debug)]
struct Tending {
    /// The number of the file that is written to.
    number: u64,
    kinds: Vec<u64>,
    reach: Duration,
}

impl Journal {
    /// The journal of a lane with `settings` and what was spent before; if that is
    /// not known, nothing where the lane is to begin `fresh`, else everything.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written.
    pub(super) fn open(
        files: Files,
        settings: &config::Upstream,
        fresh: bool,
        clock: Clock,
        boot: Option<u64>,
    ) -> io::Result<(Self, Past)> {
        let mut past = match files.read(u64::MAX)? {
            Found::Past(past) => past,
            found => unknown(&files, &found, fresh, clock),
        };
        if fresh {
            past.lost = None;
        }
        let (reach, kinds) = (reach(settings), kinds(settings));
        past.follow(&clock, boot);
        past.thin(clock.read(), reach);
        past.set_kinds(kinds.clone());
        let number = files.numbers()?.last().copied().unwrap_or(0);
        files.replace(&past, number)?;
        let (file, length) = files.begin(number + 1, &kinds, past.reading)?;
        let journal = Self {
            files,
            boot,
            book: Mutex::new(Book {
                file: Some(file),
                length,
                dirty: true,
                clock,
                batch: batch(settings),
                kinds: 0,
                reserved: Reserved::default(),
                record: Vec::new(),
            }),
            tending: Mutex::new(Tending {
                number: number + 1,
                kinds,
                reach,
            }),
        };
        Ok((journal, past))
    }

    /// A request with this charge starts at `now`; only after this is it sent.
    pub(crate) fn spend(&self, charge: &Charge, now: Instant) {
        let mut book = self.book();
        if let Err(error) = book.spend(charge, now) {
            self.fail(&mut book, &error);
        }
    }

    /// Nothing starts before `until` because of what the upstream has said at `now`, in
    /// its answer to a request with this charge.
    pub(crate) fn pause(&self, charge: &Charge, until: Instant, now: Instant) {
        let mut book = self.book();
        let paused = Paused {
            at: book.clock.wall(now),
            until: book.clock.wall(until),
            charge: book.known(charge),
        };
        if let Err(error) = book.write(&Record::Paused(paused)) {
            self.fail(&mut book, &error);
        }
    }

    /// Takes other settings, whose kinds of keys have the number `number`.
    pub(crate) fn reconfigure(&self, settings: &config::Upstream, number: u32) {
        let mut tending = self.tending();
        tending.reach = reach(settings);
        let kinds = kinds(settings);
        let mut book = self.book();
        book.batch = batch(settings);
        book.kinds = number;
        if tending.kinds != kinds {
            tending.kinds.clone_from(&kinds);
            if let Err(error) = book.write(&Record::Kinds(kinds)) {
                self.fail(&mut book, &error);
            }
        }
    }

    /// Does what must be done once a second, and may take a while. `now` is the
    /// time of day as it is read anew.
    pub(crate) fn tend(&self, now: Clock) {
        let mut tending = self.tending();
        if self.book().file.is_none() {
            match self.begin_anew(&tending, now) {
                Ok(()) => tracing::info!(upstream = self.files.lane, "spent turns are kept again"),
                Err(error) => {
                    // However far it came: nobody must rely on that.
                    let left = self.give_up(&mut self.book());
                    let invalid = left.is_none();
                    tracing::debug!(%error, invalid, "spent turns still cannot be kept");
                }
            }
            return;
        }
        if let Err(error) = self.sync(now).and_then(|()| self.thin_out(&mut tending)) {
            self.fail(&mut self.book(), &error);
        }
    }

    /// Everything is on disk when this returns, and no reservation is open.
    pub(crate) fn close(&self) {
        let _tending = self.tending();
        let mut book = self.book();
        let closed = book.settle(u64::MAX).and_then(|()| match &book.file {
            Some(file) => file.sync_data(),
            None => Ok(()),
        });
        if let Err(error) = closed {
            self.fail(&mut book, &error);
        }
    }

    /// Writes down what the clock did and what a reservation has left over, and
    /// waits until the disk has it all.
    fn sync(&self, now: Clock) -> io::Result<()> {
        let mut book = self.book();
        if let Some(by) = book.clock.moved(&now) {
            book.settle(u64::MAX)?;
            book.write(&Record::Moved(by))?;
            book.clock = now;
            if let Some(reading) = now.reading(self.boot) {
                book.write(&Record::Read(reading))?;
            }
        }
        book.settle(now.read())?;
        let file = match &book.file {
            Some(file) if book.dirty => file.try_clone()?,
            _ => return Ok(()),
        };
        book.dirty = false;
        drop(book);
        file.sync_data()
    }

    /// Begins another file when this one is long, and thins the others out.
    fn thin_out(&self, tending: &mut Tending) -> io::Result<()> {
        if self.book().length < LONG {
            return Ok(());
        }
        let full = tending.number;
        // Only who tends, as we do, takes another clock.
        let reading = self.book().clock.reading(self.boot);
        let (file, length) = self.files.begin(full + 1, &tending.kinds, reading)?;
        let mut book = self.book();
        book.settle(u64::MAX)?;
        book.write(&Record::End)?;
        let now = book.clock.wall(Instant::now());
        let full_file = book.file.replace(file);
        book.length = length;
        drop(book);
        tending.number += 1;
        if let Some(file) = full_file {
            file.sync_data()?;
        }
        let Found::Past(mut past) = self.files.read(full)? else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        past.thin(now, tending.reach);
        self.replace(&past, full)
    }

    /// After an error: what was spent until `now` is not known, from then on it is.
    fn begin_anew(&self, tending: &Tending, now: Clock) -> io::Result<()> {
        self.files.forget()?;
        let mut past = Past::lost(now.read());
        past.set_kinds(tending.kinds.clone());
        past.reading = now.reading(self.boot);
        let (file, length) = self
            .files
            .begin(tending.number, &tending.kinds, past.reading)?;
        let mut book = self.book();
        book.file = Some(file);
        book.length = length;
        book.clock = now;
        // What started or was reserved meanwhile is in none of the files.
        book.reserved = Reserved::default();
        let at = now.wall(Instant::now());
        book.write(&Record::Lost(at))?;
        drop(book);
        // Only now, when turns are written down: this is what makes a file count.
        self.replace(&past, tending.number - 1)
    }

    /// Makes `past` stand for all files up to `number`, if turns are still kept.
    pub(super) fn replace(&self, past: &Past, number: u64) -> io::Result<()> {
        self.files.replace(past, number)?;
        // A write that failed on a core since `past` was read had all files
        // forgotten; this one came later, and does not know what starts since.
        let book = self.book();
        match book.file {
            Some(_) => Ok(()),
            None => self.files.forget(),
        }
    }

    /// The journal cannot be kept: nobody must rely on it.
    fn fail(&self, book: &mut Book, error: &io::Error) {
        let left = self.give_up(book);
        tracing::error!(
            upstream = self.files.lane,
            folder = %self.files.folder.display(),
            %error,
            invalid = left.is_none(),
            "spent turns cannot be kept: a restart would begin as if the state were missing"
        );
    }

    /// Nothing is written from now on, nor is anything left that was; or else why.
    fn give_up(&self, book: &mut Book) -> Option<io::Error> {
        book.file = None;
        book.reserved = Reserved::default();
        self.files.forget().err()
    }

    /// From now on writing fails.
    #[cfg(test)]
    pub(super) fn break_file(&self) {
        self.book().file = Some(std::fs::File::open("/dev/null").unwrap());
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tending(&self) -> MutexGuard<'_, Tending> {
        self.tending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a lane starts with whose past is not known.
fn unknown(files: &Files, found: &Found, fresh: bool, clock: Clock) -> Past {
    let upstream = &files.lane;
    if let Found::Damaged(path) = found {
        tracing::warn!(upstream, path = %path.display(), "the state is damaged");
    }
    if fresh {
        tracing::info!(upstream, "no state: nothing counts as spent");
        Past::default()
    } else {
        Past::lost(clock.read())
    }
}

/// How long ago what was spent can still matter.
pub(crate) fn reach(settings: &config::Upstream) -> Duration {
    let spans = settings.limits.iter().map(config::Limit::reach);
    let longest = spans.max().unwrap_or_default().max(LEAST_REACH);
    // The upstream's clock may be slower, and the last request still on its way.
    longest.saturating_add(longest / 100)
}

/// How many turns are reserved at once: those of [`SPAN`].
fn batch(settings: &config::Upstream) -> u32 {
    if !settings.kinds().is_empty() {
        return 1;
    }
    let turns = settings.limits.iter().map(|limit| {
        let period = NonZeroU64::new(nanos(limit.period)).unwrap_or(NonZeroU64::MIN);
        let turns = u128::from(limit.count.get()) * SPAN.as_nanos() / u128::from(period.get());
        u32::try_from(turns).unwrap_or(UNLIMITED)
    });
    turns.min().unwrap_or(UNLIMITED).clamp(1, UNLIMITED)
}

/// A number for each kind of key that stays the same however the limits change.
fn kinds(settings: &config::Upstream) -> Vec<u64> {
    let number = |per: &Per| hash(per.to_string().as_bytes());
    settings.kinds().into_iter().map(number).collect()
}
