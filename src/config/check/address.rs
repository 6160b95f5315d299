//! `listen` and `admin`: where callers connect, and where operators look.
//!
//! Port 0 asks the system for a free port, so two of them never meet. The
//! admin socket shows what callers should not see, so it is never one of
//! theirs, not even by way of a wildcard address.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::path::PathBuf;

use crate::config::Listen;
use crate::config::fault::{Fault, quote};
use crate::config::file::{Addresses, File};
use crate::config::report::Report;

const EXPECTED: &str =
    "expected one such as `127.0.0.1:8080`, `localhost:8080`, `unix:/path` or `systemd`";

/// The port of `admin` when it is absent.
const ADMIN_PORT: u16 = 8081;

/// The port to suggest for `listen`.
const LISTEN_PORT: u16 = 8080;

/// The longest path of a Unix socket, in bytes.
const LONGEST_PATH: usize = 107;

/// Resolves both; `listen` is empty only when something was reported.
pub(super) fn sockets(file: &File, report: &mut Report<'_>) -> (Vec<Listen>, Option<Listen>) {
    let listen = listen(file, report);
    let admin = match &file.admin {
        None => {
            let default = Listen::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT)));
            if !report.is_lost("admin")
                && let Some((span, _)) = listen.iter().find(|(_, one)| meet(one, &default))
            {
                let text =
                    format!("is also where `admin` is served, by default `127.0.0.1:{ADMIN_PORT}`");
                let fault = Fault::new(text).hint("set `admin` to another address, or to \"off\"");
                report.add(span.clone(), fault);
            }
            Some(default)
        }
        Some(written) if written.get_ref() == "off" => None,
        Some(written) => {
            let admin = report.check(written.span(), admin(written.get_ref()));
            if let Some(admin) = &admin
                && listen.iter().any(|(_, one)| meet(one, admin))
            {
                let text = format!(
                    "{} is also in `listen`, expected another address",
                    quote(written.get_ref())
                );
                report.add(written.span(), Fault::new(text));
            }
            admin
        }
    };
    (listen.into_iter().map(|(_, one)| one).collect(), admin)
}

fn listen(file: &File, report: &mut Report<'_>) -> Vec<(Range<usize>, Listen)> {
    let Some(written) = &file.listen else {
        let fault = Fault::new(format!("is missing, {EXPECTED}"));
        let fault = fault.hint("listen = \"127.0.0.1:8080\"");
        report.missing(None, "listen".to_owned(), fault);
        return Vec::new();
    };
    let texts: Vec<_> = match written.get_ref() {
        Addresses::One(text) => vec![(written.span(), text)],
        Addresses::Several(several) => several
            .iter()
            .map(|text| (text.span(), text.get_ref()))
            .collect(),
    };
    if texts.is_empty() && !report.is_lost("listen[0]") {
        report.add(
            written.span(),
            Fault::new("is empty, expected at least one address"),
        );
    }
    let mut listen: Vec<(Range<usize>, Listen)> = Vec::new();
    for (span, text) in texts {
        let Some(one) = report.check(span.clone(), parse(text, LISTEN_PORT)) else {
            continue;
        };
        if listen
            .iter()
            .any(|(_, other)| *other == one && meet(other, &one))
        {
            let fault = Fault::new(format!("{} is there twice, expected it once", quote(text)));
            report.add(span, fault);
            continue;
        }
        listen.push((span, one));
    }
    listen
}

fn admin(text: &str) -> Result<Listen, Fault> {
    match parse(text, ADMIN_PORT) {
        Ok(Listen::Systemd) => Err(Fault::new(
            "`systemd` is for `listen` only, expected an address such as `127.0.0.1:8081`, or `off`",
        )),
        other => other,
    }
}

/// Reads an address; `port` is the one to suggest.
pub(super) fn parse(text: &str, port: u16) -> Result<Listen, Fault> {
    if text == "systemd" {
        return Ok(Listen::Systemd);
    }
    if let Some(path) = text.strip_prefix("unix:") {
        return unix(text, path);
    }
    let numeric = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    match numeric.parse() {
        Ok(address) => Ok(Listen::Tcp(address)),
        Err(_) if has_large_port(text) => Err(Fault::new(format!(
            "{} has too large a port, expected at most {}",
            quote(text),
            u16::MAX
        ))),
        Err(_) => {
            let fault = Fault::new(format!("{} is not an address, {EXPECTED}", quote(text)));
            Err(fault.meant(suggest(text, port)))
        }
    }
}

/// Whether only the size of the port makes it no port.
fn has_large_port(text: &str) -> bool {
    let (_, port) = text.rsplit_once(':').unwrap_or(("", text));
    let digits = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    digits && port.parse::<u16>().is_err()
}

fn unix(text: &str, path: &str) -> Result<Listen, Fault> {
    if !path.starts_with('/') || path.contains('\0') {
        let fault = format!(
            "{} has no absolute path, expected `unix:/path`",
            quote(text)
        );
        return Err(Fault::new(fault));
    }
    if path.len() > LONGEST_PATH {
        let fault = format!(
            "{} is too long for a socket, expected a path of at most {LONGEST_PATH} bytes",
            quote(text)
        );
        return Err(Fault::new(fault));
    }
    Ok(Listen::Unix(PathBuf::from(path)))
}

/// The address that is meant by a bare port, `:port`, `*:port`, a bare host or
/// an absolute path.
fn suggest(text: &str, port: u16) -> Option<String> {
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    let bare = text.strip_prefix(':').unwrap_or(text);
    if is_port(bare) {
        return Some(format!("127.0.0.1:{bare}"));
    }
    if let Some(port) = text.strip_prefix("*:").filter(|port| is_port(port)) {
        return Some(format!("0.0.0.0:{port}"));
    }
    if text.starts_with('/') {
        return Some(format!("unix:{text}"));
    }
    let stripped = text
        .split_once("://")
        .map(|(_, rest)| rest.trim_end_matches('/'));
    if let Some(rest) = stripped.filter(|rest| rest.parse::<SocketAddr>().is_ok()) {
        return Some(rest.to_owned());
    }
    let with_port = format!("{text}:{port}");
    (text == "localhost" || with_port.parse::<SocketAddr>().is_ok()).then_some(with_port)
}

/// Whether a connection to one could reach the other.
fn meet(one: &Listen, other: &Listen) -> bool {
    match (one, other) {
        (Listen::Tcp(one), Listen::Tcp(other)) => {
            let any = |address: &SocketAddr| address.ip().is_unspecified();
            one.port() == other.port()
                && one.port() != 0
                && (one.ip() == other.ip() || any(one) || any(other))
        }
        _ => one == other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Listen, Fault> {
        super::parse(text, LISTEN_PORT)
    }

    #[test]
    fn takes_every_kind_of_address() {
        let tcp = |text: &str| Ok(Listen::Tcp(text.parse().unwrap()));
        assert_eq!(parse("localhost:80"), tcp("127.0.0.1:80"));
        assert_eq!(parse("[::1]:0"), tcp("[::1]:0"));
        assert_eq!(parse("unix:/run/p"), Ok(Listen::Unix("/run/p".into())));
        assert_eq!(parse("systemd"), Ok(Listen::Systemd));
        assert!(parse("unix:p").is_err());
        assert!(parse(&format!("unix:/{}", "x".repeat(LONGEST_PATH))).is_err());
    }

    #[test]
    fn says_what_was_probably_meant() {
        for (text, hint) in [
            ("8080", Some("127.0.0.1:8080")),
            (":8080", Some("127.0.0.1:8080")),
            ("*:8080", Some("0.0.0.0:8080")),
            ("localhost", Some("localhost:8080")),
            ("::1", None),
            ("/run/p", Some("unix:/run/p")),
            ("http://127.0.0.1:80/", Some("127.0.0.1:80")),
            ("example.com:80", None),
        ] {
            let hint = hint.map(|hint| format!("did you mean `{hint}`?"));
            assert_eq!(parse(text).unwrap_err().hint, hint, "{text}");
        }
    }

    #[test]
    fn wildcards_meet_every_address_of_their_port() {
        let meets = |one: &str, other: &str| meet(&parse(one).unwrap(), &parse(other).unwrap());
        assert!(meets("0.0.0.0:80", "127.0.0.1:80"));
        assert!(meets("[::]:80", "127.0.0.1:80"));
        assert!(!meets("127.0.0.2:80", "127.0.0.1:80"));
        assert!(!meets("127.0.0.1:0", "127.0.0.1:0"));
        assert!(meets("unix:/a", "unix:/a"));
    }
}
