//! What must hold after a wave, before the rollout goes on.

use super::rule::Rule;
use serde::{Deserialize, Serialize};
use std::fmt;
use url::Url;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Check {
    /// Its name.
    pub name: String,
    /// What is asked.
    pub asks: Asks,
}

/// What a check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asks {
    /// A query that gives one boolean, on each database of the wave that is done, in a transaction that changes nothing.
    Sql(String),
    /// An expression, of a Prometheus server.
    Prometheus {
        /// The server's address, without `/api/v1/query`.
        server: String,
        /// The expression, in `PromQL`.
        expression: String,
        /// What each value of the answer must fulfil.
        condition: Condition,
    },
}

/// What a number must fulfil: `< 0.01`.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "String")]
pub struct Condition {
    compare: Compare,
    /// Finite.
    number: f64,
}

impl Eq for Condition {}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    Other,
}

/// What is wrong with a check.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one short line.
    #[error(
        "a check needs a `name` of one line, of 1 to {} characters",
        Rule::LONGEST_NAME
    )]
    Name,
    /// Neither or both.
    #[error("check `{0}`: it asks either by `sql`, or by `promql` with `condition` and `prometheus`")]
    Asks(String),
    /// Nothing to be asked, or too long.
    #[error("check `{0}`: its query must have 1 to {LONGEST_QUERY} characters")]
    Query(String),
    /// No such comparison.
    #[error(
        "check `{name}`: `{given}` is no condition: write one such as `< 0.01`, with <, <=, >, >=, == or !="
    )]
    Condition {
        /// Of the check.
        name: String,
        /// As written.
        given: String,
    },
    /// Not an address.
    #[error(
        "check `{0}`: `prometheus` must be a URL such as http://prometheus:9090, without user and password"
    )]
    Server(String),
}

/// In bytes; as much as fits the record of a rollout.
const LONGEST_QUERY: usize = 4_000;

impl Check {
    /// A check whose parts make sense.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn checked(self) -> Result<Self, Error> {
        let length = self.name.chars().count();
        if !(1..=Rule::LONGEST_NAME).contains(&length) || self.name.chars().any(char::is_control) {
            return Err(Error::Name);
        }
        let query = match &self.asks {
            Asks::Sql(query) => query,
            Asks::Prometheus { expression, .. } => expression,
        };
        if query.trim().is_empty() || query.len() > LONGEST_QUERY {
            return Err(Error::Query(self.name));
        }
        if let Asks::Prometheus { server, .. } = &self.asks {
            let is_address = |url: &Url| {
                matches!(url.scheme(), "http" | "https")
                    && url.has_host()
                    && url.username().is_empty()
                    && url.password().is_none()
            };
            if !Url::parse(server).is_ok_and(|url| is_address(&url)) {
                return Err(Error::Server(self.name));
            }
        }
        Ok(self)
    }
}

/// The text compares with nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no condition: write one such as `< 0.01`, with <, <=, >, >=, == or !=")]
pub struct NoCondition(String);

impl TryFrom<String> for Condition {
    type Error = NoCondition;

    fn try_from(given: String) -> Result<Self, NoCondition> {
        Self::parse(&given).ok_or(NoCondition(given))
    }
}

impl Condition {
    /// Reads `< 0.01`; `None` when it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (compare, number) = COMPARISONS
            .iter()
            .find_map(|(compare, sign)| Some((*compare, text.strip_prefix(sign)?)))?;
        let number = number
            .trim()
            .parse()
            .ok()
            .filter(|number: &f64| number.is_finite())?;
        Some(Self { compare, number })
    }

    /// Whether a value fulfils it; not a number fulfils none.
    #[expect(clippy::float_cmp, reason = "that is what was asked for")]
    pub fn holds(self, value: f64) -> bool {
        let Self { compare, number } = self;
        !value.is_nan()
            && match compare {
                Compare::Less => value < number,
                Compare::AtMost => value <= number,
                Compare::Greater => value > number,
                Compare::AtLeast => value >= number,
                Compare::Equal => value == number,
                Compare::Other => value != number,
            }
    }
}

/// The longer signs first.
const COMPARISONS: [(Compare, &str); 6] = [
    (Compare::AtMost, "<="),
    (Compare::AtLeast, ">="),
    (Compare::Equal, "=="),
    (Compare::Other, "!="),
    (Compare::Less, "<"),
    (Compare::Greater, ">"),
];

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut signs = COMPARISONS.iter();
        let sign = signs.find(|(compare, _)| *compare == self.compare);
        write!(f, "{} {}", sign.map_or("", |(_, sign)| sign), self.number)
    }
}

/// A check as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    promql: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    condition: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prometheus: Option<String>,
}

impl TryFrom<Written> for Check {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        let name = written.name;
        if name.is_empty() {
            return Err(Error::Name);
        }
        let asks = match (written.sql, written.promql, written.condition, written.prometheus) {
            (Some(query), None, None, None) => Asks::Sql(query),
            (None, Some(expression), Some(given), Some(server)) => match Condition::parse(&given) {
                Some(condition) => Asks::Prometheus {
                    server,
                    expression,
                    condition,
                },
                None => return Err(Error::Condition { name, given }),
            },
            _ => return Err(Error::Asks(name)),
        };
        Self { name, asks }.checked()
    }
}

impl From<Check> for Written {
    fn from(check: Check) -> Self {
        let name = check.name;
        match check.asks {
            Asks::Sql(query) => Self {
                name,
                sql: Some(query),
                ..Self::default()
            },
            Asks::Prometheus {
                server,
                expression,
                condition,
            } => Self {
                name,
                promql: Some(expression),
                condition: Some(condition.to_string()),
                prometheus: Some(server),
                ..Self::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_holds_for_what_it_says() {
        for (text, holds, fails) in [
            ("< 0.01", 0.0, 0.01),
            ("<= 1", 1.0, 1.5),
            ("> -1", 0.0, -1.0),
            (">=2", 2.0, 1.9),
            ("== 0", 0.0, 1.0),
            ("!= 0", 1.0, 0.0),
        ] {
            let condition = Condition::parse(text).unwrap();
            assert!(condition.holds(holds), "{text}");
            assert!(!condition.holds(fails) && !condition.holds(f64::NAN), "{text}");
            assert_eq!(Condition::parse(&condition.to_string()), Some(condition));
        }
        for text in ["", "0.01", "< ", "=< 1", "< inf", "< NaN"] {
            assert_eq!(Condition::parse(text), None, "{text}");
        }
    }
}
