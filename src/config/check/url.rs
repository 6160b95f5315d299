//! The `url` of an upstream: scheme, host, port, and nothing else.
//!
//! A path would have to be joined with the caller's, a query likewise, and
//! userinfo is a secret; all three are refused with a way out.

use std::net::Ipv6Addr;

use super::host;
use crate::config::Url;
use crate::config::fault::{Fault, quote};

/// Reads `http://` or `https://`, host, and port if given.
///
/// # Errors
///
/// What is wrong with it, and what was probably meant.
pub(super) fn parse(text: &str) -> Result<Url, Fault> {
    let (https, rest) = scheme(text)?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, tail) = rest.split_at(end);
    if authority.contains('@') {
        let fault = Fault::new("holds a user name or a password, expected only a host and a port");
        return Err(fault.hint("send them as a header: authorization = { file = \"...\" }"));
    }
    if !matches!(tail, "" | "/") {
        let near = text.strip_suffix(tail).filter(|near| parse(near).is_ok());
        let near = near.filter(|_| !tail.contains('@'));
        let fault = format!(
            "{} goes on after the host, expected nothing there",
            quote(text)
        );
        let fault = Fault::new(fault);
        return Err(match near {
            Some(near) => fault.hint(format!("write {}: callers send the rest", quote(near))),
            None => fault,
        });
    }
    let (host, port) = split_port(authority)?;
    let default = if https { 443 } else { 80 };
    let port = port.map_or(Ok(default), parse_port)?;
    let before = &text[..text.len() - rest.len()];
    let name = host::parse(host).map_err(|fault| {
        let meant = in_brackets(authority);
        fault.meant(meant.map(|meant| format!("{before}{meant}")))
    })?;
    let authority = match port {
        port if port == default => name.clone(),
        port => format!("{name}:{port}"),
    };
    let bare = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    Ok(Url {
        https,
        host: bare.unwrap_or(&name).to_owned(),
        port,
        authority,
    })
}

fn scheme(text: &str) -> Result<(bool, &str), Fault> {
    let Some((scheme, rest)) = text.split_once("://") else {
        let fault = Fault::new(format!(
            "{} is not a URL, expected one such as `https://api.example.com`",
            quote(text)
        ));
        let meant = format!("https://{text}");
        return Err(fault.meant(Some(meant).filter(|meant| parse(meant).is_ok())));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "https" => Ok((true, rest)),
        "http" => Ok((false, rest)),
        _ => Err(Fault::new(format!(
            "{} has an unknown scheme, expected `https://` or `http://`",
            quote(text)
        ))),
    }
}

/// Host, and what stands behind its colon.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), Fault> {
    if authority.is_empty() {
        return Err(Fault::new(
            "has no host, expected one such as `https://api.example.com`",
        ));
    }
    let after_address = authority.rfind(']').map_or(0, |end| end + 1);
    match authority[after_address..].find(':') {
        Some(_) if after_address == 0 && authority.matches(':').count() > 1 => {
            Ok((authority, None))
        }
        Some(colon) => {
            let (host, port) = authority.split_at(after_address + colon);
            Ok((host, port.get(1..)))
        }
        None => Ok((authority, None)),
    }
}

/// Host and port as they were probably meant by an IPv6 address without brackets.
/// A single digit behind its last colon is rather its end than a port.
fn in_brackets(authority: &str) -> Option<String> {
    let is_address = |text: &str| text.parse::<Ipv6Addr>().is_ok();
    match authority.rsplit_once(':') {
        Some((address, port))
            if port.len() > 1 && is_address(address) && parse_port(port).is_ok() =>
        {
            Some(format!("[{address}]:{port}"))
        }
        _ => is_address(authority).then(|| format!("[{authority}]")),
    }
}

fn parse_port(text: &str) -> Result<u16, Fault> {
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u16>() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Fault::new(format!(
            "{} is not a port, expected a number from 1 to 65535",
            quote(text)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_scheme_host_and_port() {
        for (text, https, host, port, authority) in [
            (
                "https://api.example.com",
                true,
                "api.example.com",
                443,
                "api.example.com",
            ),
            (
                "https://API.example.com:443/",
                true,
                "api.example.com",
                443,
                "api.example.com",
            ),
            (
                "HTTP://localhost:8080",
                false,
                "localhost",
                8080,
                "localhost:8080",
            ),
            ("http://[::1]:9000", false, "::1", 9000, "[::1]:9000"),
            ("http://[::1]", false, "::1", 80, "[::1]"),
            (
                "http://127.0.0.1:443",
                false,
                "127.0.0.1",
                443,
                "127.0.0.1:443",
            ),
        ] {
            let url = Url {
                https,
                host: host.to_owned(),
                port,
                authority: authority.to_owned(),
            };
            assert!(url.address().ends_with(&format!("{port}")), "{text}");
            assert_eq!(parse(text), Ok(url), "{text}");
        }
    }

    #[test]
    fn refuses_everything_else() {
        for text in [
            "",
            "api.example.com",
            "ftp://a",
            "https://",
            "https:///",
            "https://:80",
            "https://a:0",
            "https://a:65536",
            "https://a:+80",
            "https://a:",
            "https://a/v1",
            "https://a?x",
            "https://a#x",
            "https://a//",
            "http://::1",
            "http://[::1",
            "http://[::1]x",
            "https://a b",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn puts_an_address_into_brackets_and_leaves_its_port_outside() {
        for (text, meant) in [
            ("https://::1", "https://[::1]"),
            ("http://::1:8080", "http://[::1]:8080"),
            ("http://::1:8080/", "http://[::1]:8080"),
            ("http://2001:db8::7", "http://[2001:db8::7]"),
            ("http://1:2:3:4:5:6:7:8:80", "http://[1:2:3:4:5:6:7:8]:80"),
        ] {
            let hint = parse(text).unwrap_err().hint;
            assert_eq!(hint, Some(format!("did you mean `{meant}`?")), "{text}");
            assert!(parse(meant).is_ok(), "{meant}");
        }
    }

    #[test]
    fn never_repeats_a_password() {
        for text in [
            "https://user:s3cret@a",
            "ftp://user:s3cret@a",
            "user:s3cret@a",
            "https://user:s3cret/x@a",
            "https://user:/s3cret@a",
        ] {
            let fault = parse(text).unwrap_err().to_string();
            assert!(!fault.contains("s3cret"), "{fault}");
        }
    }
}
