//! `[upstream.NAME.tls]`: that the files are there and can be read.
//!
//! What is in them is `upstream/tls`'s business, which loads them. Paths are
//! relative to the configuration file's directory.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use toml::Spanned;

use super::{Places, host};
use crate::config::fault::{Fault, quote, reason};
use crate::config::file;
use crate::config::report::Report;
use crate::config::{Identity, Tls};

/// Checks the table; what was reported is left out.
pub(super) fn check(
    written: &file::Tls,
    path: &str,
    places: &Places,
    report: &mut Report<'_>,
) -> Tls {
    let ca = readable(written.ca.as_ref(), places, report);
    let certificate = readable(written.certificate.as_ref(), places, report);
    let key = readable(written.key.as_ref(), places, report);
    let alone = match (&written.certificate, &written.key) {
        (Some(certificate), None) => Some((certificate, "certificate", "key")),
        (None, Some(key)) => Some((key, "key", "certificate")),
        _ => None,
    };
    if let Some((half, given, missing)) = alone {
        let fault = Fault::new(format!("is missing, expected beside `{given}`"));
        report.missing(Some(half.span()), format!("{path}.tls.{missing}"), fault);
    }
    let server_name = written.server_name.as_ref().and_then(|name| {
        let checked = host::parse(name.get_ref());
        let name = report.check(name.span(), checked)?;
        let bare = name
            .strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'));
        Some(bare.map(str::to_owned).unwrap_or(name))
    });
    Tls {
        ca,
        identity: certificate
            .zip(key)
            .map(|(certificate, key)| Identity { certificate, key }),
        server_name,
    }
}

fn readable(
    written: Option<&Spanned<String>>,
    places: &Places,
    report: &mut Report<'_>,
) -> Option<PathBuf> {
    let written = written?;
    let path = places.directory.join(written.get_ref());
    let opened = File::open(&path).and_then(|mut file| file.read(&mut [0]));
    let opened = opened.map_err(|error| {
        let reason = reason(&error);
        Fault::new(format!(
            "{} cannot be read: {reason}",
            quote(written.get_ref())
        ))
    });
    report.check(written.span(), opened)?;
    Some(path)
}
