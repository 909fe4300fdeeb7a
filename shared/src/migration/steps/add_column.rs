//! `add_column`: a new column, nullable or with a constant default. Both are a change of the catalog alone.

use super::{DropColumn, Kind, Undo};
use crate::migration::checksum::{Canonical, tokens};
use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{Action, ColumnFacts, Facts, Nullability, Ordering, Refusal, Source, Transaction};
use crate::sql;
use serde::Deserialize;

/// `add_column: { table, column, type, default?, not_null? }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddColumn {
    /// The table.
    pub table: Table,
    /// The new column.
    pub column: Ident,
    /// Its type, as SQL writes it.
    #[serde(rename = "type")]
    pub data_type: sql::TypeName,
    /// A constant for rows that exist and rows that do not give a value.
    #[serde(default)]
    pub default: Option<Expression>,
    /// Refuse NULL; needs a default, since the rows that exist would have none.
    #[serde(default)]
    pub not_null: bool,
}

impl Kind for AddColumn {
    fn check(&self) -> Result<(), Vec<String>> {
        let mut problems = Vec::new();
        match &self.default {
            Some(default) if !default.is_constant() => problems.push(format!(
                "the default `{}` is not a constant: give a literal, or add the column without a default and fill it with a `backfill` step",
                default.text()
            )),
            None if self.not_null => problems.push(
                "`not_null` needs a `default`: rows that exist would have no value; or add the column nullable, `backfill` it, then `set_not_null`"
                    .to_owned(),
            ),
            _ => {}
        }
        if self.data_type.is_serial() {
            problems.push(format!(
                "`{}` is no constant default: PostgreSQL would rewrite the table under an exclusive lock; add an integer column, and its sequence with a `sql` step",
                self.data_type.as_str()
            ));
        }
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
            .field("type", tokens(self.data_type.as_str()))
            .optional(
                "default",
                self.default.as_ref().map(|default| tokens(default.text())),
            )
            .optional("not_null", self.not_null.then_some(true))
            .finish()
    }

    fn title(&self) -> String {
        format!("add column {} to {}", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        if let Some(column) = table.find(&self.column) {
            return Err(Refusal::Input {
                what: format!(
                    "table {} already has a column {} of type {}",
                    table.full_name(),
                    column.name,
                    column.data_type
                ),
                advice: Some(
                    "choose another name, or remove the step if the column is the one you want".to_owned(),
                ),
            });
        }
        let default = self.default.as_ref().map(Expression::text);
        Ok(vec![Action::Transaction(Transaction::bounded(sql::add_column(
            table,
            &self.column,
            &self.data_type,
            default,
            self.nullability(),
        )))])
    }

    fn effect(&self, facts: &mut Facts) {
        if let Some(table) = facts.table_mut(&self.table) {
            table.columns.push(ColumnFacts {
                name: self.column.clone(),
                data_type: self.data_type.as_str().to_owned(),
                collation: None,
                nullability: self.nullability(),
                source: Source::Plain,
                ordering: Ordering::Exact,
            });
        }
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::DropColumn(DropColumn {
            table: self.table.clone(),
            column: self.column.clone(),
        })))
    }
}

impl AddColumn {
    fn nullability(&self) -> Nullability {
        if self.not_null {
            Nullability::NotNull
        } else {
            Nullability::Nullable
        }
    }
}
