//! The presets, checked by the same rules as a file of a user.

use toml::Spanned;

use super::upstream::Settings;
use super::{cooldown, cost, dialect, limit, size_of_count, url};
use crate::config::fault::Fault;
use crate::config::file::{self, Count};
use crate::config::preset::Preset;
use crate::config::report::{Problems, Report};

/// Checks `text`, the file of all presets.
///
/// # Errors
///
/// Every problem found.
pub(in crate::config) fn all(text: &str) -> Result<Vec<Preset>, Problems> {
    let (file, mut report) = file::read::<file::Presets>(text);
    let mut entries: Vec<_> = file.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    let checked: Vec<_> = entries
        .into_iter()
        .map(|(name, entry)| one(name, entry, text, &mut report))
        .collect();
    match checked.into_iter().collect() {
        Some(presets) if report.is_empty() => Ok(presets),
        _ => Err(report.finish("presets.toml")),
    }
}

/// `None` only when something was reported.
fn one(
    name: &Spanned<String>,
    entry: &Spanned<file::Preset>,
    text: &str,
    report: &mut Report<'_>,
) -> Option<Preset> {
    let (preset, path) = (entry.get_ref(), name.get_ref());
    let mut settings = Settings::default();
    if let Some(text) = &preset.url {
        settings.url = report.check(text.span(), url::parse(text.get_ref()));
    }
    if let Some(limits) = &preset.limits {
        settings.limits = limit::all(limits.get_ref(), report);
    }
    if let Some(costs) = &preset.costs {
        settings.costs = cost::all(costs.get_ref(), Some(&settings.limits), report);
    }
    if let Some(count) = &preset.max_in_flight {
        let Count(count) = *count.get_ref();
        settings.max_in_flight = size_of_count(count);
    }
    settings.dialect = dialect::one(preset.dialect.as_ref(), &settings.dialect, report)?;
    settings.cooldown = cooldown::one(&preset.cooldown, &settings.cooldown, path, report)?;
    let mut required = |key: &str, value: &Option<Spanned<String>>| {
        if value.is_none() {
            let fault = Fault::new("is missing, expected where the figures are from");
            report.missing(Some(entry.span()), format!("{path}.{key}"), fault);
        }
        value.as_ref().map(|value| value.get_ref().clone())
    };
    Some(Preset {
        name: path.clone(),
        page: required("page", &preset.page)?,
        date: required("date", &preset.date)?,
        note: preset.note.as_ref().map(|note| note.get_ref().clone()),
        settings,
        lines: lines(preset, text),
    })
}

/// The settings of a preset as they are written.
fn lines(preset: &file::Preset, text: &str) -> Vec<String> {
    let cooldown = &preset.cooldown;
    let spans = [
        ("url", preset.url.as_ref().map(Spanned::span)),
        ("limits", preset.limits.as_ref().map(Spanned::span)),
        ("costs", preset.costs.as_ref().map(Spanned::span)),
        (
            "max_in_flight",
            preset.max_in_flight.as_ref().map(Spanned::span),
        ),
        ("dialect", preset.dialect.as_ref().map(Spanned::span)),
        (
            "cooldown.signals",
            cooldown.signals.as_ref().map(Spanned::span),
        ),
        ("cooldown.first", cooldown.first.as_ref().map(Spanned::span)),
        (
            "cooldown.longest",
            cooldown.longest.as_ref().map(Spanned::span),
        ),
    ];
    spans
        .into_iter()
        .filter_map(|(key, span)| Some(format!("{key} = {}", text.get(span?)?)))
        .collect()
}
