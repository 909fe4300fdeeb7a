//! Plans the steps of one migration before they run, each on what those before it will leave.

use crate::error::Error;
use crate::facts;
use crate::run::Run;
use crate::session::Session;
use shared::id::DatabaseName;
use shared::ledger::Todo;
use shared::migration::Change;
use shared::name::{Ident, Table};
use shared::plan::{Action, Facts, Stage};
use shared::sql::Tag;
use std::collections::BTreeSet;

/// Adds to the facts what the next step needs of them.
pub(crate) async fn inspect(
    session: &mut Session,
    tag: &Tag,
    todo: &Todo<'_>,
    index: usize,
    facts: &mut Facts,
) -> Result<(), Error> {
    facts::inspect(session, tag, &todo.steps[index].change, facts).await?;
    let begun = index == todo.done && todo.begun.is_some();
    facts.stage = if begun { Stage::Begun } else { Stage::New };
    facts.look_ahead(&todo.steps[index + 1..]);
    Ok(())
}

/// What the step will do, or why that is known only when its turn comes.
///
/// # Errors
/// When it is sure to be refused.
pub(crate) fn plan(
    database: &DatabaseName,
    todo: &Todo<'_>,
    index: usize,
    facts: &Facts,
) -> Result<Result<Vec<Action>, String>, Error> {
    match todo.steps[index].change.plan(facts) {
        Ok(actions) => Ok(Ok(actions)),
        Err(refusal) if facts.uncertain => Ok(Err(format!(
            "planned when its turn comes: {refusal} now, and a sql step before it may change that"
        ))),
        Err(refusal) => {
            let place = format!(
                "{}, cannot be planned on database {database}:",
                todo.place_of(index)
            );
            Err(Error::At {
                place,
                source: Box::new(refusal.into()),
            })
        }
    }
}

/// Refuses a migration before its first step where the batches of a later one are sure to be refused: on a table that no
/// step before it names, and where none of those is SQL of the author's, which may do anything. What else a later step is
/// refused for may be what an earlier one is there to mend, and what cannot be read now is no reason: each step looks again
/// when its turn comes.
pub(crate) async fn refuse(run: &Run<'_>, todo: &Todo<'_>) -> Result<(), Error> {
    if todo.done > 0 || todo.begun.is_some() {
        return Ok(());
    }
    let tag = run.claim.tag();
    let mut named: BTreeSet<&Ident> = BTreeSet::new();
    for (index, step) in todo.steps.iter().enumerate() {
        let tables = step.change.tables();
        let is_new = |table: &&Table| !named.contains(&table.name);
        match &step.change {
            Change::Sql(_) => return Ok(()),
            Change::Backfill(_) | Change::Delete(_) if index > 0 && tables.iter().all(is_new) => {
                let mut facts = Facts::default();
                let mut session = run.database.session().await?;
                if let Err(error) = inspect(&mut session, &tag, todo, index, &mut facts).await {
                    tracing::debug!(database = %run.database.name(), %error, "a step is not planned ahead");
                    return Ok(());
                }
                // What it would do is planned anew from what is there then.
                let _ = plan(run.database.name(), todo, index, &facts)?;
            }
            _ => {}
        }
        named.extend(tables.iter().map(|table| &table.name));
    }
    Ok(())
}
