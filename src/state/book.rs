//! What of a journal is written to on the cores: one file, a record a time, and the
//! reservation that is open.

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

use super::clock::{Clock, nanos};
use super::record::{Record, Reserved, Spent};
use crate::pacing::Charge;

/// For how long turns are reserved.
pub(super) const SPAN: Duration = Duration::from_millis(50);

/// The file that a journal is written to.
#[derive(Debug)]
pub(super) struct Book {
    /// `None` after an error, until it could be begun anew.
    pub(super) file: Option<File>,
    pub(super) length: u64,
    /// Whether something was written since the last sync.
    pub(super) dirty: bool,
    pub(super) clock: Clock,
    /// Turns that are reserved at once; 1 for a record of each.
    pub(super) batch: u32,
    /// The number of the kinds whose keys are written now.
    pub(super) kinds: u32,
    /// Of these `used` have started, unlike in a record.
    pub(super) reserved: Reserved,
    pub(super) record: Vec<u8>,
}

impl Book {
    pub(super) fn spend(&mut self, charge: &Charge, now: Instant) -> io::Result<()> {
        let at = self.clock.wall(now);
        if self.batch == 1 || *charge != Charge::ONE {
            let times = NonZeroU32::MIN;
            let charge = self.known(charge);
            return self.write(&Record::Spent(Spent { at, times, charge }));
        }
        let reserved = &mut self.reserved;
        if reserved.used == reserved.turns || at > reserved.until {
            self.reserve(at, self.batch)?;
        }
        self.reserved.used += 1;
        Ok(())
    }

    /// `charge` with the keys that the file tells apart: none if the kinds change
    /// this instant.
    pub(super) fn known(&self, charge: &Charge) -> Charge {
        match charge.kinds == self.kinds {
            true => charge.clone(),
            false => Charge::of(charge.cost),
        }
    }

    /// Reserves so many turns, and says what was used of the last ones.
    pub(super) fn reserve(&mut self, at: u64, turns: u32) -> io::Result<()> {
        let next = Reserved {
            at,
            until: at.saturating_add(nanos(SPAN)),
            turns,
            used: self.reserved.used,
        };
        self.write(&Record::Reserved(next))?;
        self.reserved = Reserved { used: 0, ..next };
        Ok(())
    }

    /// Closes the reservation if it ends before `now`.
    pub(super) fn settle(&mut self, now: u64) -> io::Result<()> {
        if self.reserved.turns > 0 && self.reserved.until < now {
            self.reserve(self.reserved.until, 0)?;
        }
        Ok(())
    }

    pub(super) fn write(&mut self, record: &Record) -> io::Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        self.record.clear();
        record.write(&mut self.record);
        self.dirty = true;
        self.length += self.record.len() as u64;
        file.write_all(&self.record)
    }
}
