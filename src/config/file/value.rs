//! Values that the file writes as text with a unit, counts, and statuses.
//!
//! A [`Form`] says how one kind of value is written; [`Written`] reads any of
//! them through serde and says, for a value of another kind, how to write it.
//! The parsers themselves are in `rate`, `size` and `duration`.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::time::Duration;

use http::StatusCode;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use crate::config::fault::{Fault, quote};
use crate::config::rate::{self, Rate};
use crate::config::{Guard, Http2, duration, size};

/// How one kind of value is written.
pub(in crate::config) trait Form: Sized {
    /// What to expect, for messages: "a duration such as ...".
    const EXPECTED: &'static str;

    /// Reads the text of a string.
    fn read(text: &str) -> Result<Self, Fault>;

    /// How `number`, written bare, was probably meant.
    fn with_unit(number: u64) -> String;
}

/// A value read in its [`Form`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Written<T>(pub(in crate::config) T);

/// A size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Bytes(pub(in crate::config) u64);

/// A duration, or the word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Bound(pub(in crate::config) Option<Duration>);

/// A duration that may be none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Pause(pub(in crate::config) Duration);

/// So many of a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Percent(pub(in crate::config) u32);

/// A whole number of at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Count(pub(in crate::config) NonZeroU32);

/// A whole number, zero included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Number(pub(in crate::config) u32);

/// The status of a final response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::config) struct Status(pub(in crate::config) StatusCode);

impl Form for Duration {
    const EXPECTED: &'static str = duration::EXPECTED;

    fn read(text: &str) -> Result<Self, Fault> {
        duration::parse(text)
    }

    fn with_unit(number: u64) -> String {
        format!("{number}s")
    }
}

impl Form for Bytes {
    const EXPECTED: &'static str = size::EXPECTED;

    fn read(text: &str) -> Result<Self, Fault> {
        size::parse(text).map(Self)
    }

    fn with_unit(number: u64) -> String {
        size::show(number)
    }
}

impl Form for Rate {
    const EXPECTED: &'static str = "a rate such as `10/s`, `600/min` or `100/10s`";

    fn read(text: &str) -> Result<Self, Fault> {
        rate::parse(text)
    }

    fn with_unit(number: u64) -> String {
        format!("{number}/s")
    }
}

impl Form for Guard {
    const EXPECTED: &'static str = "`auto` or a duration such as `250ms`";

    fn read(text: &str) -> Result<Self, Fault> {
        word_or_duration::<Self>(text, "auto").map(|time| time.map_or(Self::Auto, Self::Fixed))
    }

    /// Few requests are on their way for seconds.
    fn with_unit(number: u64) -> String {
        let unit = if number < 10 { "s" } else { "ms" };
        format!("{number}{unit}")
    }
}

impl Form for Bound {
    const EXPECTED: &'static str = "`off` or a duration such as `5min`";

    fn read(text: &str) -> Result<Self, Fault> {
        word_or_duration::<Self>(text, "off").map(Self)
    }

    fn with_unit(number: u64) -> String {
        Duration::with_unit(number)
    }
}

impl Form for Pause {
    const EXPECTED: &'static str = "a duration such as `30s`, or `0s`";

    fn read(text: &str) -> Result<Self, Fault> {
        duration::parse_or_zero(text).map(Self)
    }

    fn with_unit(number: u64) -> String {
        Duration::with_unit(number)
    }
}

impl Form for Percent {
    const EXPECTED: &'static str = "`0%` to `100%`";

    fn read(text: &str) -> Result<Self, Fault> {
        let number = text.trim().strip_suffix('%').map(str::trim_end);
        let number = number.and_then(|number| number.parse().ok());
        number
            .filter(|number| *number <= 100)
            .map(Self)
            .ok_or_else(|| {
                let text = format!(
                    "{} is not a share, expected {}",
                    quote(text),
                    Self::EXPECTED
                );
                Fault::new(text)
            })
    }

    fn with_unit(number: u64) -> String {
        format!("{number}%")
    }
}

/// `None` for the word; else the duration.
fn word_or_duration<T: Form>(text: &str, word: &str) -> Result<Option<Duration>, Fault> {
    if text == word {
        return Ok(None);
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return duration::parse(text).map(Some);
    }
    Err(Fault::new(format!(
        "{} is not known, expected {}",
        quote(text),
        T::EXPECTED
    )))
}

/// The fault of a bare number where a form with a unit is expected.
pub(super) fn bare<T: Form>(number: impl fmt::Display) -> Fault {
    let number = number.to_string();
    if number.starts_with('-') {
        let text = format!("`{number}` is negative, expected {}", T::EXPECTED);
        return Fault::new(text);
    }
    let fault = Fault::new(format!("`{number}` has no unit, expected {}", T::EXPECTED));
    match number.parse() {
        Ok(0) | Err(_) => fault,
        Ok(number) => fault.hint(format!("did you mean \"{}\"?", T::with_unit(number))),
    }
}

impl<'de, T: Form> Deserialize<'de> for Written<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(FormVisitor(PhantomData))
    }
}

struct FormVisitor<T>(PhantomData<T>);

impl<T: Form> Visitor<'_> for FormVisitor<T> {
    type Value = Written<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::read(text).map(Written).map_err(E::custom)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Err(E::custom(bare::<T>(number)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Err(E::custom(bare::<T>(number)))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Err(E::custom(bare::<T>(number)))
    }
}

impl<'de> Deserialize<'de> for Http2 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Http2Visitor)
    }
}

struct Http2Visitor;

impl Visitor<'_> for Http2Visitor {
    type Value = Http2;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`true`, `false` or `\"prior-knowledge\"`")
    }

    fn visit_bool<E: Error>(self, offered: bool) -> Result<Http2, E> {
        Ok(if offered { Http2::Offered } else { Http2::Off })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Http2, E> {
        match text {
            "prior-knowledge" => Ok(Http2::PriorKnowledge),
            _ => Err(E::custom(Fault::new(format!(
                "{} is not known, expected `true`, `false` or `prior-knowledge`",
                quote(text)
            )))),
        }
    }
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberVisitor)
    }
}

struct NumberVisitor;

impl Visitor<'_> for NumberVisitor {
    type Value = Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Number, E> {
        let negative = |_negative| {
            E::custom(Fault::new(format!(
                "`{number}` is negative, expected a whole number of at least 0"
            )))
        };
        self.visit_u64(u64::try_from(number).map_err(negative)?)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Number, E> {
        let large = |_large| {
            E::custom(Fault::new(format!(
                "`{number}` is too large, expected at most {}",
                u32::MAX
            )))
        };
        u32::try_from(number).map(Number).map_err(large)
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CountVisitor)
    }
}

struct CountVisitor;

impl Visitor<'_> for CountVisitor {
    type Value = Count;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of at least 1")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Count, E> {
        if number < 1 {
            let text = format!("`{number}` is too small, expected a whole number of at least 1");
            return Err(E::custom(Fault::new(text)));
        }
        self.visit_u64(number.unsigned_abs())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Count, E> {
        u32::try_from(number)
            .ok()
            .and_then(NonZeroU32::new)
            .map(Count)
            .ok_or_else(|| {
                let text = format!("`{number}` is too large, expected at most {}", u32::MAX);
                E::custom(Fault::new(text))
            })
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Count, E> {
        match text.parse::<NonZeroU32>() {
            Ok(number) => Err(E::custom(
                Fault::new(format!(
                    "{} is a string, expected a whole number",
                    quote(text)
                ))
                .meant(Some(number)),
            )),
            Err(_) => Err(E::invalid_type(Unexpected::Str(text), &self)),
        }
    }
}

impl Status {
    /// Reads the number of a status.
    pub(super) fn read(number: i64) -> Result<Self, Fault> {
        u16::try_from(number)
            .ok()
            .filter(|number| (200..600).contains(number))
            .and_then(|number| StatusCode::from_u16(number).ok())
            .map(Self)
            .ok_or_else(|| Fault::new(format!("`{number}` is not a status, expected 200 to 599")))
    }
}

impl<'de> Deserialize<'de> for Status {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StatusVisitor)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a status from 200 to 599")
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Status, E> {
        Status::read(number).map_err(E::custom)
    }
}
