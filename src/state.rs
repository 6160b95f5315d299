//! What was spent, and the pauses that upstreams asked for, kept beyond the end of the
//! process.
//!
//! A [`State`] is a folder that belongs to one process: its file `seed` is locked
//! as long as that runs, and holds what goes into the hashes of keys. Each lane
//! has a [`Journal`] there, which hands out the [`Past`] of earlier runs.
//!
//! A lane without a journal, or with a damaged one, has spent what `state.missing`
//! says. If that leaves it to us, nothing in a folder that is new, where nothing was
//! ever spent, and everything in any other: the lane may have had another name.
//!
//! No task runs here; the lane calls on its cores, the daemon once a second and
//! at the end of a stop.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::hash::BuildHasher;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::config;
use checksum::checksum;
pub(crate) use clock::Clock;
use files::Files;
pub(crate) use journal::{Journal, reach};
pub(crate) use past::Past;

mod book;
mod checksum;
mod clock;
mod files;
mod journal;
mod past;
mod record;

/// The folder of this process, if it has one.
#[derive(Debug)]
pub(crate) struct State {
    seed: [u64; 2],
    folder: Option<Folder>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    missing: config::Missing,
    /// Whether nothing of ours was ever in it.
    new: bool,
    /// Which start of the machine this is.
    boot: Option<u64>,
    /// Held until the process ends.
    _lock: File,
}

/// Why what was spent cannot be kept.
#[derive(Debug)]
pub struct StateError {
    path: PathBuf,
    cause: Option<io::Error>,
}

impl State {
    /// What the hashes of keys depend on.
    pub(crate) fn seed(&self) -> [u64; 2] {
        self.seed
    }

    /// Takes the folder of the settings for this process alone.
    ///
    /// # Errors
    ///
    /// It cannot be written, or belongs to another process.
    pub(crate) fn open(settings: &config::State) -> Result<Self, StateError> {
        let Some(path) = &settings.dir else {
            return Ok(Self {
                seed: random(),
                folder: None,
            });
        };
        let fail = |error| StateError::new(path, error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(fail)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let mut lock = options.open(path.join("seed")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StateError {
                    path: path.clone(),
                    cause: None,
                });
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        // It is ours now, so nobody else can have begun it meanwhile.
        let new = is_new(path, &lock).map_err(fail)?;
        if new {
            tracing::info!(folder = %path.display(), "the state is new");
            // Should the machine lose power, it must not seem new again. Not
            // everybody may read what is above; then this is left to the system.
            let above = path.parent().map(File::open);
            let _ = above.and_then(|above| above.ok()?.sync_all().ok());
        }
        Ok(Self {
            seed: seed(&mut lock).map_err(fail)?,
            folder: Some(Folder {
                path: path.clone(),
                missing: settings.missing,
                new,
                boot: clock::boot(),
                _lock: lock,
            }),
        })
    }

    /// All lanes that the program starts with have their journals: one that comes
    /// now may be one of them under another name.
    pub(crate) fn has_begun(&mut self) {
        if let Some(folder) = &mut self.folder {
            folder.new = false;
        }
    }

    /// The journal of the upstream with `settings`, and what was spent before;
    /// `None` if nothing is kept.
    ///
    /// # Errors
    ///
    /// A file cannot be read or written.
    pub(crate) fn journal(
        &self,
        settings: &config::Upstream,
        clock: Clock,
    ) -> Result<Option<(Journal, Past)>, StateError> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let files = Files {
            folder: folder.path.clone(),
            lane: settings.name.clone(),
            seed: self.seed[0] ^ self.seed[1],
        };
        Journal::open(files, settings, folder.is_fresh(), clock, folder.boot)
            .map(Some)
            .map_err(|error| StateError::new(&folder.path, error))
    }
}

impl Folder {
    /// Whether a lane of which nothing is known has spent nothing, not everything.
    fn is_fresh(&self) -> bool {
        match self.missing {
            config::Missing::Auto => self.new,
            config::Missing::Spent => false,
            config::Missing::Fresh => true,
        }
    }
}

impl StateError {
    fn new(path: &Path, error: io::Error) -> Self {
        Self {
            path: path.to_owned(),
            cause: Some(error),
        }
    }
}

/// Whether nothing was ever kept in a folder whose `seed` this is.
fn is_new(path: &Path, seed: &File) -> io::Result<bool> {
    let nothing = seed.metadata()?.len() == 0;
    // Whatever else there is: nobody knows what it was for.
    Ok(nothing && fs::read_dir(path)?.nth(1).is_none())
}

/// The seed in the file, or a new one: then no journal can be relied on.
fn seed(file: &mut File) -> io::Result<[u64; 2]> {
    let mut content = Vec::new();
    file.take(64).read_to_end(&mut content)?;
    if let Some((seed, sum)) = content.split_first_chunk::<16>()
        && sum == checksum(seed).to_le_bytes()
    {
        let (first, second) = seed.split_at(8);
        let word = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes);
        return Ok([first, second].map(|half| word(half).unwrap_or_default()));
    }
    let seed = random();
    let bytes: Vec<u8> = seed.iter().flat_map(|word| word.to_le_bytes()).collect();
    file.rewind()?;
    file.set_len(0)?;
    file.write_all(&bytes)?;
    file.write_all(&checksum(&bytes).to_le_bytes())?;
    file.sync_all()?;
    Ok(seed)
}

/// The standard library seeds its hash maps from the system's randomness.
fn random() -> [u64; 2] {
    [0, 1].map(|word: u64| RandomState::new().hash_one(word))
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        match self.cause {
            None => write!(f, "state.dir: `{path}` is in use by another pacegate"),
            Some(_) => write!(f, "state.dir: `{path}` cannot be used"),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        let cause = self.cause.as_ref()?;
        Some(cause)
    }
}

#[cfg(test)]
mod tests;
