//! `add_enum_value`: one more value of an enum type. A change of the catalog alone, and no table is locked.
//!
//! Later steps may use the value: PostgreSQL refuses it only within the transaction that added it.

use super::{Kind, Undo};
use crate::migration::checksum::Canonical;
use crate::name::Table;
use crate::plan::{Action, EnumFacts, Facts, Refusal, Transaction};
use crate::sql::{self, Beside};
use serde::Deserialize;

/// `add_enum_value: { type, value, before? | after? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddEnumValue {
    /// The type: `type` or `schema.type`.
    #[serde(rename = "type")]
    pub data_type: Table,
    /// The new value, exactly as it stands.
    pub value: String,
    /// The value it comes before; it is the last one when nothing is said.
    #[serde(default)]
    pub before: Option<String>,
    /// The value it comes after.
    #[serde(default)]
    pub after: Option<String>,
}

/// PostgreSQL's limit of a value of an enum.
const LONGEST_BYTES: usize = 63;

impl Kind for AddEnumValue {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        if self.before.is_some() && self.after.is_some() {
            problems.push("`before` and `after` cannot both be said: name one neighbour".to_owned());
        }
        if self.value.len() > LONGEST_BYTES {
            problems.push(format!(
                "the value `{}` is longer than {LONGEST_BYTES} bytes",
                self.value
            ));
        }
        if self.value.contains('\0') {
            problems.push("the value contains a NUL byte".to_owned());
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("type", &self.data_type)
            .field("value", &self.value)
            .optional("before", self.before.as_ref())
            .optional("after", self.after.as_ref())
            .finish()
    }

    fn title(&self) -> String {
        format!("add value '{}' to enum {}", self.value, self.data_type)
    }

    fn tables(&self) -> Vec<&Table> {
        Vec::new()
    }

    fn types(&self) -> Vec<&Table> {
        vec![&self.data_type]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let found = facts.enumeration(&self.data_type)?;
        if found.values.contains(&self.value) {
            return Ok(Vec::new());
        }
        let beside = match (&self.before, &self.after) {
            (Some(before), _) => Beside::Before(known(found, before)?),
            (None, Some(after)) => Beside::After(known(found, after)?),
            (None, None) => Beside::Last,
        };
        Ok(vec![Action::Transaction(Transaction::bounded(
            sql::add_enum_value(found, &self.value, beside),
        ))])
    }

    fn effect(&self, facts: &mut Facts) {
        let Some(found) = facts.enumeration_mut(&self.data_type) else {
            return;
        };
        if found.values.contains(&self.value) {
            return;
        }
        let place = |neighbour: &String| found.values.iter().position(|value| value == neighbour);
        let at = match (&self.before, &self.after) {
            (Some(before), _) => place(before),
            (None, Some(after)) => place(after).map(|at| at + 1),
            (None, None) => None,
        };
        found
            .values
            .insert(at.unwrap_or(found.values.len()), self.value.clone());
    }

    fn undo(&self) -> Undo {
        Undo::Impossible {
            why: "PostgreSQL cannot take a value out of an enum, and rows may have it",
        }
    }
}

/// A value that must be there.
fn known<'a>(found: &EnumFacts, neighbour: &'a str) -> Result<&'a str, Refusal> {
    const SHOWN: usize = 12;
    if found.values.iter().any(|value| value == neighbour) {
        return Ok(neighbour);
    }
    let values: Vec<String> = (found.values.iter().take(SHOWN))
        .map(|value| format!("'{value}'"))
        .collect();
    let more = if found.values.len() > SHOWN { ", .." } else { "" };
    Err(Refusal::Input {
        what: format!("enum {} has no value '{neighbour}'", found.full_name()),
        advice: Some(format!("it has {}{more}", values.join(", "))),
    })
}
