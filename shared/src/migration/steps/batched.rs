//! What the steps that work in batches have in common: size and pace, the key they page by, the columns they read.

use crate::migration::expression::Expression;
use crate::name::{Ident, Table};
use crate::plan::{KeyColumn, Ordering, Refusal, RelationKind, TableFacts};
use crate::settings::duration::Milliseconds;
use serde::Deserialize;
use std::time::Duration;

/// `batch: { size?, pause? }`
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchOptions {
    /// Rows of the first batch; later ones follow the measured time.
    #[serde(default)]
    pub size: Option<u32>,
    /// Pause between batches.
    #[serde(default)]
    pub pause: Option<Milliseconds>,
}

/// The largest first batch a user may ask for: beyond it a batch no longer ends within its `statement_timeout`.
const MAX_SIZE: u32 = 1_000_000;

impl BatchOptions {
    /// What is wrong with them.
    pub(super) fn problem(&self) -> Option<String> {
        self.size
            .is_some_and(|size| size == 0 || size > MAX_SIZE)
            .then(|| format!("`batch.size` must be between 1 and {MAX_SIZE}"))
    }

    /// The pause between two batches.
    pub(super) fn pause(&self) -> Duration {
        self.pause.map_or(Duration::ZERO, |pause| pause.0)
    }
}

/// Passes what holds rows of its own.
pub(super) fn holds_rows(table: &TableFacts) -> Result<(), Refusal> {
    if let RelationKind::Other(what) = table.kind {
        return Err(Refusal::Input {
            what: format!(
                "{} is a {what}: its rows cannot be changed in batches",
                table.full_name()
            ),
            advice: Some("name the table that holds the rows".to_owned()),
        });
    }
    Ok(())
}

/// Passes an expression whose columns there are. `written` is the table's name in the step.
pub(super) fn columns_exist(
    expression: &Expression,
    table: &TableFacts,
    written: &Table,
) -> Result<(), Refusal> {
    // Names in a sub-select may belong to other tables: PostgreSQL finds those that do not exist.
    if expression.has_subquery() {
        return Ok(());
    }
    for name in expression.columns() {
        if !is_table_name(name, table, written) && !is_system_column(name) {
            table.column(name)?;
        }
    }
    Ok(())
}

/// A name that stands for the whole row, or for all rows in a sub-select.
pub(super) fn is_table_name(name: &Ident, table: &TableFacts, written: &Table) -> bool {
    *name == table.name || *name == written.name
}

/// A column that every table has, though no list of its columns.
fn is_system_column(name: &Ident) -> bool {
    ["tableoid", "ctid", "xmin", "xmax", "cmin", "cmax"].contains(&name.as_str())
}

/// The primary key as a cursor.
pub(super) fn key_of(table: &TableFacts) -> Result<Vec<KeyColumn>, Refusal> {
    if table.primary_key.is_empty() {
        return Err(Refusal::Unsafe {
            what: format!(
                "table {} has no primary key, so a batch could not say where it ended",
                table.full_name()
            ),
            advice: Some(
                "add a primary key first, or change the rows in one `sql` step if the table is small"
                    .to_owned(),
            ),
        });
    }
    table
        .primary_key
        .iter()
        .map(|name| {
            let column = table.column(name)?;
            let why = match column.ordering {
                Ordering::Exact => {
                    return Ok(KeyColumn {
                        name: column.name.clone(),
                        data_type: column.data_type.clone(),
                    });
                }
                Ordering::Float => "floating point: a value read as text may not be found again",
                Ordering::Nondeterministic => {
                    "of a nondeterministic collation: different values may count as equal"
                }
                Ordering::None => "of a type without an order",
            };
            Err(Refusal::Unsafe {
                what: format!("the primary key column {name} of {} is {why}", table.full_name()),
                advice: Some("change the rows in one `sql` step if the table is small".to_owned()),
            })
        })
        .collect()
}
