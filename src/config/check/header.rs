//! `[upstream.NAME.headers]`: fields that are set on every request.
//!
//! A value is a secret until proven otherwise: no message here repeats one, nor
//! the content of a file, nor the name of one that may be a secret put in the wrong
//! place. Fields by which HTTP frames messages and manages connections belong to the
//! proxy, and are refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use http::{HeaderName, HeaderValue};
use toml::Spanned;

use super::Places;
use crate::config::Value;
use crate::config::fault::{Fault, quote, reason};
use crate::config::file::{Header, Named, Source};
use crate::config::report::Report;

/// Names that RFC 9110, section 7.6.1, and framing keep for the proxy.
const OURS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-authenticate",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Names whose values are secrets by their meaning.
const SECRET: [&str; 4] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "x-api-key",
];

/// The longest value, in bytes; more would not pass any server.
const LONGEST: u64 = 64 << 10;

/// The longest end of a file's name, in bytes: the last part of a token is longer.
const LONGEST_EXTENSION: usize = 10;

/// Checks the fields of one upstream, in the order of the file.
pub(super) fn all(
    written: &Named<Header>,
    places: &Places,
    report: &mut Report<'_>,
) -> Vec<(String, Value)> {
    let mut entries: Vec<_> = written.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let mut fields: Vec<(String, Value)> = Vec::new();
    for (name, header) in entries {
        let known = report.check(name.span(), field_name(name.get_ref()));
        let known = known.filter(|known| {
            let twice = fields.iter().any(|(other, _)| other == known);
            if twice {
                let text = format!("{} is there twice, names differ only in case", quote(known));
                report.add(name.span(), Fault::new(text));
            }
            !twice
        });
        let value = value(known.as_deref(), header, places, report);
        fields.extend(known.zip(value));
    }
    fields
}

/// A field that may be configured, in lower case.
pub(super) fn field_name(name: &str) -> Result<String, Fault> {
    let Ok(known) = HeaderName::from_bytes(name.as_bytes()) else {
        let text = format!(
            "{} is not a field name, expected letters, digits and `-`",
            quote(name)
        );
        return Err(Fault::new(text));
    };
    if OURS.contains(&known.as_str()) {
        let text = format!(
            "{} is set by the proxy itself and cannot be configured",
            quote(name)
        );
        return Err(Fault::new(text));
    }
    Ok(known.as_str().to_owned())
}

/// `None` only when something was reported.
fn value(
    name: Option<&str>,
    header: &Spanned<Header>,
    places: &Places,
    report: &mut Report<'_>,
) -> Option<Value> {
    match header.get_ref() {
        Header::Text(_) if name.is_some_and(|name| SECRET.contains(&name)) => {
            let fault = Fault::new("a secret stands in the file, expected a place to read it from");
            let hint = "use { file = \"path\" } or { credential = \"name\" }";
            report.add(header.span(), fault.hint(hint));
            None
        }
        Header::Text(text) => report.check(header.span(), field_value(text)),
        Header::From(source) => from_source(source, header, places, report),
    }
}

fn from_source(
    source: &Source,
    header: &Spanned<Header>,
    places: &Places,
    report: &mut Report<'_>,
) -> Option<Value> {
    let (written, content) = match (&source.file, &source.credential) {
        (Some(file), None) => {
            let content = read(&places.directory.join(file.get_ref()));
            (file, content.map_err(|fault| named(file.get_ref(), fault)))
        }
        (None, Some(name)) => (name, credential(name.get_ref(), places)),
        (Some(_), Some(credential)) => {
            let fault = "`file` and `credential` exclude each other, expected one of them";
            report.add(credential.span(), Fault::new(fault));
            return None;
        }
        (None, None) => {
            let path = report.tree().path(&header.span());
            let lost = ["file", "credential"].map(|key| report.is_lost(&format!("{path}.{key}")));
            if lost == [false, false] {
                let fault = "has no source, expected `file` or `credential`";
                report.add(header.span(), Fault::new(fault));
            }
            return None;
        }
    };
    let prefix = source.prefix.as_ref();
    let prefix = prefix.map_or("", |prefix| prefix.get_ref().as_str());
    let value = content.and_then(|content| field_value(&format!("{prefix}{content}")));
    report.check(written.span(), value)
}

/// What systemd passes as the credential `name`.
fn credential(name: &str, places: &Places) -> Result<String, Fault> {
    let mut parts = Path::new(name).components();
    if !matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    ) {
        return Err(Fault::new(
            "is not the name of a credential, expected no path",
        ));
    }
    let Some(directory) = &places.credentials else {
        let fault = Fault::new("cannot be read: $CREDENTIALS_DIRECTORY is not set");
        let hint = "add LoadCredential=NAME:/path to the systemd unit, or use { file = \"path\" }";
        return Err(fault.hint(hint));
    };
    read(&Path::new(directory).join(name))
}

/// The content of a file without the newlines at its end.
fn read(path: &Path) -> Result<String, Fault> {
    let mut content = String::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(LONGEST + 1)
        .read_to_string(&mut content)
        .map_err(|error| unreadable(&error))?;
    let too_long = content.len() as u64 > LONGEST;
    content.truncate(content.trim_end_matches(['\r', '\n']).len());
    if too_long {
        return Err(Fault::new(
            "is too long for a header field, expected at most 64KiB",
        ));
    }
    if content.is_empty() {
        return Err(Fault::new("is empty, expected the value in it"));
    }
    Ok(content)
}

fn unreadable(error: &io::Error) -> Fault {
    let fault = Fault::new(format!("cannot be read: {}", reason(error)));
    match error.kind() {
        io::ErrorKind::NotFound => fault.hint(
            "create it: files are looked for from the folder of the settings file, \
             credentials in $CREDENTIALS_DIRECTORY",
        ),
        io::ErrorKind::PermissionDenied => fault.hint("let the user that runs pacegate read it"),
        _ => fault,
    }
}

/// The fault of the file `name`, with its name if that is no secret.
fn named(name: &str, mut fault: Fault) -> Fault {
    if is_path(name) {
        fault.text = format!("{} {}", quote(name), fault.text);
    }
    fault
}

/// Whether `text` can only be a path: tokens and keys neither begin like one nor
/// end like the name of a file.
fn is_path(text: &str) -> bool {
    let path = Path::new(text);
    let extension = path.extension().and_then(OsStr::to_str);
    let named = extension.is_some_and(|end| {
        end.len() <= LONGEST_EXTENSION && end.bytes().all(|b| b.is_ascii_alphabetic())
    });
    named || ["./", "../"].iter().any(|start| text.starts_with(start)) || is_there(path.parent())
}

/// Whether it is a folder below the root, by its absolute path.
fn is_there(folder: Option<&Path>) -> bool {
    folder
        .is_some_and(|folder| folder.is_absolute() && folder.parent().is_some() && folder.is_dir())
}

/// Checks a value by RFC 9110, section 5.5.
fn field_value(text: &str) -> Result<Value, Fault> {
    match HeaderValue::from_bytes(text.as_bytes()) {
        Ok(_) => Ok(Value(text.to_owned())),
        Err(_) => Err(Fault::new(
            "holds a control character, expected the value of a header field on one line",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(credentials: Option<&Path>) -> Places {
        Places {
            directory: "tests/config/valid".into(),
            credentials: credentials.map(Into::into),
            state: None,
        }
    }

    #[test]
    fn reads_a_credential_without_its_newlines() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/valid/files");
        let places = places(Some(&directory));
        assert_eq!(credential("token", &places), Ok("token".to_owned()));
        assert!(credential("absent", &places).is_err());
        assert!(credential("../files/token", &places).is_err());
        assert!(credential("..", &places).is_err());
        assert!(credential("", &places).is_err());
    }

    #[test]
    fn says_when_there_are_no_credentials() {
        let fault = credential("token", &places(None)).unwrap_err();
        assert!(fault.text.contains("$CREDENTIALS_DIRECTORY is not set"));
    }

    #[test]
    fn keeps_the_fields_of_framing_for_the_proxy() {
        assert_eq!(field_name("X-Client"), Ok("x-client".to_owned()));
        for name in ["Host", "TE", "transfer-encoding", "x y", ""] {
            assert!(field_name(name).is_err(), "{name}");
        }
    }

    #[test]
    fn names_a_file_only_if_it_is_no_secret() {
        for path in ["github.token", "keys/a.key", "../token", "/etc/token"] {
            assert!(is_path(path), "{path}");
        }
        for secret in [
            "ghp_a1B2c3",
            "abc.def.a1b2c3d4e5f6g7",
            "a/b+c==",
            "/b+c/d==",
            "/b+c",
            "",
        ] {
            assert!(!is_path(secret), "{secret}");
        }
    }

    #[test]
    fn a_value_stays_on_one_line() {
        for good in ["", "a b\tc", "ü"] {
            assert!(field_value(good).is_ok());
        }
        for bad in ["a\nb", "a\r", "\0", "\u{7f}"] {
            assert!(field_value(bad).is_err());
        }
    }
}
