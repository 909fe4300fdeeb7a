//! Which databases a wave takes, and what comes before and after it.

use super::budget::Budget;
use super::check::Check;
use crate::id::DatabaseName;
use crate::settings::duration::WithUnit;
use crate::yaml::Text;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// One wave, before it is known which databases there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct Rule {
    /// Its name; `None` stands for `wave N`.
    pub name: Option<String>,
    /// Which databases it takes of those no earlier wave has.
    pub take: Take,
    /// How long everything must have been over before the next wave.
    pub soak: Duration,
    /// Whether someone must approve before it begins.
    pub approval: bool,
    /// So many failed databases of this wave, and nothing new begins. Without it the first of several waves has 1.
    pub failure_budget: Option<Budget>,
    /// What must hold after it, besides what must after every wave.
    pub checks: Vec<Check>,
}

/// Which databases a wave takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// This many.
    Count(u32),
    /// This share of all databases of the rollout, of 100, rounded up.
    Percent(u32),
    /// These.
    Databases(BTreeSet<DatabaseName>),
    /// Those whose labels hold all of these pairs.
    Labels(BTreeMap<String, String>),
}

/// What is wrong with a wave.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// None or several ways to choose.
    #[error("a wave takes its databases by exactly one of `count`, `percent`, `databases` and `select`")]
    Takes,
    /// No wave is empty by intention.
    #[error("count: at least 1 database is needed")]
    Count,
    /// Not within its bounds.
    #[error("percent: `{0}` is no share: write one between 1% and 100%")]
    Percent(String),
    /// Empty.
    #[error("`databases` and `select` must not be empty")]
    Empty,
    /// Not one short line.
    #[error("name: it must be one line of 1 to {} characters", Rule::LONGEST_NAME)]
    Name,
    /// Too long.
    #[error("soak: it must be at most 30 days")]
    Soak,
}

impl Rule {
    /// The name of the last wave, which takes what is left over.
    pub const REST: &str = "rest";

    /// As much as fits a line of `rollout show`; in characters.
    pub const LONGEST_NAME: usize = 60;

    /// The longest soak.
    const LONGEST_SOAK: Duration = Duration::from_hours(30 * 24);

    /// A wave whose parts make sense.
    ///
    /// # Errors
    /// The first part that does not.
    pub fn checked(self) -> Result<Self, Error> {
        match &self.take {
            Take::Count(0) => return Err(Error::Count),
            Take::Percent(share) if !(1..=100).contains(share) => {
                return Err(Error::Percent(share.to_string()));
            }
            Take::Databases(names) if names.is_empty() => return Err(Error::Empty),
            Take::Labels(labels) if labels.is_empty() => return Err(Error::Empty),
            Take::Count(_) | Take::Percent(_) | Take::Databases(_) | Take::Labels(_) => {}
        }
        self.name.clone().map(Name::try_from).transpose()?;
        Soak::try_from(WithUnit(self.soak))?;
        Ok(self)
    }

    /// A wave of the first so many databases, and nothing else.
    pub fn canary(take: Take) -> Self {
        Self {
            name: Some("canary".to_owned()),
            take,
            soak: Duration::ZERO,
            approval: false,
            failure_budget: None,
            checks: Vec::new(),
        }
    }

    /// Its name, where it stands at this place, from 0.
    pub fn name_at(&self, place: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("wave {}", place + 1))
    }
}

impl Take {
    /// Reads `3` or `5%`.
    ///
    /// # Errors
    /// When it is neither, 0, or more than 100 %.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.strip_suffix('%') {
            Some(_) => percent(text),
            None => text
                .trim()
                .parse()
                .ok()
                .filter(|count| *count > 0)
                .map(Self::Count)
                .ok_or(Error::Count),
        }
    }
}

fn percent(text: &str) -> Result<Take, Error> {
    let share = text.trim().trim_end_matches('%').trim_end().parse().ok();
    let share = share.filter(|share| (1..=100).contains(share));
    share
        .map(Take::Percent)
        .ok_or_else(|| Error::Percent(text.to_owned()))
}

/// The name of a wave.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name;

/// How many databases a wave takes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "u32")]
pub(super) struct Count;

/// Which share a wave takes.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Text")]
pub(super) struct Share;

/// How long a wave soaks.
#[derive(Debug, Deserialize)]
#[serde(try_from = "WithUnit")]
pub(super) struct Soak;

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let fits = (1..=Rule::LONGEST_NAME).contains(&name.chars().count());
        if fits && !name.chars().any(char::is_control) {
            Ok(Self)
        } else {
            Err(Error::Name)
        }
    }
}

impl TryFrom<u32> for Count {
    type Error = Error;

    fn try_from(count: u32) -> Result<Self, Error> {
        if count == 0 { Err(Error::Count) } else { Ok(Self) }
    }
}

impl TryFrom<Text> for Share {
    type Error = Error;

    fn try_from(Text(share): Text) -> Result<Self, Error> {
        percent(&share).map(|_| Self)
    }
}

impl TryFrom<WithUnit> for Soak {
    type Error = Error;

    fn try_from(WithUnit(soak): WithUnit) -> Result<Self, Error> {
        if soak > Rule::LONGEST_SOAK {
            Err(Error::Soak)
        } else {
            Ok(Self)
        }
    }
}

/// A wave as it is written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<Text>,
    #[serde(skip_serializing_if = "Option::is_none")]
    databases: Option<BTreeSet<DatabaseName>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    select: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    soak: Option<WithUnit>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    approval: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_budget: Option<Budget>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
}

impl TryFrom<Written> for Rule {
    type Error = Error;

    fn try_from(written: Written) -> Result<Self, Error> {
        let take = match (written.count, written.percent, written.databases, written.select) {
            (Some(given), None, None, None) => Take::Count(given),
            (None, Some(Text(given)), None, None) => percent(&given)?,
            (None, None, Some(names), None) => Take::Databases(names),
            (None, None, None, Some(labels)) => Take::Labels(labels),
            _ => return Err(Error::Takes),
        };
        Self {
            name: written.name,
            take,
            soak: written.soak.map_or(Duration::ZERO, |soak| soak.0),
            approval: written.approval,
            failure_budget: written.failure_budget,
            checks: written.checks,
        }
        .checked()
    }
}

impl From<Rule> for Written {
    fn from(rule: Rule) -> Self {
        let written = Self {
            name: rule.name,
            soak: Some(WithUnit(rule.soak)).filter(|soak| !soak.0.is_zero()),
            approval: rule.approval,
            failure_budget: rule.failure_budget,
            checks: rule.checks,
            ..Self::default()
        };
        match rule.take {
            Take::Count(count) => Self {
                count: Some(count),
                ..written
            },
            Take::Percent(percent) => Self {
                percent: Some(Text(format!("{percent}%"))),
                ..written
            },
            Take::Databases(names) => Self {
                databases: Some(names),
                ..written
            },
            Take::Labels(labels) => Self {
                select: Some(labels),
                ..written
            },
        }
    }
}
