//! Entries that may be written in two ways.
//!
//! `listen` is a string or an array of them, a limit is a rate or a table, a
//! dialect is a name or a table, a signal is a status or a table, a header
//! field is its text or the place to read it from. An untagged enum would lose
//! the place and the reason of an error inside, so each has a visitor by hand.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::value::{Form, Status, Written, bare};
use super::{Fields, LimitTable, SignalTable, Source};
use crate::config::fault::Fault;
use crate::config::rate::Rate;

/// One address, which stands where the whole entry does, or several.
#[derive(Debug)]
pub(in crate::config) enum Addresses {
    One(String),
    Several(Vec<Spanned<String>>),
}

/// A limit; a bare rate is a table with only that.
#[derive(Debug)]
pub(in crate::config) struct Limit(pub(in crate::config) LimitTable);

/// How responses say what is left.
#[derive(Debug)]
pub(in crate::config) enum Dialect {
    /// One that is built in, by its name.
    Named(String),
    /// The fields that say it.
    Fields(Fields),
}

/// An answer that means "too many"; a bare status is a table with only that.
#[derive(Debug)]
pub(in crate::config) struct Signal(pub(in crate::config) SignalTable);

/// The value of a header field. `Debug` never shows it.
pub(in crate::config) enum Header {
    /// In the file itself.
    Text(String),
    /// To be read from elsewhere.
    From(Source),
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hidden]")
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesVisitor)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an address such as `127.0.0.1:8080`, or an array of them")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Addresses, E> {
        Ok(Addresses::One(text.to_owned()))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Addresses, E> {
        let text = format!("`{number}` is not an address, expected one such as `127.0.0.1:8080`");
        let near = u16::try_from(number).ok();
        Err(E::custom(match near {
            Some(port) => Fault::new(text).hint(format!("did you mean \"127.0.0.1:{port}\"?")),
            None => Fault::new(text),
        }))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Addresses, A::Error> {
        let mut several = Vec::new();
        while let Some(item) = items.next_element()? {
            several.push(item);
        }
        Ok(Addresses::Several(several))
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LimitVisitor)
    }
}

struct LimitVisitor;

impl<'de> Visitor<'de> for LimitVisitor {
    type Value = Limit;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a rate such as `10/s`, or a table such as `{ rate = \"10/s\", burst = 1 }`")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Limit, E> {
        let rate = Rate::read(text).map_err(E::custom)?;
        Ok(Limit(LimitTable {
            rate: Some(Written(rate)),
            ..LimitTable::default()
        }))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Limit, E> {
        Err(E::custom(bare::<Rate>(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Limit, E> {
        Err(E::custom(bare::<Rate>(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Limit, E> {
        Err(E::custom(bare::<Rate>(number)))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Limit, A::Error> {
        LimitTable::deserialize(MapAccessDeserializer::new(map)).map(Limit)
    }
}

impl<'de> Deserialize<'de> for Dialect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DialectVisitor)
    }
}

struct DialectVisitor;

impl<'de> Visitor<'de> for DialectVisitor {
    type Value = Dialect;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name such as `ietf`, or a table of field names")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Dialect, E> {
        Ok(Dialect::Named(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Dialect, A::Error> {
        Fields::deserialize(MapAccessDeserializer::new(map)).map(Dialect::Fields)
    }
}

impl<'de> Deserialize<'de> for Signal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SignalVisitor)
    }
}

struct SignalVisitor;

impl<'de> Visitor<'de> for SignalVisitor {
    type Value = Signal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a status such as `429`, or a table such as `{ status = 503, header = \"retry-after\" }`",
        )
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Signal, E> {
        let status = Status::read(number).map_err(E::custom)?;
        Ok(Signal(SignalTable {
            status: Some(status),
            ..SignalTable::default()
        }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Signal, A::Error> {
        SignalTable::deserialize(MapAccessDeserializer::new(map)).map(Signal)
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a string, or a table such as `{ file = \"path\" }` or `{ credential = \"name\" }`",
        )
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Header, E> {
        Ok(Header::Text(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Header, A::Error> {
        Source::deserialize(MapAccessDeserializer::new(map)).map(Header::From)
    }
}
