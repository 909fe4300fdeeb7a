//! Durations as users write them: a plain number in the key's own unit, or a text with a unit (`"30s"`).

use serde::{Deserialize, Deserializer};
use std::time::Duration;

/// A duration whose plain numbers are milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Milliseconds(pub Duration);

/// A duration whose plain numbers are seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

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

/// A number or a text, as YAML has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Text(String),
}

impl Written {
    fn read(self, plain: Duration) -> Result<Duration, Error> {
        match self {
            Self::Number(number) => parse(&number.to_string(), plain),
            Self::Text(text) => parse(&text, plain),
        }
    }
}

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        written
            .read(Duration::from_millis(1))
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Written::deserialize(deserializer)?;
        written
            .read(Duration::from_secs(1))
            .map(Self)
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
