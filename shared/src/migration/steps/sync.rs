//! Whether a `backfill` puts a trigger in place that keeps its columns right, and what stands against one.

use super::backfill::Backfill;
use super::batched::is_table_name;
use crate::lock::Mode;
use crate::migration::expression::Expression;
use crate::name::Ident;
use crate::plan::{
    Assignment, ColumnFacts, Facts, Refusal, RelationKind, Source, SyncFacts, TableFacts, Transaction,
};
use crate::sql::sync;
use serde::Deserialize;
use std::collections::BTreeSet;

/// `sync: trigger | none`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sync {
    /// A trigger keeps the columns right from before the first batch until a `drop_sync` step.
    Trigger,
    /// Rows that applications insert or change meanwhile are theirs to keep right.
    None,
}

/// What becomes of it.
pub(super) enum Decision {
    /// Nothing is put in place.
    Without,
    /// The triggers live already.
    Live,
    /// They are to be created.
    Create(Transaction),
}

/// Whether the step's columns are kept right.
pub(super) fn decide(
    step: &Backfill,
    facts: &Facts,
    table: &TableFacts,
    set: &[Assignment],
) -> Result<Decision, Refusal> {
    let obstacle = obstacle(step, table);
    match (step.sync, obstacle) {
        (Some(Sync::None), _) | (None, Some(_)) => return Ok(Decision::Without),
        (None, None) if !is_default(step, facts, table) => return Ok(Decision::Without),
        (Some(Sync::Trigger), Some(obstacle)) => {
            return Err(Refusal::Unsafe {
                what: format!(
                    "no trigger can keep {} of {} right: {obstacle}",
                    columns(step),
                    table.full_name()
                ),
                advice: Some(
                    "say `sync: none`, and let the applications write the new values before the step runs"
                        .to_owned(),
                ),
            });
        }
        (_, None) => {}
    }
    let sync = sync::Sync {
        table: &table.name,
        relations: relations(table),
        set,
        condition: step.condition.as_ref().map(Expression::text),
        reads: reads(step, table),
        retyped: None,
        first: None,
    };
    let wanted = sync.arguments();
    match table
        .syncs
        .iter()
        .find(|live| live.columns.iter().any(|c| step.set.contains_key(c)))
    {
        Some(live) if live.digest == wanted.digest => Ok(Decision::Live),
        Some(live) => Err(Refusal::Unsafe {
            what: format!(
                "a trigger keeps {} of {} right by another expression",
                names(&live.columns),
                table.full_name()
            ),
            advice: Some(end_it(live)),
        }),
        None => Ok(Decision::Create(
            Transaction::bounded_all(sync.create()).locking(Mode::ShareRowExclusive),
        )),
    }
}

/// Where nobody says: when a later step refuses NULL, or applications may change what the values are made of.
fn is_default(step: &Backfill, facts: &Facts, table: &TableFacts) -> bool {
    let refused_later =
        (step.set.keys()).any(|c| facts.not_null_later.contains(&(step.table.clone(), c.clone())));
    let key: BTreeSet<&Ident> = (table.parts.iter().filter_map(|part| part.keys.first()).flatten())
        .map(|column| &column.column)
        .collect();
    let varying = step
        .set
        .values()
        .any(|value| value.columns().any(|c| !key.contains(c)));
    refused_later || varying
}

/// Why no trigger can do what the step does.
fn obstacle(step: &Backfill, table: &TableFacts) -> Option<String> {
    let expressions = || step.set.values().chain(&step.condition);
    if expressions().any(Expression::has_subquery) {
        return Some("the values come from other tables, whose changes it would not see".to_owned());
    }
    if let Some(column) = step
        .set
        .keys()
        .find(|c| step.set.values().any(|value| value.reads(c)))
    {
        return Some(format!(
            "the new value of {column} depends on a value the step itself sets"
        ));
    }
    for name in expressions().flat_map(Expression::columns) {
        match table.find(name) {
            None if is_table_name(name, table, &step.table) => {
                return Some("an expression reads the whole row".to_owned());
            }
            None => return Some(format!("an expression reads the system column {name}")),
            Some(column) if column.source == Source::Generated => {
                return Some(format!("{name} is generated, and computed only after it"));
            }
            Some(_) => {}
        }
    }
    None
}

/// The columns it reads and does not set.
pub(super) fn reads<'a>(step: &Backfill, table: &'a TableFacts) -> Vec<&'a ColumnFacts> {
    let read = |column: &&ColumnFacts| {
        !step.set.contains_key(&column.name)
            && step
                .set
                .values()
                .chain(&step.condition)
                .any(|e| e.reads(&column.name))
    };
    table.columns.iter().filter(read).collect()
}

/// Partitions inherit the triggers of their table, children by inheritance do not.
fn relations(table: &TableFacts) -> Vec<String> {
    match table.kind {
        RelationKind::Partitioned => vec![table.full_name()],
        RelationKind::Table | RelationKind::Other(_) => (table.parts.iter())
            .map(|part| format!("{}.{}", part.schema, part.name))
            .collect(),
    }
}

fn columns(step: &Backfill) -> String {
    let columns: Vec<String> = step.set.keys().map(ToString::to_string).collect();
    columns.join(", ")
}

fn names(columns: &BTreeSet<Ident>) -> String {
    let names: Vec<String> = columns.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// Passes a column that no live trigger reads, or sets together with others.
pub(super) fn can_go(table: &TableFacts, column: &Ident) -> Result<(), Refusal> {
    let bound = |live: &&SyncFacts| {
        live.reads.contains(column) || (live.columns.contains(column) && live.columns.len() > 1)
    };
    match table.syncs.iter().find(bound) {
        Some(live) => Err(needs(live, table, column)),
        None => Ok(()),
    }
}

/// Passes a column that no live trigger reads or sets: its function knows columns by their names.
pub(super) fn can_be_renamed(table: &TableFacts, column: &Ident) -> Result<(), Refusal> {
    match (table.syncs.iter()).find(|live| live.reads.contains(column) || live.columns.contains(column)) {
        Some(live) => Err(needs(live, table, column)),
        None => Ok(()),
    }
}

/// What stands in the way of a change of a column that a live trigger needs.
pub(super) fn needs(live: &SyncFacts, table: &TableFacts, column: &Ident) -> Refusal {
    Refusal::Unsafe {
        what: format!(
            "a trigger that keeps {} of {} right needs {column}",
            names(&live.columns),
            table.full_name()
        ),
        advice: Some(end_it(live)),
    }
}

fn end_it(live: &SyncFacts) -> String {
    match &live.retyped {
        None => "end it first with a `drop_sync` step".to_owned(),
        Some(column) => format!("end the change of the type of {column} first, with a `contract` step"),
    }
}

/// Passes a column that no `change_type` keeps in step with another one.
pub(super) fn is_of_backfill(table: &TableFacts, column: &Ident) -> Result<(), Refusal> {
    match (table.syncs.iter()).find(|live| live.retyped.is_some() && live.columns.contains(column)) {
        Some(live) => Err(needs(live, table, column)),
        None => Ok(()),
    }
}

/// The statements that end the trigger which sets a column; none where there is none.
pub(super) fn end(table: &TableFacts, column: &Ident) -> Vec<String> {
    let live = table.syncs.iter().find(|live| live.columns.contains(column));
    live.map_or(Vec::new(), |live| sync::drop_sync(&live.triggers, &live.function))
}
