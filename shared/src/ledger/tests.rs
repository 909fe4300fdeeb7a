//! The rules of order and of half-done migrations, over ledgers as a database would give them.

use super::*;
use crate::id::{RolloutId, SetName};
use crate::migration::{Change, Migration, Options, Position, Script, Set, Step};
use serde_json::{Value, json};

fn step(body: &Value) -> Step {
    let text = body.to_string();
    let (name, body) = body.as_object().unwrap().iter().next().unwrap();
    let change = Change::deserialize(name, body.clone()).unwrap().unwrap();
    Step {
        at: Position { line: 1, column: 1 },
        checksum: Digest::of(text.as_bytes()),
        change,
        options: Options::default(),
    }
}

fn script(steps: &[Value]) -> Script {
    Script {
        file: "m.yaml".to_owned(),
        text: String::new(),
        checksum: Digest::of(format!("{steps:?}").as_bytes()),
        options: Options::default(),
        steps: steps.iter().map(step).collect(),
    }
}

fn add(column: &str) -> Value {
    json!({"add_column": {"table": "t", "column": column, "type": "int"}})
}

fn migration(version: &str, steps: &[Value]) -> Migration {
    Migration {
        version: version.parse().unwrap(),
        name: format!("m{version}"),
        up: script(steps),
        down: None,
    }
}

fn set(migrations: Vec<Migration>) -> Set {
    Set {
        name: SetName::default_set(),
        migrations,
    }
}

/// Three migrations of one step each.
fn three() -> Set {
    set(["1", "2", "3"]
        .map(|version| migration(version, &[add(&format!("c{version}"))]))
        .to_vec())
}

fn empty() -> Ledger {
    Ledger::absent(Identity {
        system: 1,
        database: 2,
    })
}

fn run(ledger: &mut Ledger, migration: &Migration, direction: Direction, number: i32, state: RunState) {
    ledger.runs.push(RunRow {
        version: migration.version.key().parse().unwrap(),
        direction,
        run: number,
        written: migration.version.clone(),
        name: migration.name.clone(),
        state,
        checksum: migration.up.checksum,
        scheme: 1,
        steps: 1,
        rollout: None,
        by: "someone".to_owned(),
        began_at: Some("2026-01-01T00:00:00Z".to_owned()),
        ended_at: None,
        seconds: None,
        down_checksum: migration.down.as_ref().map(|down| down.checksum),
    });
}

fn record(
    ledger: &mut Ledger,
    migration: &Migration,
    direction: Direction,
    number: i32,
    step: &Step,
    place: u32,
    state: StepState,
) {
    ledger.steps.push(StepRow {
        version: migration.version.clone(),
        direction,
        run: number,
        step: place,
        kind: step.change.name().to_owned(),
        title: step.change.title(),
        checksum: step.checksum,
        state,
        detail: None,
        rows: 7,
    });
}

fn applied(set: &Set, versions: &[usize]) -> Ledger {
    let mut ledger = empty();
    for index in versions {
        run(
            &mut ledger,
            &set.migrations[*index],
            Direction::Up,
            1,
            RunState::Complete,
        );
    }
    ledger
}

fn up() -> Goal {
    Goal::Up {
        target: None,
        order: Order::Strict,
    }
}

fn versions(work: &Work<'_>) -> Vec<(String, i32)> {
    work.todos
        .iter()
        .map(|todo| (todo.migration.version.to_string(), todo.run))
        .collect()
}

#[test]
fn everything_pending_is_done_in_order_and_nothing_twice() {
    let set = three();
    let work = next(&set, &empty(), &up()).unwrap();
    assert_eq!(
        versions(&work),
        [("1".to_owned(), 1), ("2".to_owned(), 1), ("3".to_owned(), 1)]
    );
    let ledger = applied(&set, &[0, 1]);
    assert_eq!(
        versions(&next(&set, &ledger, &up()).unwrap()),
        [("3".to_owned(), 1)]
    );
    let ledger = applied(&set, &[0, 1, 2]);
    assert!(next(&set, &ledger, &up()).unwrap().todos.is_empty());
}

#[test]
fn a_target_ends_the_list_and_must_exist() {
    let set = three();
    let goal = |version: &str| Goal::Up {
        target: Some(version.parse().unwrap()),
        order: Order::Strict,
    };
    assert_eq!(versions(&next(&set, &empty(), &goal("002")).unwrap()).len(), 2);
    assert!(matches!(
        next(&set, &empty(), &goal("9")),
        Err(Conflict::NoSuchTarget { .. })
    ));
}

#[test]
fn versions_above_the_newest_file_mean_ahead_and_are_no_error() {
    let all = three();
    let ledger = applied(&all, &[0, 1, 2]);
    let older = set(all.migrations[..2].to_vec());
    let work = next(&older, &ledger, &up()).unwrap();
    assert!(work.todos.is_empty());
    assert_eq!(work.ahead, ["3".parse().unwrap()]);
}

#[test]
fn a_missing_file_below_the_newest_is_an_error() {
    let all = three();
    let ledger = applied(&all, &[0, 1]);
    let without = set(vec![all.migrations[0].clone(), all.migrations[2].clone()]);
    assert!(
        matches!(next(&without, &ledger, &up()), Err(Conflict::Missing { version, .. }) if version.as_str() == "2")
    );
}

#[test]
fn a_pending_version_below_an_applied_one_needs_a_word() {
    let set = three();
    let ledger = applied(&set, &[0, 2]);
    assert!(
        matches!(next(&set, &ledger, &up()), Err(Conflict::OutOfOrder { version, .. }) if version.as_str() == "2")
    );
    let goal = Goal::Up {
        target: None,
        order: Order::Any,
    };
    assert_eq!(
        versions(&next(&set, &ledger, &goal).unwrap()),
        [("2".to_owned(), 1)]
    );
}

#[test]
fn an_edited_applied_up_is_refused_for_up_only() {
    let set = three();
    let mut ledger = applied(&set, &[0, 1, 2]);
    ledger.runs[1].checksum = Digest::of(b"before");
    assert!(
        matches!(next(&set, &ledger, &up()), Err(Conflict::Edited { version, .. }) if version.as_str() == "2")
    );
    assert_eq!(
        versions(&next(&set, &ledger, &Goal::Down { steps: 1 }).unwrap()),
        [("3".to_owned(), 2)]
    );
}

#[test]
fn an_unfinished_run_is_continued_with_its_number_and_before_all_others() {
    let set = set(vec![
        migration("1", &[add("a"), add("b"), add("c")]),
        migration("2", &[add("d")]),
    ]);
    let first = &set.migrations[0];
    let mut ledger = empty();
    run(&mut ledger, first, Direction::Up, 3, RunState::Open);
    record(
        &mut ledger,
        first,
        Direction::Up,
        3,
        &first.up.steps[0],
        1,
        StepState::Done,
    );
    record(
        &mut ledger,
        first,
        Direction::Up,
        3,
        &first.up.steps[1],
        2,
        StepState::Begun,
    );
    let work = next(&set, &ledger, &up()).unwrap();
    assert_eq!(versions(&work), [("1".to_owned(), 3), ("2".to_owned(), 1)]);
    assert_eq!(
        (
            work.todos[0].done,
            work.todos[0].begun.is_some(),
            work.todos[0].recorded
        ),
        (1, true, true)
    );
}

/// A migration whose up has its first steps done and the one after them begun.
fn half_done(steps: &[Value], done: usize) -> (Set, Ledger) {
    let set = set(vec![migration("1", steps), migration("2", &[add("z")])]);
    let first = &set.migrations[0];
    let mut ledger = empty();
    run(&mut ledger, first, Direction::Up, 1, RunState::Open);
    for (index, step) in first.up.steps.iter().enumerate().take(done + 1) {
        let state = if index < done {
            StepState::Done
        } else {
            StepState::Begun
        };
        let place = u32::try_from(index + 1).unwrap();
        record(&mut ledger, first, Direction::Up, 1, step, place, state);
    }
    (set, ledger)
}

fn steps_of_first(work: &Work<'_>) -> Vec<String> {
    work.todos[0]
        .steps
        .iter()
        .map(|step| step.change.title())
        .collect()
}

#[test]
fn down_over_a_half_done_up_undoes_what_was_done_or_begun() {
    let not_null = json!({"set_not_null": {"table": "t", "column": "b"}});
    let (mut set, mut ledger) = half_done(&[add("a"), add("b"), not_null, add("c")], 2);
    // A written down is for the whole: it is not used.
    set.migrations[0].down = Some(script(&[json!({"drop_column": {"table": "t", "column": "a"}})]));
    let down = Goal::Down { steps: 1 };
    let work = next(&set, &ledger, &down).unwrap();
    let undo = [
        "let column \"b\" of \"t\" be NULL",
        "drop column \"b\" of \"t\"",
        "drop column \"a\" of \"t\"",
    ];
    assert_eq!(steps_of_first(&work), undo);
    assert_eq!((work.todos[0].run, work.todos[0].gives_up), (2, Some(1)));
    assert!(!work.todos[0].recorded);

    // Interrupted and resumed: the same steps, of which one is done.
    ledger.runs[0].state = RunState::GivenUp;
    let first = set.migrations[0].clone();
    run(&mut ledger, &first, Direction::Down, 2, RunState::Open);
    let first_undo = work.todos[0].steps[0].clone();
    record(
        &mut ledger,
        &first,
        Direction::Down,
        2,
        &first_undo,
        1,
        StepState::Done,
    );
    let work = next(&set, &ledger, &down).unwrap();
    assert_eq!(steps_of_first(&work), undo);
    assert_eq!((work.todos[0].done, work.todos[0].gives_up), (1, None));
    assert!(matches!(
        next(&set, &ledger, &up()),
        Err(Conflict::Undoing { .. })
    ));

    // Done: pending again, as a run of its own.
    ledger.runs[1].state = RunState::Complete;
    assert_eq!(
        versions(&next(&set, &ledger, &up()).unwrap()),
        [("1".to_owned(), 3), ("2".to_owned(), 1)]
    );
}

#[test]
fn a_half_done_up_that_cannot_be_undone_names_the_step() {
    let (set, ledger) = half_done(
        &[
            add("a"),
            json!({"drop_column": {"table": "t", "column": "b"}}),
            add("c"),
        ],
        2,
    );
    let refused = next(&set, &ledger, &Goal::Down { steps: 1 }).unwrap_err();
    assert!(
        matches!(
            refused,
            Conflict::NoUndo {
                step: 2,
                extent: Extent::Half,
                ..
            }
        ),
        "{refused}"
    );
}

#[test]
fn an_edited_migration_is_not_undone_by_steps_it_did_not_have() {
    let all = three();
    let mut ledger = applied(&all, &[0, 1, 2]);
    ledger.runs[2].checksum = Digest::of(b"before");
    let down = Goal::Down { steps: 1 };
    assert!(matches!(
        next(&all, &ledger, &down),
        Err(Conflict::EditedUndo { .. })
    ));
    let mut written = all.clone();
    written.migrations[2].down = Some(script(&[json!({"drop_column": {"table": "t", "column": "c3"}})]));
    assert_eq!(
        versions(&next(&written, &ledger, &down).unwrap()),
        [("3".to_owned(), 2)]
    );
}

#[test]
fn steps_done_or_begun_must_stay_and_later_ones_may_change() {
    let before = migration("1", &[add("a"), add("b"), add("c")]);
    let mut ledger = empty();
    run(&mut ledger, &before, Direction::Up, 1, RunState::Open);
    record(
        &mut ledger,
        &before,
        Direction::Up,
        1,
        &before.up.steps[0],
        1,
        StepState::Done,
    );
    record(
        &mut ledger,
        &before,
        Direction::Up,
        1,
        &before.up.steps[1],
        2,
        StepState::Begun,
    );
    let later = set(vec![migration("1", &[add("a"), add("b"), add("x"), add("y")])]);
    assert_eq!(next(&later, &ledger, &up()).unwrap().todos[0].steps.len(), 4);
    let begun = set(vec![migration("1", &[add("a"), add("x"), add("c")])]);
    assert!(matches!(
        next(&begun, &ledger, &up()),
        Err(Conflict::EditedStep { step: 2, .. })
    ));
    let shorter = set(vec![migration("1", &[add("a")])]);
    assert!(matches!(
        next(&shorter, &ledger, &up()),
        Err(Conflict::EditedStep { step: 2, .. })
    ));
}

#[test]
fn up_down_up_counts_its_runs() {
    let set = three();
    let mut ledger = applied(&set, &[0, 1]);
    run(
        &mut ledger,
        &set.migrations[1],
        Direction::Down,
        2,
        RunState::Complete,
    );
    assert_eq!(
        versions(&next(&set, &ledger, &up()).unwrap()),
        [("2".to_owned(), 3), ("3".to_owned(), 1)]
    );
    assert_eq!(
        versions(&next(&set, &ledger, &Goal::Down { steps: 5 }).unwrap()),
        [("1".to_owned(), 2)]
    );
}

#[test]
fn a_half_done_undo_blocks_up_and_is_finished_by_down() {
    let set = three();
    let mut ledger = applied(&set, &[0, 1]);
    run(
        &mut ledger,
        &set.migrations[1],
        Direction::Down,
        2,
        RunState::Open,
    );
    assert!(matches!(
        next(&set, &ledger, &up()),
        Err(Conflict::Undoing { .. })
    ));
    assert_eq!(
        versions(&next(&set, &ledger, &Goal::Down { steps: 1 }).unwrap()),
        [("2".to_owned(), 2)]
    );
}

#[test]
fn without_a_written_down_the_steps_are_undone_in_reverse() {
    let set = set(vec![migration(
        "1",
        &[
            add("a"),
            json!({"backfill": {"table": "t", "set": {"a": "1"}}}),
            json!({"set_not_null": {"table": "t", "column": "a"}}),
        ],
    )]);
    let work = next(&set, &applied(&set, &[0]), &Goal::Down { steps: 1 }).unwrap();
    let names: Vec<_> = work.todos[0]
        .steps
        .iter()
        .map(|step| step.change.name())
        .collect();
    assert_eq!(
        names,
        ["drop_not_null", "drop_column"],
        "the backfill filled only the column that goes"
    );
}

#[test]
fn what_has_no_undo_is_named() {
    let set = set(vec![migration(
        "1",
        &[add("a"), json!({"drop_column": {"table": "t", "column": "b"}})],
    )]);
    let refused = next(&set, &applied(&set, &[0]), &Goal::Down { steps: 1 });
    assert!(
        matches!(refused, Err(Conflict::NoUndo { step: 2, .. })),
        "{refused:?}"
    );
}

#[test]
fn status_shows_files_and_what_is_ahead() {
    let all = three();
    let mut ledger = applied(&all, &[0, 2]);
    record(
        &mut ledger,
        &all.migrations[0],
        Direction::Up,
        1,
        &all.migrations[0].up.steps[0],
        1,
        StepState::Done,
    );
    let lines = status(&set(all.migrations[..2].to_vec()), &ledger);
    let shown: Vec<_> = lines
        .iter()
        .map(|l| (l.version.as_str(), l.state, l.steps_done, l.rows, l.has_file))
        .collect();
    assert_eq!(
        shown,
        [
            ("1", "applied", 1, 7, true),
            ("2", "pending", 0, 0, true),
            ("3", "applied", 0, 0, false)
        ]
    );
}

#[test]
fn a_newer_format_is_workable_where_it_says_so() {
    let ours = crate::sql::ledger::FORMAT;
    let format = |format, works_with| Format { format, works_with };
    assert!(format(1, None).is_workable());
    assert_eq!(
        format(1, None).upgrades().len(),
        crate::sql::ledger::UPGRADES.len()
    );
    assert!(Format::OURS.is_workable() && Format::OURS.upgrades().is_empty());
    assert!(format(ours + 1, Some(ours)).is_workable());
    assert!(format(ours + 1, Some(ours)).upgrades().is_empty());
    assert!(!format(ours + 1, Some(ours + 1)).is_workable());
    assert!(!format(ours + 1, None).is_workable());
}

#[test]
fn every_format_has_the_way_that_leads_to_it() {
    assert_eq!(
        usize::try_from(crate::sql::ledger::FORMAT).unwrap(),
        crate::sql::ledger::UPGRADES.len() + 1
    );
}

fn undo(data_loss: DataLoss) -> Goal {
    Goal::UndoRollout {
        rollout: RolloutId::try_from("r").unwrap(),
        data_loss,
    }
}

/// Versions applied by these rollouts; a local run has none.
fn applied_by(set: &Set, by: &[(usize, Option<&str>)]) -> Ledger {
    let mut ledger = applied(set, &by.iter().map(|(index, _)| *index).collect::<Vec<_>>());
    for (run, (_, rollout)) in ledger.runs.iter_mut().zip(by) {
        run.rollout = rollout.map(str::to_owned);
    }
    ledger
}

fn not_undone(set: &Set, ledger: &Ledger) -> String {
    next(set, ledger, &undo(DataLoss::Allowed))
        .unwrap_err()
        .to_string()
}

#[test]
fn what_a_rollout_applied_is_undone_newest_first_and_nothing_else() {
    let set = three();
    let ledger = applied_by(&set, &[(0, Some("q")), (1, Some("r")), (2, Some("r"))]);
    let work = next(&set, &ledger, &undo(DataLoss::Allowed)).unwrap();
    assert_eq!(versions(&work), [("3".to_owned(), 2), ("2".to_owned(), 2)]);
    let kept = next(&set, &ledger, &undo(DataLoss::Refused)).unwrap_err();
    assert!(
        matches!(&kept, Conflict::LosesData { version, .. } if version.as_str() == "3"),
        "{kept}"
    );
}

#[test]
fn what_has_been_undone_is_done() {
    let set = three();
    let mut ledger = applied_by(&set, &[(0, Some("r"))]);
    run(
        &mut ledger,
        &set.migrations[0],
        Direction::Down,
        2,
        RunState::Complete,
    );
    assert!(versions(&next(&set, &ledger, &undo(DataLoss::Refused)).unwrap()).is_empty());
    // Another rollout has applied it anew.
    run(
        &mut ledger,
        &set.migrations[0],
        Direction::Up,
        3,
        RunState::Complete,
    );
    assert!(versions(&next(&set, &ledger, &undo(DataLoss::Refused)).unwrap()).is_empty());
}

#[test]
fn a_half_done_undo_of_the_rollouts_own_is_continued() {
    let set = three();
    let mut ledger = applied_by(&set, &[(0, Some("r")), (1, Some("r"))]);
    run(
        &mut ledger,
        &set.migrations[1],
        Direction::Down,
        2,
        RunState::Open,
    );
    let work = next(&set, &ledger, &undo(DataLoss::Allowed)).unwrap();
    assert_eq!(versions(&work), [("2".to_owned(), 2), ("1".to_owned(), 2)]);
    assert!(work.todos[0].recorded);
}

#[test]
fn what_a_rollout_did_not_complete_is_left_as_it_is() {
    let set = three();
    let local = applied_by(&set, &[(0, None), (1, Some("q"))]);
    assert!(not_undone(&set, &local).contains("rollout r has completed no migration"));

    let mut half = applied_by(&set, &[(0, Some("r"))]);
    run(&mut half, &set.migrations[1], Direction::Up, 1, RunState::Open);
    let text = not_undone(&set, &half);
    assert!(text.contains("migration 2 \"m2\" is half applied"), "{text}");
    half.runs.remove(0);
    half.runs[0].rollout = Some("r".to_owned());
    let text = not_undone(&set, &half);
    assert!(text.contains("migration 2 \"m2\" is half applied"), "{text}");
}

#[test]
fn what_came_later_keeps_what_it_may_need() {
    let set = three();
    let ledger = applied_by(&set, &[(0, Some("r")), (1, Some("q"))]);
    let text = not_undone(&set, &ledger);
    assert!(
        text.contains("migration 2 \"m2\" came later (rollout q)"),
        "{text}"
    );
    // A later set of the same name, whose files this rollout does not have.
    let older = Set {
        migrations: set.migrations[..1].to_vec(),
        ..set.clone()
    };
    assert_eq!(not_undone(&older, &ledger), text);
    // In between, out of order.
    let between = applied_by(&set, &[(0, Some("r")), (1, None), (2, Some("r"))]);
    let text = not_undone(&set, &between);
    assert!(text.contains("migration 2 \"m2\" came later (someone)"), "{text}");
}
