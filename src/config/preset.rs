//! What is known of the limits of well-known APIs.
//!
//! `presets.toml` is the table: for each API its limits, its dialect and its
//! throttle signals, with the page that states them and the date of the last
//! check. It is part of the program and read when a preset is named. What a
//! user's file says wins over it, key by key.

use super::check;
use super::fault::{Fault, nearest, quote};

const TEXT: &str = include_str!("presets.toml");

/// The settings that an API's documentation suggests.
#[derive(Debug)]
pub(super) struct Preset {
    /// Its name in the file.
    pub(super) name: String,
    /// The page of the documentation.
    pub(super) page: String,
    /// When that was last checked, such as `2026-11-25`.
    pub(super) date: String,
    /// What the settings do not say.
    pub(super) note: Option<String>,
    /// What it fills in.
    pub(super) settings: check::Settings,
    /// Its settings as they are written, a key each.
    pub(super) lines: Vec<String>,
}

/// The preset of that name.
///
/// # Errors
///
/// That there is none, and which one was probably meant.
pub(super) fn find(name: &str) -> Result<Preset, Fault> {
    let mut presets = all();
    match presets.iter().position(|preset| preset.name == name) {
        Some(at) => Ok(presets.swap_remove(at)),
        None => {
            let near = nearest(name, presets.iter().map(|preset| preset.name.as_str()));
            let text = format!("{} is not a preset", quote(name));
            Err(match near {
                Some(near) => Fault::new(text).meant(Some(near)),
                None => Fault::new(text).hint("`pacegate presets` lists them"),
            })
        }
    }
}

/// All presets, for people to read.
pub fn list() -> String {
    let shown = all().iter().map(Preset::summary).collect::<Vec<_>>();
    shown.join("\n")
}

/// One preset as the table of an upstream.
///
/// # Errors
///
/// That there is none of that name, and which one was probably meant.
pub fn show(name: &str) -> Result<String, String> {
    match find(name) {
        Ok(preset) => Ok(preset.table()),
        Err(fault) => Err(format!("pacegate: {fault}")),
    }
}

fn all() -> Vec<Preset> {
    check::presets(TEXT).expect("a test reads the presets")
}

impl Preset {
    fn summary(&self) -> String {
        let settings = &self.settings;
        let mut says: Vec<_> = settings.limits.iter().map(|l| l.label.clone()).collect();
        if self
            .lines
            .iter()
            .any(|line| line.starts_with("max_in_flight"))
        {
            says.push(format!("{} in flight", settings.max_in_flight));
        }
        if says.is_empty() {
            says.push("no limits".to_owned());
        }
        let dialect = check::dialect_name(&settings.dialect).unwrap_or("of its own");
        let mut text = format!("{}: {}; dialect {dialect}\n", self.name, says.join(", "));
        text.push_str(&format!("    {} ({})\n", self.page, self.date));
        for line in wrap(self.note.as_deref().unwrap_or_default(), 76) {
            text.push_str(&format!("    {line}\n"));
        }
        text
    }

    fn table(&self) -> String {
        let mut text = format!("# From {},\n# checked on {}.\n", self.page, self.date);
        for line in wrap(self.note.as_deref().unwrap_or_default(), 78) {
            text.push_str(&format!("# {line}\n"));
        }
        text.push_str(&format!("[upstream.{}]\n", self.name));
        if self.settings.url.is_none() {
            text.push_str("# Your own address, which depends on your account; required.\n");
            text.push_str("# url = \"https://...\"\n");
        }
        for line in &self.lines {
            text.push_str(&format!("{line}\n"));
        }
        text
    }
}

/// `text` in lines of at most `width` bytes, unless a word is longer.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + word.len() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn every_preset_is_right_and_says_where_it_is_from() {
        let presets = match check::presets(TEXT) {
            Ok(presets) => presets,
            Err(problems) => panic!("{problems}"),
        };
        assert!(presets.len() > 15);
        for preset in presets {
            assert!(preset.page.starts_with("https://"), "{}", preset.name);
            let date: Vec<_> = preset.date.split('-').map(str::len).collect();
            assert_eq!(date, [4, 2, 2], "{}", preset.name);
            assert!(list().contains(&preset.page));
        }
    }

    #[test]
    fn a_preset_that_is_pasted_is_the_preset_that_is_named() {
        for Preset { name, settings, .. } in all() {
            let url = match settings.url {
                Some(_) => "",
                None => "url = \"https://api.example.com\"\n",
            };
            let listen = "listen = \"127.0.0.1:0\"\n";
            let pasted = format!("{listen}{}{url}", show(&name).unwrap());
            let named = format!("{listen}[upstream.{name}]\npreset = \"{name}\"\n{url}");
            let config = |text: &str| match Config::parse("proxy.toml", text) {
                Ok(config) => config,
                Err(problems) => panic!("{problems}"),
            };
            assert_eq!(config(&pasted), config(&named));
        }
    }

    #[test]
    fn what_is_written_wins_over_the_preset_key_by_key() {
        let text = "listen = \"127.0.0.1:0\"\n[upstream.a]\npreset = \"github\"\n\
            limits = [\"1/s\"]\ncooldown.longest = \"2min\"\n";
        let config = Config::parse("proxy.toml", text).unwrap();
        let (upstream, preset) = (&config.upstreams[0], find("github").unwrap().settings);
        let labels: Vec<_> = upstream.limits.iter().map(|l| l.label.as_str()).collect();
        assert_eq!(labels, ["1/s"]);
        assert_eq!(upstream.dialect, preset.dialect);
        assert_eq!(upstream.cooldown.signals, preset.cooldown.signals);
        assert_eq!(upstream.cooldown.first, preset.cooldown.first);
        assert_eq!(upstream.cooldown.longest.as_secs(), 120);
        assert_eq!(upstream.max_in_flight, preset.max_in_flight);
        // A write as the preset counts it could never start under this limit.
        assert!(upstream.costs.is_empty() && !preset.costs.is_empty());
        let none = text.replace("[\"1/s\"]", "[]");
        let config = Config::parse("proxy.toml", &none).unwrap();
        assert!(config.upstreams[0].limits.is_empty());
    }

    #[test]
    fn a_name_that_is_not_known_is_answered_with_the_nearest() {
        let said = show("githb").unwrap_err();
        assert_eq!(
            said,
            "pacegate: `githb` is not a preset\nhint: did you mean `github`?"
        );
    }
}
