//! Rollouts that are taken back.

use super::{COUNT, Fleet, LONG, ROWS};
use proto::v1::{AssignmentState, RolloutState};
use tests::eventually;
use tests::migrations::Migrations;
use tests::process::Confiture;

const ADD: &[(&str, &str)] = &[(
    "001_fresh.yaml",
    "up:\n  - create_table: { table: fresh, columns: [{ name: id, type: bigint }], primary_key: [id] }\n  - add_column: { table: t, column: c, type: int }\n",
)];

const COLUMNS: &str =
    "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attname IN ('c', 'later')";
const TABLES: &str = "SELECT count(*) FROM pg_class WHERE relname = 'fresh' AND relkind = 'r'";

#[tokio::test]
async fn an_undo_takes_back_what_the_rollout_did_where_nothing_came_later() -> anyhow::Result<()> {
    let names = ["undo_1", "undo_2", "undo_3"];
    let fleet = Fleet::start(&names).await?;
    for member in &fleet.members {
        member
            .database
            .execute("CREATE TABLE t (id bigint PRIMARY KEY)")
            .await?;
    }
    let id = fleet.rollout(ADD, "waves: [{ databases: [undo_1] }]").await?;
    fleet.is(&id, RolloutState::Done).await?;
    let later = Migrations::write(ADD)?;
    later.put("002_later.up.sql", "ALTER TABLE t ADD COLUMN later int;")?;
    let up = Confiture::new(["migrate", "up"])
        .arg("--migrations")
        .arg(later.path());
    up.env("DATABASE_URL", fleet.member("undo_3").database.url())
        .succeed()
        .await?;

    let careful = fleet
        .coordinator
        .command(&["rollout", "undo", &id, "--watch"])
        .run()
        .await?;
    assert_eq!(careful.code, Some(3), "{}", careful.stderr);
    assert!(careful.stderr.contains("--allow-data-loss"), "{}", careful.stderr);
    assert_eq!(
        fleet.coordinator.rollouts().await?.len(),
        1,
        "nothing was founded"
    );
    for name in names {
        assert_eq!(fleet.number(name, TABLES).await?, 1, "{name} was touched");
    }

    let undo = [
        "rollout",
        "undo",
        &id,
        "--allow-data-loss",
        "--reason",
        "too slow",
        "--watch",
    ];
    let undone = fleet.coordinator.command(&undo).run().await?;
    assert_eq!(undone.code, Some(0), "{}", undone.stderr);
    for (name, left) in [("undo_1", 0), ("undo_2", 0), ("undo_3", 1)] {
        assert_eq!(fleet.number(name, TABLES).await?, left, "{name}");
    }
    assert_eq!(fleet.number("undo_2", COLUMNS).await?, 0);
    assert_eq!(fleet.number("undo_3", COLUMNS).await?, 2);
    let rollouts = fleet.coordinator.rollouts().await?;
    let taken_back = &rollouts[0];
    assert_eq!(taken_back.undoes, id);
    // The last wave comes first.
    let waves: Vec<_> = taken_back.waves.iter().map(|wave| wave.name.as_str()).collect();
    assert_eq!(waves, ["rest", "wave 1"]);
    let shown = fleet.ask(&["show", &taken_back.id]).await?;
    for part in ["which undoes", "migration 002 \"later\" came later"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    assert_eq!(taken_back.created_reason, "too slow");
    let (original, _) = fleet.show(&id).await?;
    let link = original.actions.last().and_then(|action| action.verb.clone());
    assert!(format!("{link:?}").contains(&taken_back.id), "{link:?}");

    // What is taken back is not tried again, and an undo is not undone.
    for (words, why) in [
        (["retry", &id], "takes it back"),
        (["undo", &taken_back.id], "itself"),
    ] {
        let refused = fleet
            .coordinator
            .command(&["rollout", words[0], words[1]])
            .run()
            .await?;
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(why), "{}", refused.stderr);
    }
    Ok(())
}

#[tokio::test]
async fn an_undo_aborts_the_rollout_first_and_leaves_what_is_half_done() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["undo_half_1", "undo_half_2"]).await?;
    for member in &fleet.members {
        let rows = format!(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
             INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
        );
        member.database.execute(&rows).await?;
    }
    let id = fleet.rollout(COUNT, "max_in_flight: 1").await?;
    let counted = "SELECT count(*) FROM t WHERE n = 1";
    eventually("some rows counted", LONG, || async {
        Ok((fleet.number("undo_half_1", counted).await? > 0).then_some(()))
    })
    .await?;
    let undo = ["undo", &id, "--request-id", "take-back"];
    let started = fleet.ask(&undo).await?;
    assert!(started.contains(&format!("undoes {id}")), "{started}");
    let again = fleet.ask(&undo).await?;
    assert!(again.contains("was started before"), "{again}");
    fleet.is(&id, RolloutState::Aborted).await?;
    let undo = fleet.coordinator.rollouts().await?[0].id.clone();
    fleet.is(&undo, RolloutState::Done).await?;
    // Only the first was begun.
    assert_eq!(
        fleet.names(&undo, AssignmentState::Skipped).await?,
        ["undo_half_1"]
    );
    let shown = fleet.ask(&["show", &undo]).await?;
    assert!(
        shown.contains("migration 001 \"count\" is half applied"),
        "{shown}"
    );
    let left = fleet.number("undo_half_1", counted).await?;
    assert!(left > 0 && left < ROWS, "{left}");
    Ok(())
}

#[tokio::test]
async fn an_undo_is_refused_ahead_for_any_of_its_migrations_that_loses_data() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["undo_ahead"]).await?;
    let table = "CREATE TABLE t (id bigint PRIMARY KEY)";
    fleet.member("undo_ahead").database.execute(table).await?;
    let index = (
        "002_index.yaml",
        "up:\n  - create_index: { table: fresh, columns: [id], name: later }\n",
    );
    let files: Vec<_> = ADD.iter().copied().chain([index]).collect();
    let id = fleet.rollout(&files, "{}").await?;
    fleet.is(&id, RolloutState::Done).await?;
    let careful = fleet.coordinator.command(&["rollout", "undo", &id]).run().await?;
    assert_eq!(careful.code, Some(3), "{}", careful.stderr);
    let why = "nothing was done, as the way down of migration 001";
    assert!(careful.stderr.contains(why), "{}", careful.stderr);
    assert_eq!(
        fleet.coordinator.rollouts().await?.len(),
        1,
        "nothing was founded"
    );
    Ok(())
}
