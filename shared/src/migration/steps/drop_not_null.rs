//! `drop_not_null`: a column takes NULL again. A change of the catalog alone.

use super::{Kind, SetNotNull, Undo};
use crate::migration::checksum::Canonical;
use crate::name::{Ident, Table};
use crate::plan::{Action, Facts, Nullability, Refusal, Transaction};
use crate::sql;
use serde::Deserialize;

/// `drop_not_null: { table, column }`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropNotNull {
    /// The table.
    pub table: Table,
    /// The column that may hold NULL from then on.
    pub column: Ident,
}

impl Kind for DropNotNull {
    fn check(&self) -> Result<(), Vec<String>> {
        Ok(())
    }

    fn canonical(&self) -> String {
        Canonical::new()
            .field("table", &self.table)
            .field("column", &self.column)
            .finish()
    }

    fn title(&self) -> String {
        format!("let column {} of {} be NULL", self.column, self.table)
    }

    fn tables(&self) -> Vec<&Table> {
        vec![&self.table]
    }

    fn plan(&self, facts: &Facts) -> Result<Vec<Action>, Refusal> {
        let table = facts.table(&self.table)?;
        table.must_be_a_table()?;
        let mut statements = Vec::new();
        match table.column(&self.column)?.nullability {
            Nullability::Nullable => {}
            Nullability::NotNull => statements.push(sql::drop_not_null(table, &self.column)),
        }
        // A `set_not_null` that was interrupted leaves its check behind.
        let check = sql::not_null_check(table, &self.column);
        if table.check(&check).is_some() {
            statements.push(sql::drop_constraint(&table.full_name(), &check));
        }
        if statements.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![Action::Transaction(Transaction::bounded_all(statements))])
    }

    fn effect(&self, facts: &mut Facts) {
        facts.set_nullability(&self.table, &self.column, Nullability::Nullable);
    }

    fn undo(&self) -> Undo {
        Undo::By(Box::new(super::Change::SetNotNull(SetNotNull {
            table: self.table.clone(),
            column: self.column.clone(),
        })))
    }
}
