//! Durations as users write them: a plain number in the key's own unit, or a text with a unit (`"30s"`).

use crate::yaml::SCALAR;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A duration whose plain numbers are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milliseconds(pub Duration);

/// A duration whose plain numbers are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// A duration that says its unit: where nothing tells which one a plain number would be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WithUnit(pub Duration);

/// The text was not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a duration: write a number with a unit, such as 500ms, 30s, 5min or 1h")]
pub struct Error(pub String);

/// Reads a number with a unit (`ms`, `s`, `min` or `m`, `h`, `d`), or a plain one in `plain` units.
///
/// # Errors
/// When it is neither, negative, or too large.
pub fn parse(text: &str, plain: Duration) -> Result<Duration, Error> {
    let error = || Error(text.to_owned());
    let trimmed = text.trim();
    let split = trimmed
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(trimmed.len());
    let (number, unit) = trimmed.split_at(split);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = match unit.trim() {
        "" => plain,
        "ms" => Duration::from_millis(1),
        "s" => Duration::from_secs(1),
        "m" | "min" => Duration::from_mins(1),
        "h" => Duration::from_hours(1),
        "d" => Duration::from_hours(24),
        _ => return Err(error()),
    };
    Duration::try_from_secs_f64(number * unit.as_secs_f64()).map_err(|_| error())
}

/// Whether zero is a value of a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zero {
    /// It is not.
    Refused,
    /// It switches a limit off.
    Off,
}

/// Passes a duration that can bound something: at least a millisecond, and no more than PostgreSQL can count (2^31 ms).
///
/// # Errors
/// One sentence.
pub fn bounded(duration: Duration, zero: Zero) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(24 * 24);
    if duration.is_zero() {
        return match zero {
            Zero::Refused => Err("it must be more than zero".to_owned()),
            Zero::Off => Ok(duration),
        };
    }
    if duration < Duration::from_millis(1) {
        return Err("it must be at least 1ms".to_owned());
    }
    if duration > LONGEST {
        return Err("it must be at most 24 days".to_owned());
    }
    Ok(duration)
}

/// A number or a text, as YAML has it; plain numbers are of the unit, where there is one.
struct Written(Option<Duration>);

impl<'de> Visitor<'de> for Written {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 500ms, 30s, 5min or 1h")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Duration, E> {
        let has_unit = text.trim().ends_with(|c: char| c.is_ascii_alphabetic());
        match self.0 {
            None if !has_unit => Err(E::custom(Error(text.to_owned()))),
            plain => parse(text, plain.unwrap_or_default()).map_err(E::custom),
        }
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Duration, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Duration, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_newtype_struct(SCALAR, Written(Some(Duration::from_millis(1))))
            .map(Self)
    }
}

/// With its unit, as it is read.
impl Serialize for WithUnit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for WithUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0.as_secs_f64())
    }
}

impl<'de> Deserialize<'de> for WithUnit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_newtype_struct(SCALAR, Written(None))
            .map(Self)
    }
}

/// With its unit, as it is read.
impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}s", self.0.as_secs_f64()))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_newtype_struct(SCALAR, Written(Some(Duration::from_secs(1))))
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_is_neither_nothing_nor_more_than_postgresql_counts() {
        assert_eq!(bounded(Duration::ZERO, Zero::Off), Ok(Duration::ZERO));
        assert!(bounded(Duration::ZERO, Zero::Refused).is_err());
        assert!(bounded(Duration::from_micros(1), Zero::Off).is_err());
        assert!(bounded(Duration::from_hours(25 * 24), Zero::Off).is_err());
    }

    #[test]
    fn yaml_and_json_may_write_a_number_or_a_text() {
        let milliseconds = |text: &str| {
            let node = crate::yaml::parse(text).unwrap().unwrap();
            crate::yaml::read::<Milliseconds>(&node)
                .map(|read| read.0)
                .map_err(|error| error.what)
        };
        assert_eq!(milliseconds("1500"), Ok(Duration::from_millis(1500)));
        assert_eq!(milliseconds("0.5s"), Ok(Duration::from_millis(500)));
        assert!(
            milliseconds("soon")
                .unwrap_err()
                .contains("`soon` is not a duration")
        );
        assert_eq!(
            serde_json::from_str::<Seconds>("30").unwrap().0,
            Duration::from_secs(30)
        );
        assert_eq!(
            serde_json::from_str::<Seconds>("\"2min\"").unwrap().0,
            Duration::from_mins(2)
        );
    }

    #[test]
    fn plain_numbers_carry_the_keys_unit_and_texts_their_own() {
        let ms = Duration::from_millis(1);
        assert_eq!(parse("30000", ms), Ok(Duration::from_secs(30)));
        assert_eq!(parse("30s", ms), Ok(Duration::from_secs(30)));
        assert_eq!(parse("1.5 h", ms), Ok(Duration::from_mins(90)));
        assert_eq!(parse("5min", ms), Ok(Duration::from_mins(5)));
        for bad in ["", "s", "-1", "1 year", "1e9999d", "1..2s"] {
            assert!(parse(bad, ms).is_err(), "{bad}");
        }
    }
}
