//! Problems of a file, and how they are shown.
//!
//! A [`Report`] collects while the file is read and checked; [`Problems`] is
//! what is left to print: sorted, without repetitions and follow-ups, each
//! with position, path, line and caret. A line that holds the value of a
//! header field, or looks as if it held a secret, is never shown.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::Path;

use super::fault::{Fault, reason};
use super::file::Tree;

mod excerpt;

use excerpt::Excerpts;

/// Every problem of a file, in the order of the file, ready to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// Each as it is printed; at least one.
    list: Vec<String>,
}

impl Problems {
    /// The one problem of a file that cannot be read at all.
    pub(super) fn unreadable(path: &Path, error: &io::Error) -> Self {
        let reason = reason(error);
        let hint = match error.kind() {
            io::ErrorKind::InvalidData => "write the file as UTF-8",
            io::ErrorKind::PermissionDenied => "let the user that runs pacegate read it",
            _ => "name the file with --config",
        };
        let path = path.display();
        Self {
            list: vec![format!(
                "pacegate: {path}: cannot be read: {reason}\nhint: {hint}"
            )],
        }
    }

    /// How many there are.
    #[expect(
        clippy::len_without_is_empty,
        reason = "there is always at least one problem"
    )]
    pub fn len(&self) -> usize {
        self.list.len()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.list.join("\n\n"))
    }
}

impl std::error::Error for Problems {}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Report<'t> {
    text: &'t str,
    tree: Tree<'t>,
    list: Vec<Problem>,
    /// Where the structure of the file is in doubt from.
    cut: Option<usize>,
}

#[derive(Debug, PartialEq, Eq)]
struct Problem {
    /// Where; `None` when it concerns the whole file.
    at: Option<Range<usize>>,
    path: String,
    fault: Fault,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The text is not TOML; nothing is known of what surrounds it.
    Syntax,
    /// A key that means nothing; nothing is known of its value.
    Key,
    /// A value.
    Value,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str, tree: Tree<'t>) -> Self {
        Self {
            text,
            tree,
            list: Vec::new(),
            cut: None,
        }
    }

    /// The file that is reported on.
    pub(super) fn tree(&self) -> &Tree<'t> {
        &self.tree
    }

    /// Whether nothing was found.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds what is wrong with the value at `span`.
    pub(super) fn add(&mut self, span: Range<usize>, fault: Fault) {
        let path = self.tree.path(&span);
        self.push(Some(span), path, fault, Kind::Value);
    }

    /// Adds what is wrong with the value at `span`, if anything is.
    pub(super) fn check<T>(&mut self, span: Range<usize>, result: Result<T, Fault>) -> Option<T> {
        result.map_err(|fault| self.add(span, fault)).ok()
    }

    /// Adds that `path` is missing from the table at `span`, or from the whole
    /// file; unless it is there and is wrong in itself.
    pub(super) fn missing(&mut self, span: Option<Range<usize>>, path: String, fault: Fault) {
        if !self.is_lost(&path) {
            self.push(span, path, fault, Kind::Value);
        }
    }

    /// Adds an error of syntax.
    pub(super) fn syntax(&mut self, span: Range<usize>, fault: Fault) {
        self.push(Some(span), String::new(), fault, Kind::Syntax);
    }

    /// Adds what serde refused, and notes that its value is not there; nor is
    /// that of `meant`, the key beside it that was probably meant.
    pub(super) fn lose(&mut self, span: &Range<usize>, fault: Fault, meant: Option<&str>) {
        let unknown = self.tree.spot(span).is_some_and(|spot| spot.is_key);
        let kind = if unknown { Kind::Key } else { Kind::Value };
        let path = self.tree.path(span);
        self.push(Some(span.clone()), path, fault, kind);
        self.tree.lose(span, meant);
    }

    /// Whether `path`, or what holds it, was written but could not be read.
    pub(super) fn is_lost(&self, path: &str) -> bool {
        self.tree.is_lost(path)
    }

    /// Shows nothing that stands behind `offset`.
    pub(super) fn ignore_after(&mut self, offset: usize) {
        self.cut = Some(offset);
    }

    /// What there is to print about the file called `name`.
    pub(super) fn finish(mut self, name: &str) -> Problems {
        let excerpts = Excerpts::new(self.text, self.tree.secrets());
        let broken: Vec<_> = self
            .list
            .iter()
            .filter(|problem| problem.kind == Kind::Syntax)
            .filter_map(|problem| problem.at.as_ref().map(|at| excerpts.line(at)))
            .collect();
        let cut = self.cut.unwrap_or(usize::MAX);
        self.list.retain(|problem| match &problem.at {
            None => true,
            Some(at) if at.start > cut => false,
            Some(at) => problem.kind == Kind::Syntax || !broken.contains(&excerpts.line(at)),
        });
        self.list.sort_by_key(Problem::order);
        self.list.dedup();
        let list = self.list.iter();
        Problems {
            list: list
                .map(|problem| problem.render(name, &excerpts))
                .collect(),
        }
    }

    fn push(&mut self, at: Option<Range<usize>>, path: String, fault: Fault, kind: Kind) {
        let at = at.map(|at| {
            let start = self.text.floor_char_boundary(at.start);
            start..self.text.floor_char_boundary(at.end).max(start)
        });
        self.list.push(Problem {
            at,
            path,
            fault,
            kind,
        });
    }
}

impl Problem {
    fn order(&self) -> (Option<usize>, String) {
        (self.at.as_ref().map(|at| at.start), self.path.clone())
    }

    fn render(&self, name: &str, excerpts: &Excerpts<'_>) -> String {
        let mut out = format!("pacegate: {name}:");
        let excerpt = self.at.as_ref().and_then(|at| {
            let (line, column) = excerpts.position(at);
            out.push_str(&format!("{line}:{column}:"));
            match self.kind {
                Kind::Syntax => excerpts.doubtful(at),
                Kind::Key => excerpts.key(at),
                Kind::Value => excerpts.value(at),
            }
        });
        if !self.path.is_empty() {
            out.push_str(&format!(" {}:", self.path));
        }
        out.push_str(&format!(" {}", self.fault.text));
        let hidden = self.at.is_some() && excerpt.is_none();
        if let Some(excerpt) = excerpt {
            out.push_str(&format!("\n{excerpt}"));
        }
        match &self.fault.hint {
            // The hint of an error of syntax repeats what is written.
            Some(_) if hidden && self.kind == Kind::Syntax => {}
            Some(hint) => out.push_str(&format!("\nhint: {hint}")),
            None => {}
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_told_without_numbers() {
        let path = Path::new("/nonexistent/proxy.toml");
        let problems = crate::config::Config::load(path).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(
            problems.to_string(),
            "pacegate: /nonexistent/proxy.toml: cannot be read: No such file or directory\n\
             hint: name the file with --config"
        );
    }

    #[test]
    fn a_file_that_is_not_text_says_so() {
        let error = io::Error::new(
            io::ErrorKind::InvalidData,
            "stream did not contain valid UTF-8",
        );
        let problems = Problems::unreadable(Path::new("proxy.toml"), &error);
        assert_eq!(
            problems.to_string(),
            "pacegate: proxy.toml: cannot be read: stream did not contain valid UTF-8\n\
             hint: write the file as UTF-8"
        );
    }
}
