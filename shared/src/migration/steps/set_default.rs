//! `set_default`: the value of a column in new rows that give none. A change of the catalog alone: rows that exist stay
//! as they are.

use super::{Kind, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Refusal, Source, TableFacts, Transaction};
use crate::sql;
use serde::Deserialize;

/// `set_default: { table, column, default, previous? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDefault {
    /// The table.
    pub table: Table,
    /// The column.
    pub column: Ident,
    /// An expression without columns.
    pub default: Expression,
    /// What an undo sets again: the default until now, `"NULL"` where there was none.
    #[serde(default)]
    pub previous: Option<Expression>,
}

/// Why a default cannot stand in a table.
pub(super) fn problem(default: &Expression) -> Option<String> {
    (default.has_subquery() || default.columns().next().is_some()).then(|| {
        format!(
            "the default `{}` reads columns or tables: PostgreSQL takes none that does",
            default.text()
        )
    })
}

/// Why a default is not undone.
pub(super) const UNKNOWN: &str =
    "the default there was before is not known; say it as `previous`, or write a `down`";

/// Passes a column that can have a default.
pub(super) fn can_have(table: &TableFacts, column: &Ident) -> Result<(), Refusal> {
    match table.column(column)?.source {
        Source::Plain | Source::Growing => Ok(()),
        Source::Generated => Err(Refusal::Input {
            what: format!(
                "column {column} of {} is generated and has no default",
                table.full_name()
            ),
            advice: None,
        }),
    }
}

impl Kind for SetDefault {
    fn check(&self) -> Result<(), Vec<String>> {
        let problems: Vec<String> = std::iter::once(&self.default)
            .chain(&self.previous)
            .filter_map(problem)
            .collect();
        if problems.is_empty() {
            Ok(())
        } else {
            Err(problems)
        }
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .field("default", tokens(self.default.text()))
            .finish()
    }

    fn title(&self) -> String {
        format!("set the default of column {} of {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        can_have(table, &self.column)?;
        Ok(vec![Action::Transaction(Transaction::bounded(sql::set_default(
            table,
            &self.column,
            self.default.text(),
        )))])
    }

    fn effect(&self, facts: &mut Facts) {
        facts.set_source(&self.table, &self.column, Source::Plain);
    }

    fn undo(&self) -> Undo {
        let Some(previous) = &self.previous else {
            return Undo::Impossible { why: UNKNOWN };
        };
        Undo::By(Box::new(super::Change::SetDefault(Self {
            default: previous.clone(),
            previous: Some(self.default.clone()),
            ..self.clone()
        })))
    }
}
