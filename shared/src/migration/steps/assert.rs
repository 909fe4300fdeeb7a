//! `assert`: a query that must hold before the next step begins. It changes nothing.

use super::{Kind, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Query;
use crate::name::Table;
use crate::plan::{Action, Assertion, Facts, Refusal};
use serde::Deserialize;

/// `assert: { query, message? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Assert {
    /// A SELECT of one row with one boolean; anything but true (NULL and no row too) fails the step.
    pub query: Query,
    /// What is said when it does not hold.
    #[serde(default)]
    pub message: Option<String>,
}

impl Kind for Assert {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("query", tokens(self.query.text()))
            .finish()
    }

    fn title(&self) -> String {
        format!(
            "assert {}",
            self.query.text().split_whitespace().collect::<Vec<_>>().join(" ")
        )
    }

    fn tables(&self) -> Vec<&Table> {
        Vec::new()
    }

    fn plan(&self, _facts: &Facts) -> Result<Vec<Action>, Refusal> {
        Ok(vec![Action::Assert(Assertion {
            query: self.query.text().to_owned(),
            message: self.message.clone(),
        })])
    }

    fn effect(&self, _facts: &mut Facts) {}

    fn undo(&self) -> Undo {
        Undo::Nothing
    }
}
