//! The line of a problem with a caret under it, unless it may hold a secret.
//!
//! Positions count lines and characters from one. Three things hide a line: a
//! part of it is the value of a header field; it names something that is
//! secret by custom, or holds a URL with userinfo; or, where the text is not
//! TOML and nothing is certain, `headers` is written anywhere above it in the
//! same table. Hiding too much costs a look into the file, hiding too little
//! costs a key.

use std::ops::Range;

use crate::config::fault::has_userinfo;

/// Parts of names that are secret by custom.
const SECRET_NAMES: [&str; 10] = [
    "authorization",
    "api-key",
    "api_key",
    "apikey",
    "bearer",
    "cookie",
    "password",
    "secret",
    "-token",
    "_token",
];

/// How the headers of known tables begin.
const TABLES: [&str; 4] = ["[client", "[log", "[shutdown", "[upstream"];

/// Cuts lines out of a text.
#[derive(Debug)]
pub(super) struct Excerpts<'t> {
    text: &'t str,
    secrets: Vec<Range<usize>>,
}

impl<'t> Excerpts<'t> {
    /// For `text`, in which the values of header fields stand at `secrets`.
    pub(super) fn new(text: &'t str, secrets: Vec<Range<usize>>) -> Self {
        Self { text, secrets }
    }

    /// The bytes of the line in which `at` begins, without its end.
    pub(super) fn line(&self, at: &Range<usize>) -> Range<usize> {
        let start = self.text[..at.start].rfind('\n').map_or(0, |end| end + 1);
        let end = self.text[at.start..].find('\n');
        let end = end.map_or(self.text.len(), |end| at.start + end);
        let line = self.text[start..end].trim_end_matches('\r');
        start..start + line.len()
    }

    /// Line and column, in characters, from one.
    pub(super) fn position(&self, at: &Range<usize>) -> (usize, usize) {
        let line = self.line(at);
        let number = self.text[..line.start].matches('\n').count() + 1;
        let column = self.text[line.start..at.start].chars().count() + 1;
        (number, column)
    }

    /// The line of a value.
    pub(super) fn value(&self, at: &Range<usize>) -> Option<String> {
        let line = self.line(at);
        let shown = &self.text[line.clone()];
        (!self.is_secret(&line)).then(|| self.draw(at, shown))
    }

    /// The line of a key that means nothing: what it holds is not shown.
    pub(super) fn key(&self, at: &Range<usize>) -> Option<String> {
        let line = self.line(at);
        let end = at.end.clamp(line.start, line.end);
        if !self.text[end..line.end].trim_start().starts_with('=') {
            return self.value(at);
        }
        let shown = format!("{} = ...", &self.text[line.start..end]);
        let before = line.start..at.start.max(line.start);
        (!self.is_secret(&before)).then(|| self.draw(at, &shown))
    }

    /// The line of an error of syntax, where nothing is certain.
    pub(super) fn doubtful(&self, at: &Range<usize>) -> Option<String> {
        let line = self.line(at);
        let table = self.text[..line.end]
            .rmatch_indices('\n')
            .map(|(end, _)| end + 1)
            .find(|&start| {
                let line = self.text[start..].trim_start();
                TABLES.iter().any(|table| line.starts_with(table))
            });
        let section = &self.text[table.unwrap_or(0)..line.end];
        if names_headers(section) {
            return None;
        }
        self.value(at)
    }

    fn is_secret(&self, line: &Range<usize>) -> bool {
        let text = self.text[line.clone()].to_lowercase();
        has_userinfo(&text)
            || SECRET_NAMES
                .iter()
                .flat_map(|name| text.match_indices(name))
                .any(|(start, name)| !is_mention(&text[..start], &text[start + name.len()..]))
            || self
                .secrets
                .iter()
                .any(|secret| secret.start < line.end && line.start < secret.end)
    }

    fn draw(&self, at: &Range<usize>, shown: &str) -> String {
        let (number, column) = self.position(at);
        let number = number.to_string();
        let gutter = " ".repeat(number.len());
        let line = self.line(at);
        let marked = at.end.min(line.end).max(at.start);
        let carets = "^".repeat(self.text[at.start..marked].chars().count().max(1));
        let indent: String = shown
            .chars()
            .chain(std::iter::repeat(' '))
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let shown: String = shown.chars().map(printable).collect();
        format!("{gutter} |\n{number} | {shown}\n{gutter} | {indent}{carets}")
    }
}

/// Whether the name between `before` and `after` is part of a value that only
/// mentions a field, as `per = "header:authorization"` does.
fn is_mention(before: &str, after: &str) -> bool {
    let in_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let begins = before.trim_end_matches(in_word).ends_with("\"header:");
    let rest = after.trim_start_matches(in_word).strip_prefix('"');
    begins && rest.is_some_and(|rest| !rest.trim_start().starts_with('='))
}

/// `headers` as a word of its own, and not as the end of `max_headers`.
fn names_headers(section: &str) -> bool {
    section.match_indices("headers").any(|(start, _)| {
        !section[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// Nothing that moves a terminal's cursor.
fn printable(c: char) -> char {
    if c.is_control() && c != '\t' {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str, part: &str) -> Range<usize> {
        let start = text.find(part).unwrap();
        start..start + part.len()
    }

    #[test]
    fn points_at_characters_and_keeps_tabs() {
        let text = "a = 1\n\tü = \"wrong\"\r\n";
        let excerpts = Excerpts::new(text, Vec::new());
        let place = at(text, "\"wrong\"");
        assert_eq!(excerpts.position(&place), (2, 6));
        assert_eq!(
            excerpts.value(&place).unwrap(),
            "  |\n2 | \tü = \"wrong\"\n  | \t    ^^^^^^^"
        );
    }

    #[test]
    fn stays_on_the_first_line_of_a_long_value() {
        let text = "a = [\n1,\n]";
        let excerpts = Excerpts::new(text, Vec::new());
        assert_eq!(
            excerpts.value(&at(text, "[\n1,\n]")).unwrap(),
            "  |\n1 | a = [\n  |     ^"
        );
    }

    #[test]
    fn points_behind_the_end_of_the_text() {
        let excerpts = Excerpts::new("a = [", Vec::new());
        assert_eq!(
            excerpts.value(&(5..5)).unwrap(),
            "  |\n1 | a = [\n  |      ^"
        );
        assert!(Excerpts::new("", Vec::new()).value(&(0..0)).is_some());
    }

    #[test]
    fn hides_what_may_be_a_secret() {
        let text = "x = \"s3cret-value\"\ny = 1\nCookie = 1\nu = \"https://u:p@h\"\n";
        let excerpts = Excerpts::new(text, vec![at(text, "\"s3cret-value\"")]);
        assert!(excerpts.value(&at(text, "x =")).is_none());
        assert!(excerpts.value(&at(text, "y")).is_some());
        assert!(excerpts.value(&at(text, "Cookie")).is_none());
        assert!(excerpts.value(&at(text, "\"https://u:p@h\"")).is_none());
    }

    #[test]
    fn shows_a_line_that_only_mentions_a_field() {
        let text = "per = \"header:x-authorization\"\nx = \"header:authorization: s3\"";
        let excerpts = Excerpts::new(text, Vec::new());
        assert!(excerpts.value(&at(text, "per")).is_some());
        assert!(excerpts.value(&at(text, "x =")).is_none());
    }

    #[test]
    fn an_unknown_key_is_shown_without_its_value() {
        let text = "autorization = \"Bearer s3\"";
        let excerpts = Excerpts::new(text, Vec::new());
        assert_eq!(
            excerpts.key(&at(text, "autorization")).unwrap(),
            "  |\n1 | autorization = ...\n  | ^^^^^^^^^^^^"
        );
    }

    #[test]
    fn hides_broken_text_that_may_be_among_headers() {
        let text = "[client]\nmax_headers = x\n[upstream.a]\nheaders = {\nx = \"s3\n";
        let excerpts = Excerpts::new(text, Vec::new());
        assert!(excerpts.doubtful(&at(text, "x\n[")).is_some());
        assert!(excerpts.doubtful(&at(text, "\"s3")).is_none());
    }
}
