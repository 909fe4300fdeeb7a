//! Prints what a run would do.

use super::target::Target;
use crate::output::{self, Format};
use agent::local::{PlannedMigration, PlannedStep};
use serde_json::{Value, json};
use shared::index::{Published, Removed, Target as Rebuilt, Work};
use shared::lock::Mode;
use shared::migration::steps::Outside;
use shared::plan::{Action, Batches, Kept, Length, Part, Passes};
use shared::sql::batch::{Ends, Statements};
use shared::sql::index as sql;
use std::time::Duration;

/// Prints every statement, in order.
pub(super) fn print(target: &Target, planned: &[PlannedMigration], format: Format) {
    match format {
        Format::Json => output::json(&json!({
            "database": target.database.name(),
            "set": target.set.name,
            "migrations": planned.iter().map(migration_json).collect::<Vec<_>>(),
        })),
        Format::Text if planned.is_empty() => {
            output::data(&format!("-- {}: nothing to do", target.database.name()));
        }
        Format::Text => {
            for migration in planned {
                output::data(&migration_text(migration));
            }
            output::data(
                "-- dry run: nothing was changed. Each transaction also checks the fence and writes its record in the schema confiture.",
            );
        }
    }
}

fn migration_text(migration: &PlannedMigration) -> String {
    let mut lines = vec![format!(
        "-- {} {} \"{}\" ({})",
        migration.direction, migration.version, migration.name, migration.file
    )];
    for step in &migration.steps {
        lines.push(format!(
            "-- step {} of {}: {}",
            step.number, migration.total_steps, step.title
        ));
        if let Some(rows) = step.begun {
            lines.push(format!(
                "--   begun before, {rows} rows changed so far: goes on where it stopped"
            ));
        }
        match &step.plan {
            Err(later) => lines.push(format!("--   {later}")),
            Ok(actions) if actions.is_empty() => lines.push("--   nothing to do here".to_owned()),
            Ok(actions) => lines.extend(actions.iter().map(action_text)),
        }
    }
    lines.join("\n")
}

fn action_text(action: &Action) -> String {
    match action {
        Action::Transaction(transaction) => {
            let note = match (transaction.length, transaction.lock) {
                (Length::Bounded, Mode::IndexOnly) => "one transaction that locks no table of others",
                (Length::Bounded, _) => "one transaction, tried with a short lock timeout",
                (Length::Long, _) => {
                    "one transaction that reads the whole table; it blocks neither reads nor writes"
                }
            };
            let statements: Vec<String> = transaction
                .statements
                .iter()
                .map(|s| format!("{}\n;", s.trim_end().trim_end_matches(';')))
                .collect();
            format!("--   {note}\nBEGIN;\n{}\nCOMMIT;", statements.join("\n"))
        }
        Action::Batches(batches) => batches_text(batches),
        Action::Assert(assertion) => format!(
            "--   must give true\n{};",
            assertion.query.trim_end().trim_end_matches(';')
        ),
        Action::Outside(alone) => {
            let note = match alone.outside {
                Outside::Weak => "outside a transaction",
                Outside::Rewrite => {
                    "outside a transaction, tried with a short lock timeout; it shuts all others out until it is done"
                }
            };
            let statement = alone.statement.trim_end().trim_end_matches(';');
            format!("--   {note}\n{statement};")
        }
        Action::Index(work) => format!(
            "--   outside a transaction, {}\n{};",
            index_note(work),
            index_statement(work)
        ),
        Action::LookAgain => {
            "--   what follows is planned again, from what the catalog says by then".to_owned()
        }
    }
}

fn index_note(work: &Work) -> &'static str {
    match work {
        Work::Create(_) | Work::CreateParts(_) | Work::Remove(_) => {
            "under a name of ours until it is done; it blocks neither reads nor writes"
        }
        Work::Rebuild(_) => "index by index, each beside itself; it blocks neither reads nor writes",
    }
}

/// What becomes of an index, by its final name.
fn index_statement(work: &Work) -> String {
    match work {
        Work::Create(create) => {
            let constraint = match &create.published {
                Published::Index | Published::Part { .. } => String::new(),
                Published::Constraint => format!(
                    ";\n{}",
                    sql::add_unique(&create.full_table(), &create.name, &create.name)
                ),
            };
            create.statement(&create.name) + &constraint
        }
        Work::CreateParts(create) => format!(
            "{};\n--   then partition by partition: CREATE INDEX CONCURRENTLY, ALTER INDEX .. ATTACH PARTITION",
            sql::create_on_parent(&create.name, &create.full_table(), &create.definition)
        ),
        Work::Remove(remove) => match (remove.removed, &remove.table) {
            (Removed::Constraint, Some(table)) => sql::drop_constraint(table, &remove.name.name),
            (Removed::Constraint, None) | (Removed::Index, _) => sql::drop(&remove.name.to_string()),
        },
        Work::Rebuild(rebuild) => match &rebuild.target {
            Rebuilt::Index(index) => sql::reindex(&index.to_string()),
            Rebuilt::Table(table) => sql::reindex_table(table),
        },
    }
}

fn batches_text(batches: &Batches) -> String {
    let rows = match batches.estimated_rows() {
        0 => "how many rows there are is not known before ANALYZE".to_owned(),
        rows => format!("about {rows} rows"),
    };
    let mut lines = vec![format!("--   in batches of {}; {rows}", sizes(batches),)];
    match batches.passes {
        Passes::One => {}
        Passes::UntilNone { .. } => lines.push("--   in passes, until one finds no row to change".to_owned()),
    }
    match batches.kept {
        Kept::ByTrigger => lines.push(
            "--   the trigger keeps rows right that applications write, until a later migration ends it"
                .to_owned(),
        ),
        Kept::ByApplications => lines.push(
            "--   rows that applications insert or change meanwhile are left as they write them".to_owned(),
        ),
        Kept::ByDefault | Kept::NotAtAll => {}
    }
    let Some((first, others)) = batches.parts.split_first() else {
        lines.push("--   there is no partition yet".to_owned());
        return lines.join("\n");
    };
    lines.extend(
        batch_statements(batches, first)
            .iter()
            .map(|statement| format!("{statement};")),
    );
    if !others.is_empty() {
        lines.push(format!(
            "--   and so on, relation by relation: {} more",
            others.len()
        ));
    }
    lines.join("\n")
}

/// Where a full batch ends, and the change.
fn batch_statements(batches: &Batches, part: &Part) -> Vec<String> {
    let statements = Statements::of(batches, part);
    let change = statements.change(Ends::Both, 1);
    statements.full(Ends::Lower).into_iter().chain([change]).collect()
}

/// How many rows a batch has. Beside applications the first is made smaller as well, unless the author paces the batches.
fn sizes(batches: &Batches) -> String {
    let (rows, target) = (first_rows(batches), target(batches).as_millis());
    let pacing = &batches.pacing;
    let own_pace =
        pacing.target.is_some() || pacing.max_duty.is_some_and(|duty| duty >= 1.0) || !pacing.pause.is_zero();
    if own_pace {
        return format!("{rows} rows at first, then as many as take {target} ms");
    }
    let short = shared::batch::SHORT_TARGET.as_millis();
    format!(
        "up to {rows} rows at first, then as many as take {target} ms, or {short} ms beside active sessions"
    )
}

fn first_rows(batches: &Batches) -> u32 {
    batches.pacing.first_rows.unwrap_or(shared::batch::FIRST_ROWS)
}

fn target(batches: &Batches) -> Duration {
    batches.pacing.target.unwrap_or(shared::batch::TARGET)
}

fn migration_json(migration: &PlannedMigration) -> Value {
    json!({
        "version": migration.version,
        "name": migration.name,
        "direction": migration.direction.as_str(),
        "file": migration.file,
        "steps": migration.steps.iter().map(step_json).collect::<Vec<_>>(),
    })
}

fn step_json(step: &PlannedStep) -> Value {
    match &step.plan {
        Ok(actions) => json!({
            "step": step.number,
            "title": step.title,
            "begun_rows": step.begun,
            "actions": actions.iter().map(action_json).collect::<Vec<_>>(),
        }),
        Err(later) => json!({ "step": step.number, "title": step.title, "planned_later": later }),
    }
}

fn action_json(action: &Action) -> Value {
    match action {
        Action::Transaction(transaction) => {
            json!({ "kind": "transaction", "statements": transaction.statements })
        }
        Action::Batches(batches) => {
            json!({
                "kind": "batches",
                "relations": batches.parts.iter().map(|part| json!({
                    "relation": part.full_name(),
                    "paging": part.paging.as_text(),
                    "estimated_rows": part.estimated_rows,
                    "statements": batch_statements(batches, part),
                })).collect::<Vec<_>>(),
                "first_batch_rows": first_rows(batches),
                "target_ms": u64::try_from(target(batches).as_millis()).unwrap_or(u64::MAX),
                "pause_ms": u64::try_from(batches.pacing.pause.as_millis()).unwrap_or(u64::MAX),
                "estimated_rows": batches.estimated_rows(),
            })
        }
        Action::Assert(assertion) => json!({ "kind": "assert", "statements": [assertion.query] }),
        Action::Outside(alone) => {
            json!({ "kind": "outside_transaction", "statements": [alone.statement] })
        }
        Action::Index(work) => json!({ "kind": "index", "statements": [index_statement(work)] }),
        Action::LookAgain => json!({ "kind": "look_again", "statements": [] }),
    }
}
