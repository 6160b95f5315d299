//! Host names and IP addresses, as they stand in URLs and `Host` fields.
//!
//! Shared by `url`, `route` and `tls`. Names are those of DNS, plus `_`, which
//! private networks use; other alphabets are written in punycode.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::fault::{Fault, quote};

/// Checks a host name, an IPv4 address or an IPv6 address in brackets, and
/// returns it in lower case.
///
/// # Errors
///
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<String, Fault> {
    let wrong = |what: &str| Err(Fault::new(format!("{} {what}", quote(text))));
    let host = text.to_ascii_lowercase();
    if let Some(inner) = host.strip_prefix('[') {
        let address = inner.strip_suffix(']').unwrap_or_default();
        return match address.parse::<Ipv6Addr>() {
            Ok(_) => Ok(host),
            Err(_) => wrong("is not an IPv6 address, expected one such as `[::1]`"),
        };
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return wrong("is an IPv6 address without brackets")
            .map_err(|f| f.meant(Some(format!("[{text}]"))));
    }
    if !text.is_ascii() {
        return wrong("is not a host name, expected other alphabets in punycode (`xn--...`)");
    }
    let labels = host.strip_suffix('.').unwrap_or(&host);
    if labels.len() > 253 || !labels.split('.').all(is_label) {
        return wrong("is not a host name, expected one such as `api.example.com`");
    }
    let last = labels.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|b| b.is_ascii_digit()) && host.parse::<Ipv4Addr>().is_err() {
        return wrong("is not an IPv4 address, expected one such as `192.0.2.1`");
    }
    Ok(host)
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && !label.starts_with('-')
        && !label.ends_with('-')
        && label
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_hosts_from_other_texts() {
        for good in [
            "a",
            "API.example.com",
            "my_api.local",
            "127.0.0.1",
            "[::1]",
            "a.b.",
        ] {
            assert_eq!(parse(good), Ok(good.to_ascii_lowercase()));
        }
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a b",
            "127.0.0.256",
            "1.2",
            "::1",
            "[::1",
            "bücher.de",
            "a/b",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
