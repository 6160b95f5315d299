//! Where a key belongs that stands in the wrong table.
//!
//! Only the tables are listed here; serde is asked for their keys, since it has
//! them all from the derives of `file`.

use serde::de::value::Error;
use serde::de::{Deserialize, Deserializer, Error as _, Visitor};
use serde::forward_to_deserialize_any;

use super::tree::{Spot, Step, render_key};
use super::{
    Client, Connection, Cooldown, File, Keys, Log, Match, Queue, Retry, Shutdown, State, Timeouts,
    Tls, Upstream,
};
use crate::config::fault::quote;

/// What stands for the name of an upstream.
const NAME: &str = "NAME";

/// What others call a setting: the table, the key that is tried, and what to do.
const OTHER_NAMES: [(&[&str], &str, &str); 4] = [
    (&["log"], "level", "write `filter`"),
    (
        &["upstream", NAME],
        "rate",
        "write limits = [\"10/s\"], with your rate in it",
    ),
    (
        &["upstream", NAME],
        "rate_limit",
        "write limits = [\"10/s\"], with your rate in it",
    ),
    (
        &["upstream", NAME],
        "retries",
        "write `retry.attempts`, which counts the first try as well",
    ),
];

/// A table by its path, and its keys.
type Table = (&'static [&'static str], &'static [&'static str]);

fn tables() -> [Table; 14] {
    [
        (&[], keys::<File>()),
        (&["client"], keys::<Client>()),
        (&["log"], keys::<Log>()),
        (&["shutdown"], keys::<Shutdown>()),
        (&["state"], keys::<State>()),
        (&["upstream", NAME], keys::<Upstream>()),
        (&["upstream", NAME, "match"], keys::<Match>()),
        (&["upstream", NAME, "keys"], keys::<Keys>()),
        (&["upstream", NAME, "cooldown"], keys::<Cooldown>()),
        (&["upstream", NAME, "retry"], keys::<Retry>()),
        (&["upstream", NAME, "queue"], keys::<Queue>()),
        (&["upstream", NAME, "timeouts"], keys::<Timeouts>()),
        (&["upstream", NAME, "connection"], keys::<Connection>()),
        (&["upstream", NAME, "tls"], keys::<Tls>()),
    ]
}

/// Where the unknown key at `spot` belongs, in words; `None` if no other table
/// knows it.
pub(super) fn hint(spot: &Spot<'_>) -> Option<String> {
    let mut here: Vec<&str> = Vec::new();
    for step in &spot.steps {
        match step {
            Step::Key(key) => here.push(key),
            Step::Index(_) => return None,
        }
    }
    let key = here.pop()?;
    let name = match here.as_mut_slice() {
        ["upstream", name, ..] => std::mem::replace(name, NAME),
        _ => NAME,
    };
    let tables = tables();
    if !tables.iter().any(|(path, _)| *path == here) {
        return None;
    }
    let mut renamed = OTHER_NAMES.iter();
    if let Some((_, _, advice)) = renamed.find(|(path, other, _)| *path == here && *other == key) {
        return Some((*advice).to_owned());
    }
    let others = tables.iter().filter(|(path, _)| *path != here);
    let known = others.clone().filter(|(_, keys)| keys.contains(&key));
    let homes: Vec<_> = known.map(|(path, _)| show(path, name)).collect();
    match homes.as_slice() {
        [] => {}
        [home] if spot.value.is_table() => {
            let inside = home
                .strip_suffix(']')
                .map(|table| format!("{table}.{key}]"));
            return Some(format!("write `{}`", inside.unwrap_or(format!("[{key}]"))));
        }
        [home] if home.is_empty() => {
            let text = "belongs to the top of the file, before the first table";
            return Some(format!("{} {text}", quote(key)));
        }
        homes => {
            return Some(format!(
                "{} belongs to `{}`",
                quote(key),
                homes.join("` or `")
            ));
        }
    }
    // `state_dir` for `dir` of `[state]`.
    others.clone().find_map(|(path, keys)| {
        let rest = key.strip_prefix(path.last()?)?.strip_prefix('_')?;
        let known = keys.contains(&rest);
        known.then(|| format!("write `{rest}` in `{}`", show(path, name)))
    })
}

/// The header of a table; empty for the top of the file.
fn show(path: &[&str], name: &str) -> String {
    let keys = path.iter().map(|&key| match key {
        NAME if name != NAME => render_key(name),
        key => key.into(),
    });
    let keys: Vec<_> = keys.collect();
    match keys.as_slice() {
        [] => String::new(),
        keys => format!("[{}]", keys.join(".")),
    }
}

/// The keys of a table, in the order of its fields.
fn keys<'de, T: Deserialize<'de>>() -> &'static [&'static str] {
    let mut keys: &'static [&'static str] = &[];
    // It refuses every value: only what is asked of it matters.
    let _ = T::deserialize(Ask(&mut keys));
    keys
}

/// Notes the fields of the struct that is asked for.
#[derive(Debug)]
struct Ask<'k>(&'k mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Ask<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, _visitor: V) -> Result<V::Value, Error> {
        Err(Error::custom("there is no value"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        *self.0 = fields;
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_the_keys_of_every_table() {
        assert_eq!(keys::<Log>(), ["format", "filter", "requests"]);
        assert!(tables().iter().all(|(_, keys)| !keys.is_empty()));
        let listed = |path: &[&str]| tables().iter().any(|(table, _)| *table == path);
        for key in ["client", "log", "shutdown", "state"] {
            assert!(listed(&[key]), "{key}");
        }
    }
}
