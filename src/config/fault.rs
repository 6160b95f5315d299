//! What is wrong with one value, in words.
//!
//! Leaf parsers and checks return a [`Fault`]: a text that goes after the
//! position and the path, and a hint on what was probably meant. Where the
//! value stands in the file is added by `report`, once. Everything that quotes
//! the user goes through [`quote`], so that control characters and passwords
//! in URLs never reach a terminal or a log.

use std::borrow::Cow;
use std::fmt;
use std::io;

/// The longest value that is repeated in full, in characters.
const QUOTED: usize = 80;

/// What stands between text and hint while a fault travels through serde.
const SEPARATOR: &str = "\nhint: ";

/// What is wrong with one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    /// The value, what is wrong with it, and what was expected.
    pub(super) text: String,
    /// What was probably meant, or what to do.
    pub(super) hint: Option<String>,
}

impl Fault {
    /// A fault without a hint.
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            hint: None,
        }
    }

    /// Adds what to do.
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds what was probably meant, if anything is near.
    pub(super) fn meant(self, near: Option<impl fmt::Display>) -> Self {
        match near {
            Some(near) => self.hint(format!("did you mean `{near}`?")),
            None => self,
        }
    }

    /// Reads back what `Display` wrote.
    pub(super) fn parse(message: &str) -> Self {
        match message.split_once(SEPARATOR) {
            Some((text, hint)) => Self::new(text).hint(hint),
            None => Self::new(message),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        match &self.hint {
            Some(hint) => write!(f, "{SEPARATOR}{hint}"),
            None => Ok(()),
        }
    }
}

/// `value` in backticks, on one line, shortened, without a URL's userinfo.
pub(super) fn quote(value: &str) -> String {
    let masked = mask(value);
    let mut shown = String::new();
    for c in masked.chars().take(QUOTED) {
        if c.is_control() {
            shown.extend(c.escape_debug());
        } else {
            shown.push(c);
        }
    }
    if masked.chars().nth(QUOTED).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// Why an operation failed, without the number of the error.
pub(super) fn reason(error: &io::Error) -> String {
    let mut reason = error.to_string();
    if let Some(end) = reason.rfind(" (os error ") {
        reason.truncate(end);
    }
    reason
}

/// Whether `text` may hold a user name and a password before a host.
pub(super) fn has_userinfo(text: &str) -> bool {
    match (text.find(':'), text.rfind('@')) {
        (Some(colon), Some(at)) => colon < at,
        _ => false,
    }
}

/// The candidate nearest to `given`, if it is near enough to be a slip.
pub(super) fn nearest<'a>(
    given: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let given = given.to_lowercase();
    let length = given.chars().count();
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(&given, candidate), candidate))
        .filter(|&(distance, _)| distance < length && distance <= (length / 3).max(1))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

fn mask(value: &str) -> Cow<'_, str> {
    if !has_userinfo(value) {
        return Cow::Borrowed(value);
    }
    // What stands before may itself be a user name.
    let scheme = value
        .find("://")
        .filter(|end| !value[..*end].contains([':', '@']));
    let scheme = scheme.map_or(0, |end| end + "://".len());
    let at = value.rfind('@').unwrap_or(value.len());
    Cow::Owned(match scheme {
        start if start <= at => format!("{}...{}", &value[..start], &value[at..]),
        _ => format!("...{}", &value[at..]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_the_way_through_serde() {
        let fault = Fault::new("`x` is wrong").meant(Some("y"));
        assert_eq!(Fault::parse(&fault.to_string()), fault);
        let bare = Fault::new("`x` is wrong");
        assert_eq!(Fault::parse(&bare.to_string()), bare);
    }

    #[test]
    fn quotes_on_one_line_without_passwords() {
        assert_eq!(quote("a\nb\u{1b}"), "`a\\nb\\u{1b}`");
        assert_eq!(quote("https://u:p@ss@h"), "`https://...@h`");
        assert_eq!(quote("u:p@h"), "`...@h`");
        assert_eq!(quote(&"x".repeat(100)).len(), QUOTED + 5);
    }

    #[test]
    fn suggests_only_what_is_near() {
        assert_eq!(nearest("timout", ["url", "timeout"]), Some("timeout"));
        assert_eq!(nearest("x", ["s", "m"]), None);
        assert_eq!(nearest("banana", ["url", "timeout"]), None);
    }
}
