//! Rollouts as JSON. Numbers carry their unit in their name; what is not known is null.

use serde_json::{Value, json};
use shared::rollout::control::Action;
use shared::rollout::view::{Assignment, Counts, Rollout, Wave};
use shared::rollout::work::Summary;
use shared::rollout::{Selector, Time, Verb};

/// What `--help` says about the JSON of one rollout.
pub(super) const HELP: &str = "\
JSON (--output json), one object:
  id, set, bundle, versions[], undoes (the rollout that it takes back), selector{all|labels{}}, policy{as in a policy file}, created_by,
  created_reason,
  created_at_unix_ms, ended_at_unix_ms, state (running, paused, aborting, done, failed, aborted), reason,
  halted (it paused by itself), total_databases, waiting_databases, running_databases, done_databases,
  failed_databases, skipped_databases, aborted_databases,
  waves[]: name, begun, blocked, approval (not_needed, awaited, given), and the same counts,
  actions[]: verb, databases[], wave, rollout (by which it is undone), by, reason, at_unix_ms
With its databases, `databases[]` of:
  database, wave, state (waiting, running, done, failed, skipped, aborted), agent, agent_gone_since_unix_ms (while it works and is not
  connected), attempt, blocked, error, interrupted (how the last attempt ended without an error), progress_unknown (a coordinator
  answered that does not lead), version, migration, step,
  steps, title, step_rows, estimated_rows, workers, batch_rows, step_retries, pace, started_at_unix_ms, ended_at_unix_ms, migrations_done,
  steps_done, changed_rows, worked_ms, batches, retries, lock_wait_ms, stall_ms, wal_bytes, verified_rows, differing_rows, token
With `totals` of the same numbers: `report`.
`watch` prints one such object a line, with the databases that changed since the line before. \
What is not known is null.";

/// One rollout.
pub(super) fn rollout(rollout: &Rollout) -> Value {
    let selector = match &rollout.selector {
        Selector::All => json!({ "all": true }),
        Selector::Labels(labels) => json!({ "labels": labels }),
    };
    let mut value = json!({
        "id": rollout.id,
        "set": rollout.set,
        "bundle": rollout.bundle,
        "versions": rollout.versions,
        "undoes": rollout.undoes,
        "selector": selector,
        "policy": rollout.policy,
        "created_by": rollout.created_by,
        "created_reason": text(&rollout.created_reason),
        "created_at_unix_ms": unix_ms(Some(rollout.created_at)),
        "ended_at_unix_ms": unix_ms(rollout.ended_at),
        "state": rollout.state.as_str(),
        "reason": text(&rollout.reason),
        "halted": rollout.halted,
        "waves": rollout.waves.iter().map(wave).collect::<Vec<_>>(),
        "actions": rollout.actions.iter().map(action).collect::<Vec<_>>(),
    });
    count(&mut value, &rollout.databases);
    value
}

/// Adds how many databases are where.
fn count(value: &mut Value, of: &Counts) {
    for (name, number) in [
        ("total_databases", of.total),
        ("waiting_databases", of.waiting),
        ("running_databases", of.running),
        ("done_databases", of.done),
        ("failed_databases", of.failed),
        ("skipped_databases", of.skipped),
        ("aborted_databases", of.aborted),
    ] {
        value[name] = number.into();
    }
}

fn wave(of: &Wave) -> Value {
    let mut value =
        json!({ "name": of.name, "begun": of.begun, "blocked": text(&of.blocked), "approval": of.approval });
    count(&mut value, &of.databases);
    value
}

fn action(of: &Action) -> Value {
    let (databases, wave) = match &of.verb {
        Verb::Pause | Verb::Resume | Verb::IgnoreChecks | Verb::Abort | Verb::Undo { .. } => (None, None),
        Verb::Retry { databases } | Verb::Skip { databases } => (Some(databases), None),
        Verb::Approve { wave } => (None, wave.as_ref()),
    };
    let undone_by = match &of.verb {
        Verb::Undo { rollout } => Some(rollout),
        _ => None,
    };
    json!({
        "verb": of.verb.word(),
        "databases": databases,
        "wave": wave,
        "rollout": undone_by,
        "by": of.by,
        "reason": text(&of.reason),
        "at_unix_ms": of.at.0,
    })
}

/// One rollout with some or all of its databases.
pub(super) fn with_databases<'a>(of: &Rollout, assignments: impl Iterator<Item = &'a Assignment>) -> Value {
    let mut value = rollout(of);
    value["databases"] = assignments.map(assignment).collect();
    value
}

fn assignment(of: &Assignment) -> Value {
    let progress = of.progress.as_ref();
    let estimated = progress
        .map(|progress| progress.estimated_rows)
        .filter(|rows| *rows > 0);
    let mut value = json!({
        "database": of.database,
        "wave": of.wave,
        "state": of.state.as_str(),
        "agent": of.agent,
        "attempt": of.attempt,
        "blocked": text(&of.blocked),
        "error": text(&of.error),
        "interrupted": text(&of.interrupted),
        "progress_unknown": of.progress_unknown,
        "agent_gone_since_unix_ms": unix_ms(of.agent_gone_since),
        "version": progress.and_then(|progress| progress.version.as_ref()),
        "migration": progress.map(|progress| &progress.migration),
        "step": progress.map(|progress| progress.step),
        "steps": progress.map(|progress| progress.steps),
        "title": progress.map(|progress| &progress.title),
        "workers": progress.map(|progress| progress.workers).filter(|workers| *workers > 0),
        "batch_rows": progress.map(|progress| progress.batch_rows).filter(|rows| *rows > 0),
        "step_retries": progress.map(|progress| progress.retries),
        "pace": progress.and_then(|progress| text(&progress.pace)),
        "step_rows": progress.map(|progress| progress.rows),
        "estimated_rows": estimated,
        "started_at_unix_ms": unix_ms(of.started_at),
        "ended_at_unix_ms": unix_ms(of.ended_at),
        "token": of.token,
    });
    add_summary(&mut value, &of.summary);
    value
}

/// Adds what was done, and what it cost, in all attempts that have ended.
pub(super) fn add_summary(value: &mut Value, of: &Summary) {
    for (name, number) in [
        ("migrations_done", u64::from(of.migrations)),
        ("steps_done", u64::from(of.steps)),
        ("changed_rows", of.rows),
        ("worked_ms", of.worked_ms),
        ("batches", of.cost.batches),
        ("retries", of.cost.retries),
        ("lock_wait_ms", of.cost.lock_wait_ms),
        ("stall_ms", of.cost.stall_ms),
        ("wal_bytes", of.cost.wal_bytes),
        ("verified_rows", of.cost.verified_rows),
        ("differing_rows", of.cost.differing_rows),
    ] {
        value[name] = number.into();
    }
}

fn text(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn unix_ms(time: Option<Time>) -> Option<u64> {
    time.map(|time| time.0)
}
