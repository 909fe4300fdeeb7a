//! A place in a trace: where spans of one story hang, across processes and their ends.
//!
//! A rollout lives longer than the processes that work on it, so the ids of its spans are not drawn by whoever begins
//! them: they follow from the rollout's own id, and everyone who tells a part of the story knows under what it hangs.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A trace and a span in it. As text it is a `traceparent` of W3C's Trace Context, version 00, sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Place {
    /// The trace's id; never all zeros.
    pub trace: [u8; 16],
    /// The span's id; never all zeros.
    pub span: [u8; 8],
}

/// A text that names no place that is to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is no traceparent of something that is recorded: expected 00-TRACE-SPAN-01")]
pub struct Error;

impl Place {
    /// The first span of a trace of its own, named by what it is about.
    pub fn root(of: &str) -> Self {
        let hash = hash(&["trace", of]);
        let mut place = Self {
            trace: [0; 16],
            span: [0; 8],
        };
        place.trace.copy_from_slice(&hash[..16]);
        place.below(&["root", of])
    }

    /// A span in the same trace, named by what it is about.
    #[must_use]
    pub fn below(self, of: &[&str]) -> Self {
        let mut span = [0; 8];
        span.copy_from_slice(&hash(of)[..8]);
        Self { span, ..self }
    }
}

/// One in 2^64 would be all zeros, which names no span.
fn hash(of: &[&str]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    for part in of {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    hasher.finalize().into()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-01")
    }
}

impl std::str::FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<&str> = text.trim().split('-').collect();
        // Later versions may have more behind it.
        let ([version, trace, span, flags], []) = parts.split_at_checked(4).ok_or(Error)? else {
            return Err(Error);
        };
        let place = Self {
            trace: bytes(trace)?,
            span: bytes(span)?,
        };
        let [flags]: [u8; 1] = bytes(flags)?;
        let sampled = flags & 1 == 1;
        let named = place.trace != [0; 16] && place.span != [0; 8];
        (*version == "00" && sampled && named)
            .then_some(place)
            .ok_or(Error)
    }
}

fn bytes<const N: usize>(hex: &str) -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let lower = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    if hex.len() != 2 * N || !hex.as_bytes().iter().all(lower) {
        return Err(Error);
    }
    for (byte, digits) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| Error)?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| Error)?;
    }
    Ok(bytes)
}

impl TryFrom<String> for Place {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_its_text() {
        let place = Place::root("a").below(&["database", "orders"]);
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!(place.to_string().len(), 55);
    }

    #[test]
    fn the_same_story_has_the_same_ids_and_another_has_others() {
        assert_eq!(Place::root("a"), Place::root("a"));
        assert_ne!(Place::root("a").trace, Place::root("b").trace);
        let root = Place::root("a");
        assert_ne!(root.below(&["wave", "1"]), root.below(&["wave", "2"]));
        assert_ne!(root.below(&["ab", "c"]), root.below(&["a", "bc"]));
        assert_eq!(root.below(&["wave", "1"]).trace, root.trace);
    }

    #[test]
    fn what_names_nothing_that_is_recorded_is_refused() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let good = format!("00-{trace}-00f067aa0ba902b7-01");
        assert!(good.parse::<Place>().is_ok());
        for bad in [
            String::new(),
            format!("00-{trace}-00f067aa0ba902b7-00"),
            format!("00-{trace}-0000000000000000-01"),
            format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)),
            format!("01-{trace}-00f067aa0ba902b7-01"),
            format!("00-{}-00f067aa0ba902b7-01", trace.to_uppercase()),
            good[..54].to_owned(),
            format!("{good}-more"),
        ] {
            assert_eq!(bad.parse::<Place>(), Err(Error), "{bad}");
        }
    }
}
