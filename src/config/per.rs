//! What tells callers apart, as the file writes it: `header:authorization`,
//! `cookie:sid`, `address`, `segment:1`.
//!
//! [`Per`]'s `Display` is canonical, so equal kinds have equal texts: field
//! names are in lower case, the names of cookies as they are.

use std::fmt;
use std::num::NonZeroUsize;

use super::Per;
use super::fault::{Fault, nearest, quote};

/// The forms that are accepted, for messages.
const EXPECTED: &str = "`header:NAME`, `cookie:NAME`, `address` or `segment:NUMBER`";

/// The last segment that is looked for; longer paths are not told apart there.
const LAST_SEGMENT: usize = 32;

/// Reads a kind of key. `field` reads the name of a field.
///
/// # Errors
///
/// What is wrong with the text, and what was probably meant.
pub(super) fn parse(
    text: &str,
    field: impl Fn(&str) -> Result<String, Fault>,
) -> Result<Per, Fault> {
    match text.split_once(':') {
        None if text == "address" => Ok(Per::Address),
        Some(("header", name)) => field(name).map(Per::Header),
        Some(("cookie", name)) => cookie(name).map(Per::Cookie),
        Some(("segment", number)) => segment(number).map(Per::Segment),
        _ => {
            let fault = Fault::new(format!("{} is not known, expected {EXPECTED}", quote(text)));
            Err(fault.meant(suggest(text)))
        }
    }
}

impl fmt::Display for Per {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Cookie(name) => write!(f, "cookie:{name}"),
            Self::Address => f.write_str("address"),
            Self::Segment(number) => write!(f, "segment:{number}"),
        }
    }
}

/// The name of a cookie (RFC 6265, section 4.1.1: a token).
fn cookie(name: &str) -> Result<String, Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    if name.is_empty() || !name.chars().all(good) {
        let text = format!(
            "{} is not the name of a cookie, expected one such as `cookie:sid`",
            quote(name)
        );
        return Err(Fault::new(text));
    }
    Ok(name.to_owned())
}

fn segment(number: &str) -> Result<NonZeroUsize, Fault> {
    let given = number.parse::<NonZeroUsize>().ok();
    given
        .filter(|number| number.get() <= LAST_SEGMENT)
        .ok_or_else(|| {
            Fault::new(format!(
                "{} is not a segment of the path, expected 1 to {LAST_SEGMENT}",
                quote(number)
            ))
        })
}

fn suggest(text: &str) -> Option<String> {
    let (kind, name) = match text.split_once([':', ' ', '=']) {
        Some((kind, name)) => (kind, name.trim()),
        None => (text, ""),
    };
    // What others call them.
    let kind = match kind {
        "ip" => "address",
        "path" => "segment",
        kind => kind,
    };
    let kinds = ["header", "cookie", "address", "segment"];
    let near = kinds.into_iter().find(|known| *known == kind);
    let near = near.or_else(|| nearest(kind, kinds))?;
    Some(match (near, name) {
        ("address", _) => near.to_owned(),
        ("segment", number) if segment(number).is_err() => "segment:1".to_owned(),
        ("header", "") => "header:authorization".to_owned(),
        (_, "") => "cookie:sid".to_owned(),
        (_, name) => format!("{near}:{name}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Per, Fault> {
        parse(text, |name| Ok(name.to_lowercase()))
    }

    #[test]
    fn every_form_has_one_text() {
        for (given, canonical) in [
            ("header:Authorization", "header:authorization"),
            ("cookie:Sid", "cookie:Sid"),
            ("address", "address"),
            ("segment:01", "segment:1"),
        ] {
            assert_eq!(read(given).unwrap().to_string(), canonical);
        }
        for bad in [
            "segment:0",
            "segment:33",
            "segment:x",
            "cookie:",
            "cookie:a b",
            "address:1",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_slip_is_recognized() {
        for (given, meant) in [
            ("heder:authorization", "header:authorization"),
            ("header", "header:authorization"),
            ("header=x-key", "header:x-key"),
            ("adress", "address"),
            ("segement:2", "segment:2"),
            ("ip", "address"),
            ("path:2", "segment:2"),
            ("path:/v1", "segment:1"),
        ] {
            let hint = read(given).unwrap_err().hint.unwrap();
            assert_eq!(hint, format!("did you mean `{meant}`?"));
        }
        assert_eq!(read("banana").unwrap_err().hint, None);
    }
}
