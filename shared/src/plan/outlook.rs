//! What a step will be like on one database: how it goes about its tables, on how many rows, and for how long.

use super::{Action, Facts, Length, Strategy};
use crate::index::Work as IndexWork;
use crate::migration::Version;
use crate::migration::steps::{Change, Outside};
use std::time::Duration;

/// What a set would do on one database.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What is to be run, in order; empty where everything is there.
    pub migrations: Vec<MigrationOutlook>,
    /// Why nothing can be run there, for people.
    pub refused: Option<String>,
}

/// What one migration would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationOutlook {
    /// Which.
    pub version: Version,
    /// Its name.
    pub name: String,
    /// What is left of it, in order.
    pub steps: Vec<StepOutlook>,
}

/// What one step would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepOutlook {
    /// From 1.
    pub number: u32,
    /// What it does, for people.
    pub title: String,
    /// What kind of work that is.
    pub work: Work,
    /// Rows of the tables it goes through, by the planner's statistics; 0 where it goes through none, or they are not
    /// known.
    pub rows: u64,
    /// How long it will take; `None` where that cannot be said.
    pub estimate: Option<Duration>,
    /// What the estimate rests on, or why there is none, for people.
    pub basis: String,
    /// How its rows are to be gone about as somebody says.
    pub said: Option<Strategy>,
}

/// Kinds of work, by what they mean for the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Nothing is to be done.
    Nothing,
    /// The catalog alone: one short transaction.
    Catalog,
    /// Rows are read, and nobody waits for it.
    Scan,
    /// Rows are changed in batches.
    Batches,
    /// An index is built beside the work of applications.
    Index,
    /// A table is written anew with all others shut out.
    Rewrite,
    /// Statements as their author wrote them.
    Statements,
    /// Known only once earlier steps have run.
    Later,
}

/// Rows a second that work goes through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// How many.
    pub rows: f64,
    /// Whether this database has shown it.
    pub measured: bool,
}

/// Of batches, where nothing was measured: what a small server does beside applications.
const BATCHES: f64 = 20_000.0;

/// Of reading a table.
const SCAN: f64 = 1_000_000.0;

/// Of building an index concurrently: two scans and a sort.
const INDEX: f64 = 200_000.0;

impl Rate {
    /// What batches are taken to do on a database without a history.
    pub const ASSUMED: Self = Self {
        rows: BATCHES,
        measured: false,
    };
}

impl Work {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Catalog => "catalog",
            Self::Scan => "scan",
            Self::Batches => "batches",
            Self::Index => "index",
            Self::Rewrite => "rewrite",
            Self::Statements => "statements",
            Self::Later => "later",
        }
    }

    /// The kind of this name.
    pub fn named(name: &str) -> Option<Self> {
        let all = [
            Self::Nothing,
            Self::Catalog,
            Self::Scan,
            Self::Batches,
            Self::Index,
            Self::Rewrite,
            Self::Statements,
            Self::Later,
        ];
        all.into_iter().find(|work| work.as_str() == name)
    }
}

impl StepOutlook {
    /// How its rows are gone about; nothing where it does not change rows.
    pub fn strategy(&self) -> Option<Strategy> {
        let by_rows = (self.work == Work::Batches).then(|| Strategy::of(self.rows));
        self.said.or(by_rows)
    }

    /// A step that can be planned, with the facts it was planned by.
    pub fn of(number: u32, change: &Change, actions: &[Action], facts: &Facts, batches: Rate) -> Self {
        let work = (actions.iter().map(work_of)).max_by_key(|work| weight(*work));
        let work = match (work, change) {
            (Some(Work::Catalog), Change::Sql(_)) => Work::Statements,
            (work, _) => work.unwrap_or(Work::Nothing),
        };
        let table = rows_of(change, facts);
        let changed: u64 = (actions.iter())
            .filter_map(|action| match action {
                Action::Batches(batches) => Some(batches.estimated_rows()),
                _ => None,
            })
            .sum();
        let rows = match work {
            Work::Batches => changed.max(table),
            Work::Scan | Work::Index | Work::Rewrite => table,
            Work::Nothing | Work::Catalog | Work::Statements | Work::Later => 0,
        };
        let (estimate, basis) = estimate(work, actions, rows, batches);
        Self {
            number,
            title: change.title(),
            work,
            rows,
            estimate,
            basis,
            said: (work == Work::Batches).then(|| said_of(change, facts)).flatten(),
        }
    }

    /// A step that can be planned only when its turn comes.
    pub fn later(number: u32, change: &Change, why: &str) -> Self {
        Self {
            number,
            title: change.title(),
            work: Work::Later,
            rows: 0,
            estimate: None,
            basis: why.to_owned(),
            said: None,
        }
    }
}

fn work_of(action: &Action) -> Work {
    match action {
        Action::Transaction(transaction) if transaction.length == Length::Long => Work::Scan,
        Action::Transaction(_) | Action::Index(IndexWork::Remove(_)) => Work::Catalog,
        Action::Batches(_) => Work::Batches,
        Action::Assert(_) => Work::Scan,
        Action::Outside(alone) if alone.outside == Outside::Rewrite => Work::Rewrite,
        Action::Outside(_) => Work::Statements,
        Action::Index(IndexWork::Create(_) | IndexWork::CreateParts(_) | IndexWork::Rebuild(_)) => {
            Work::Index
        }
        Action::LookAgain => Work::Nothing,
    }
}

/// The heaviest part of a step names it.
fn weight(work: Work) -> u8 {
    match work {
        Work::Nothing => 0,
        Work::Catalog => 1,
        Work::Scan => 2,
        Work::Statements => 3,
        Work::Index => 4,
        Work::Rewrite => 5,
        Work::Batches => 6,
        Work::Later => 7,
    }
}

/// Rows of the tables a step names.
fn rows_of(change: &Change, facts: &Facts) -> u64 {
    let tables = change
        .tables()
        .into_iter()
        .filter_map(|table| facts.table(table).ok());
    let parts = tables.flat_map(|table| &table.parts);
    parts.map(|part| part.estimated_rows).sum()
}

/// What is said of the table that a step names first, as one that works in batches does.
fn said_of(change: &Change, facts: &Facts) -> Option<Strategy> {
    let table = facts.find(change.tables().first()?)?;
    facts.strategies.of(table)
}

/// How long the parts take one after the other, and what that rests on.
fn estimate(work: Work, actions: &[Action], rows: u64, batches: Rate) -> (Option<Duration>, String) {
    match work {
        Work::Nothing | Work::Catalog => return (Some(Duration::ZERO), String::new()),
        Work::Statements | Work::Rewrite | Work::Later => {
            return (None, "how long it takes depends on what it does".to_owned());
        }
        Work::Scan | Work::Batches | Work::Index if rows == 0 => {
            return (
                None,
                "how many rows there are is not known before ANALYZE".to_owned(),
            );
        }
        Work::Scan | Work::Batches | Work::Index => {}
    }
    let seconds: f64 = (actions.iter().map(work_of))
        .map(|part| match part {
            Work::Batches => as_f64(rows) / batches.rows,
            Work::Scan => as_f64(rows) / SCAN,
            Work::Index => as_f64(rows) / INDEX,
            _ => 0.0,
        })
        .sum();
    let how = if work == Work::Batches && batches.measured {
        format!("{} rows/s, as measured here", rate(batches.rows))
    } else {
        let assumed = match work {
            Work::Scan => SCAN,
            Work::Index => INDEX,
            _ => batches.rows,
        };
        format!("{} rows/s, which is assumed", rate(assumed))
    };
    (Some(Duration::from_secs_f64(seconds.min(1e9))), how)
}

/// A rate for people: three digits are more than it is good for.
fn rate(rows: f64) -> String {
    match rows {
        0.0..1e3 => format!("{rows:.0}"),
        1e3..1e6 => format!("{:.0} thousand", rows / 1e3),
        _ => format!("{:.1} million", rows / 1e6),
    }
}

/// Exact below 2^53, which no table reaches.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn as_f64(rows: u64) -> f64 {
    rows as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_work_is_known_by_its_name() {
        for work in [
            Work::Nothing,
            Work::Catalog,
            Work::Scan,
            Work::Batches,
            Work::Index,
            Work::Rewrite,
            Work::Statements,
            Work::Later,
        ] {
            assert_eq!(Work::named(work.as_str()), Some(work));
        }
        assert_eq!(Work::named("something"), None);
    }
}
