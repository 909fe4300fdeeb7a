//! How the rows of a table are gone about: by their number, or as somebody says.

use super::{Pacing, Refusal, TableFacts};
use crate::migration::Set;
use crate::name::{self, Table};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// How the rows of a table are gone about.
///
/// Its number of rows names one, for people: batches keep to the pace that the server's health allows whatever the
/// number. One that is said ([`Strategies`]) changes what is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
pub enum Strategy {
    /// Below 100,000 rows: a few batches, done in seconds. Said: batches at full speed, without the author's pauses.
    Direct,
    /// Below a million. Said: at the pace that the server's health allows, whatever the author of a step asks for.
    Batched,
    /// Below ten million: better in hours of little traffic. Said: like [`Self::Batched`], and the policy must give such hours.
    OffPeak,
    /// Below 100 million: it goes on for hours beside the applications. Said: like [`Self::Batched`].
    Online,
    /// Beyond: a new schema or server beside the old one is worth a thought. Said: batches are refused.
    BlueGreen,
}

impl Strategy {
    const ALL: [Self; 5] = [
        Self::Direct,
        Self::Batched,
        Self::OffPeak,
        Self::Online,
        Self::BlueGreen,
    ];

    /// The one for so many rows.
    pub fn of(rows: u64) -> Self {
        match rows {
            0..100_000 => Self::Direct,
            100_000..1_000_000 => Self::Batched,
            1_000_000..10_000_000 => Self::OffPeak,
            10_000_000..100_000_000 => Self::Online,
            100_000_000.. => Self::BlueGreen,
        }
    }

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Batched => "batched",
            Self::OffPeak => "batched_off_peak",
            Self::Online => "online",
            Self::BlueGreen => "blue_green",
        }
    }

    /// The one of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|strategy| strategy.as_str() == name)
    }

    /// Size and pace of batches on a table of which this was said.
    fn pacing(self, table: &TableFacts, author: Pacing) -> Result<Pacing, Refusal> {
        match self {
            Self::Direct => Ok(Pacing {
                pause: Duration::ZERO,
                max_duty: Some(1.0),
                ..author
            }),
            Self::Batched | Self::OffPeak | Self::Online => Ok(Pacing {
                pause: Duration::ZERO,
                target: None,
                max_duty: None,
                ..author
            }),
            Self::BlueGreen => Err(Refusal::Unsafe {
                what: format!(
                    "the strategy said for {} is blue_green, and this step would change its rows in batches",
                    table.full_name()
                ),
                advice: Some(
                    "bring the change with a new table or server beside the old one, in steps that create it and fill it; or say another strategy"
                        .to_owned(),
                ),
            }),
        }
    }
}

impl From<Strategy> for &'static str {
    fn from(strategy: Strategy) -> Self {
        strategy.as_str()
    }
}

impl TryFrom<String> for Strategy {
    type Error = Unknown;
    fn try_from(name: String) -> Result<Self, Unknown> {
        Self::named(&name).ok_or(Unknown(name))
    }
}

/// There is no strategy of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no strategy `{0}`: it is one of direct, batched, batched_off_peak, online, blue_green")]
pub struct Unknown(String);

/// The tables for which a strategy is said.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Tables {
    /// This one; one without a schema is in any.
    Named(Table),
    /// All of which nothing else is said.
    All,
}

const ALL: &str = "*";

impl fmt::Display for Tables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(table) => table.fmt(f),
            Self::All => f.write_str(ALL),
        }
    }
}

impl From<Tables> for String {
    fn from(tables: Tables) -> Self {
        tables.to_string()
    }
}

impl TryFrom<String> for Tables {
    type Error = name::Error;
    fn try_from(written: String) -> Result<Self, name::Error> {
        match written.as_str() {
            ALL => Ok(Self::All),
            name => Table::parse(name).map(Self::Named),
        }
    }
}

/// One strategy as it is said on a command line: `TABLE=STRATEGY`, or `STRATEGY` for all tables.
///
/// # Errors
/// When there is no such strategy, or the table's name is none.
pub fn said(text: &str) -> Result<(Tables, Strategy), String> {
    let (tables, strategy) = match text.rsplit_once('=') {
        Some((table, strategy)) => (table, strategy),
        None => (ALL, text),
    };
    let tables = Tables::try_from(tables.to_owned()).map_err(|error| error.to_string())?;
    let strategy = Strategy::try_from(strategy.to_owned()).map_err(|error| error.to_string())?;
    Ok((tables, strategy))
}

/// The strategies that somebody says, which come before what the authors of steps ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Strategies(BTreeMap<Tables, Strategy>);

impl Strategies {
    /// Says one; it replaces what was said of the same tables.
    pub fn say(&mut self, tables: Tables, strategy: Strategy) {
        self.0.insert(tables, strategy);
    }

    /// Whether none is said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Tables, Strategy)> {
        self.0.iter().map(|(tables, strategy)| (tables, *strategy))
    }

    /// What is said of a table: with its schema, without, or of all.
    pub fn of(&self, table: &TableFacts) -> Option<Strategy> {
        let named = |schema| {
            let name = table.name.clone();
            Tables::Named(Table { schema, name })
        };
        let of = [named(Some(table.schema.clone())), named(None), Tables::All];
        of.iter().find_map(|tables| self.0.get(tables)).copied()
    }

    /// Size and pace of batches on a table: what the author of a step asks for, or what is said instead.
    ///
    /// # Errors
    /// When no batches are to be run there.
    pub fn pacing(&self, table: &TableFacts, author: Pacing) -> Result<Pacing, Refusal> {
        self.of(table)
            .map_or(Ok(author), |strategy| strategy.pacing(table, author))
    }

    /// Passes unless a table is named that no step of a set names: a slip would be without effect.
    ///
    /// # Errors
    /// Says which.
    pub fn fit(&self, set: &Set) -> Result<(), String> {
        let scripts = (set.migrations.iter()).flat_map(|of| [Some(&of.up), of.down.as_ref()]);
        let steps = scripts.flatten().flat_map(|script| &script.steps);
        let there: Vec<&Table> = steps.flat_map(|step| step.change.tables()).collect();
        let may_be = |said: &Table, there: &Table| {
            let schemas = said.schema.as_ref().zip(there.schema.as_ref());
            said.name == there.name && schemas.is_none_or(|(said, there)| said == there)
        };
        let lost = self.0.keys().find_map(|tables| match tables {
            Tables::Named(said) if !there.iter().any(|there| may_be(said, there)) => Some(said),
            Tables::Named(_) | Tables::All => None,
        });
        lost.map_or(Ok(()), |table| {
            Err(format!(
                "a strategy is said for table {table}, but no step of the migrations names it"
            ))
        })
    }
}

impl fmt::Display for Strategies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (tables, strategy)) in self.iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            match tables {
                Tables::Named(table) => write!(f, "{comma}{table} {}", strategy.as_str())?,
                Tables::All => write!(f, "{comma}all tables {}", strategy.as_str())?,
            }
        }
        Ok(())
    }
}

impl FromIterator<(Tables, Strategy)> for Strategies {
    fn from_iter<I: IntoIterator<Item = (Tables, Strategy)>>(said: I) -> Self {
        Self(said.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::File;

    fn strategies(texts: &[&str]) -> Strategies {
        texts.iter().map(|text| said(text).unwrap()).collect()
    }

    fn set() -> Set {
        let step = "up:\n  - backfill: { table: shop.orders, set: { m: n * 2 } }\n";
        let file = File {
            path: "001_a.yaml".to_owned(),
            content: step.into(),
        };
        Set::parse(None, &[file]).unwrap()
    }

    #[test]
    fn the_strategy_follows_the_number_of_rows() {
        let strategies: Vec<_> = [0, 99_999, 100_000, 1_000_000, 10_000_000, 100_000_000]
            .into_iter()
            .map(|rows| Strategy::of(rows).as_str())
            .collect();
        assert_eq!(
            strategies,
            [
                "direct",
                "direct",
                "batched",
                "batched_off_peak",
                "online",
                "blue_green"
            ]
        );
    }

    #[test]
    fn every_strategy_is_known_by_its_name() {
        for strategy in Strategy::ALL {
            assert_eq!(Strategy::named(strategy.as_str()), Some(strategy));
        }
        assert!(said("t=fast").unwrap_err().contains("one of direct, batched"));
    }

    #[test]
    fn what_is_said_is_read_shown_and_stored() {
        let strategies = strategies(&["online", "\"Odd=Name\"=direct", "shop.orders=blue_green"]);
        assert_eq!(
            strategies.to_string(),
            "\"Odd=Name\" direct, \"shop\".\"orders\" blue_green, all tables online"
        );
        let json = serde_json::to_string(&strategies).unwrap();
        assert_eq!(
            serde_json::from_str::<Strategies>(&json).unwrap(),
            strategies,
            "{json}"
        );
        assert!(said("=direct").is_err());
        assert!(said("").is_err());
    }

    #[test]
    fn a_table_that_no_step_names_is_told() {
        for fits in ["orders=direct", "shop.orders=direct", "direct"] {
            assert_eq!(strategies(&[fits]).fit(&set()), Ok(()), "{fits}");
        }
        for lost in ["order=direct", "public.orders=direct"] {
            let told = strategies(&["online", lost]).fit(&set()).unwrap_err();
            assert!(told.contains("no step of the migrations names it"), "{told}");
        }
    }
}
