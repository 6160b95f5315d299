//! The files of one lane's journal.
//!
//! `LANE.past` holds what was spent up to some file, thinned out; `LANE.1`,
//! `LANE.2`, ... hold the records since then, in the order in which they were
//! written; only the last is written to. A new `LANE.past` takes the place of
//! the old in one step, and says which files it makes superfluous, so the
//! program may be killed between any two steps.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use super::clock::Reading;
use super::past::Past;
use super::record::{Record, head};

/// Where a lane's journal lies, and the seed of its keys.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) folder: PathBuf,
    pub(super) lane: String,
    pub(super) seed: u64,
}

/// What was found.
#[derive(Debug)]
pub(super) enum Found {
    Nothing,
    /// Which file, and that it cannot be relied on.
    Damaged(PathBuf),
    Past(Past),
}

impl Files {
    /// What the files up to number `last` say.
    ///
    /// # Errors
    ///
    /// A file cannot be read.
    pub(super) fn read(&self, last: u64) -> io::Result<Found> {
        let numbers = self.numbers()?;
        let path = self.past();
        let file = match fs::read(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(match numbers.is_empty() {
                    true => Found::Nothing,
                    false => Found::Damaged(path),
                });
            }
            Err(error) => return Err(error),
        };
        let mut past = Past::default();
        let Some((covered, true)) = past.read(&file, self.seed) else {
            return Ok(Found::Damaged(path));
        };
        let mut ended = true;
        let since = numbers
            .into_iter()
            .filter(|number| (covered + 1..=last).contains(number));
        for (number, expected) in since.zip(covered + 1..) {
            let path = self.numbered(number);
            let entries = past.len();
            let read = past.read(&fs::read(&path)?, self.seed);
            match read {
                Some((found, end)) if found == number && number == expected => {
                    // The end of one that is not the last was written before
                    // anything in the next.
                    if !ended && past.len() > entries {
                        return Ok(Found::Damaged(path));
                    }
                    ended = end;
                }
                _ => return Ok(Found::Damaged(path)),
            }
        }
        Ok(Found::Past(past))
    }

    /// Makes `past` stand for all files up to `number`, and removes those.
    ///
    /// # Errors
    ///
    /// It cannot be written; then everything stays as it was.
    pub(super) fn replace(&self, past: &Past, number: u64) -> io::Result<()> {
        let draft = self.folder.join(format!("{}.draft", self.lane));
        let mut file = open(&draft)?;
        file.write_all(&past.write(self.seed, number))?;
        file.sync_all()?;
        fs::rename(&draft, self.past())?;
        File::open(&self.folder)?.sync_all()?;
        for old in self.numbers()?.into_iter().filter(|old| *old <= number) {
            fs::remove_file(self.numbered(old))?;
        }
        Ok(())
    }

    /// Begins file `number`, whose times are by the clock of `reading`; the file
    /// and its length.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    pub(super) fn begin(
        &self,
        number: u64,
        kinds: &[u64],
        reading: Option<Reading>,
    ) -> io::Result<(File, u64)> {
        let mut content = head(self.seed, number);
        Record::Kinds(kinds.to_vec()).write(&mut content);
        if let Some(reading) = reading {
            Record::Read(reading).write(&mut content);
        }
        let mut file = open(&self.numbered(number))?;
        file.write_all(&content)?;
        Ok((file, content.len() as u64))
    }

    /// Removes everything, so that nobody relies on it.
    ///
    /// # Errors
    ///
    /// Something is left.
    pub(super) fn forget(&self) -> io::Result<()> {
        // This one first: without it the others are not relied on.
        let past = match fs::remove_file(self.past()) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        for number in self.numbers()? {
            fs::remove_file(self.numbered(number))?;
        }
        past
    }

    /// The numbers of the files that there are, ascending.
    pub(super) fn numbers(&self) -> io::Result<Vec<u64>> {
        let mut numbers = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let name = entry?.file_name();
            let number = name.to_str().and_then(|name| name.rsplit_once('.'));
            let number = number.filter(|(lane, _)| *lane == self.lane);
            numbers.extend(number.and_then(|(_, number)| number.parse::<u64>().ok()));
        }
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn past(&self) -> PathBuf {
        self.folder.join(format!("{}.past", self.lane))
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{}.{number}", self.lane))
    }
}

/// An empty file that only its owner may read.
fn open(path: &PathBuf) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)
}
