//! The cells of earlier runs: the whole matrix takes hours, and a run that was ended goes on where it stopped.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::Result;
use crate::table::enforced::Figures;

/// Stands between what a line of the file is about and its figures.
const COLON: &str = ": ";

/// The file that `--keep` names, if any, and what of it has not been taken yet.
#[derive(Debug, Default)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    found: HashMap<String, Vec<Figures>>,
}

impl Kept {
    /// Reads the file, which need not exist yet.
    pub(super) fn read(path: Option<&Path>) -> Result<Self> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        let mut found: HashMap<String, Vec<Figures>> = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let read = line
                .split_once(COLON)
                .and_then(|(what, figures)| Some((what.to_owned(), Figures::from_line(figures)?)));
            let place = || format!("{}, line {}", path.display(), number + 1);
            let (what, figures) = read.ok_or_else(|| format!("{}: not a cell", place()))?;
            found.entry(what).or_default().push(figures);
        }
        Ok(Self {
            path: Some(path.to_owned()),
            found,
        })
    }

    /// One measurement of `what`, if there is one left.
    pub(super) fn take(&mut self, what: &str) -> Option<Figures> {
        self.found.get_mut(what)?.pop()
    }

    /// Adds a measurement to the file.
    pub(super) fn add(&self, what: &str, figures: &Figures) -> Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        let mut file = OpenOptions::new().append(true).create(true).open(path)?;
        writeln!(file, "{what}{COLON}{}", figures.line())?;
        Ok(())
    }
}

/// What tells one build of a program from another.
pub(super) fn fingerprint(program: &Path) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    fs::read(program)?.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_is_taken_once_for_each_time_it_was_measured() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        let figures = Figures {
            arrived: 1000,
            refused: 1,
            not_200: 2,
            utilization: 0.999_123_456,
            fullest: 10,
            deviation_p50: 1400,
            deviation_p99: 99_600,
            longest_pause: 77,
            starved: 0.001,
        };
        let kept = Kept::read(Some(&path)).unwrap();
        kept.add("a, 60 s", &figures).unwrap();
        kept.add("a, 60 s", &figures).unwrap();
        let mut kept = Kept::read(Some(&path)).unwrap();
        assert_eq!(kept.take("a, 20 s"), None);
        assert_eq!(kept.take("a, 60 s"), Some(figures));
        assert_eq!(kept.take("a, 60 s"), Some(figures));
        assert_eq!(kept.take("a, 60 s"), None);
    }

    #[test]
    fn a_file_that_holds_something_else_is_named_with_its_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cells");
        fs::write(&path, "a, 60 s: 1 2\n").unwrap();
        let error = Kept::read(Some(&path)).unwrap_err().to_string();
        assert!(error.ends_with("cells, line 1: not a cell"), "{error}");
    }
}
