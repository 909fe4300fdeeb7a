//! Rollouts as their operators steer them: waves, approval, failure budgets, limits, pauses.

mod away;
mod checks;
mod limits;
mod plan;
mod two;
mod undo;

use proto::v1::{Assignment, AssignmentState, GetRolloutResponse, Rollout, RolloutState};
use std::time::{Duration, Instant};
use tests::eventually;
use tests::fleet::{Agent, Coordinator, Member, members};
use tests::migrations::Migrations;
use tests::postgres::Server;
use tests::process::Ended;

const SOON: Duration = Duration::from_secs(30);
/// What is paused or aborted stops in this time, and the command that asks for it has had its answer.
const PROMPTLY: Duration = Duration::from_secs(2);
const LONG: Duration = Duration::from_secs(90);
const ROWS: i64 = 20_000;

/// Refused where someone has made the table before.
const CREATE: &[(&str, &str)] = &[("001_fresh.up.sql", "CREATE TABLE fresh (id bigint PRIMARY KEY);")];

/// Counts each row once, slowly enough to be met in the middle.
const COUNT: &[(&str, &str)] = &[(
    "001_count.yaml",
    "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 500, pause: 700ms } }\n",
)];

/// Counts each row once, and looks at each again.
const VERIFIED: &[(&str, &str)] = &[(
    "001_double.yaml",
    "up:\n  - backfill: { table: t, set: { m: n * 2 }, batch: { verify: true } }\n",
)];

/// Databases on one server, an agent that serves them, and a coordinator.
struct Fleet {
    members: Vec<Member>,
    coordinator: Coordinator,
    agent: Agent,
}

impl Fleet {
    async fn start(names: &[&str]) -> anyhow::Result<Self> {
        let members = members(Server::shared().await?, names).await?;
        let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
        let agent = Agent::start("agent-a", &[&coordinator.url()], &members)?;
        coordinator.wait_for_databases(names).await?;
        Ok(Self {
            members,
            coordinator,
            agent,
        })
    }

    /// Gives each database a table of many rows, none of them counted.
    async fn fill(&self) -> anyhow::Result<()> {
        for member in &self.members {
            let create = format!(
                "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0);
                 INSERT INTO t (n) SELECT 0 FROM generate_series(1, {ROWS})"
            );
            member.database.execute(&create).await?;
        }
        Ok(())
    }

    /// Makes a migration fail on these databases.
    async fn spoil(&self, names: &[&str]) -> anyhow::Result<()> {
        for member in self
            .members
            .iter()
            .filter(|member| names.contains(&&*member.name))
        {
            member.database.execute("CREATE TABLE fresh (other text)").await?;
        }
        Ok(())
    }

    async fn mend(&self, names: &[&str]) -> anyhow::Result<()> {
        for member in self
            .members
            .iter()
            .filter(|member| names.contains(&&*member.name))
        {
            member.database.execute("DROP TABLE fresh").await?;
        }
        Ok(())
    }

    /// `rollout start` with a policy, and its id.
    async fn rollout(&self, files: &[(&str, &str)], policy: &str) -> anyhow::Result<String> {
        let migrations = Migrations::write(files)?;
        let folder = tests::directory::Directory::new()?;
        let file = folder.write("policy.yaml", policy)?;
        let start = self.coordinator.rollout(&migrations).arg("--policy").arg(file);
        start.succeed().await?;
        Ok(self.coordinator.rollouts().await?[0].id.clone())
    }

    async fn ask(&self, words: &[&str]) -> anyhow::Result<String> {
        let words: Vec<_> = ["rollout"].into_iter().chain(words.iter().copied()).collect();
        self.coordinator.command(&words).succeed().await
    }

    async fn watch(&self, id: &str) -> anyhow::Result<Ended> {
        self.coordinator.command(&["rollout", "watch", id]).run().await
    }

    async fn show(&self, id: &str) -> anyhow::Result<(Rollout, Vec<Assignment>)> {
        let GetRolloutResponse {
            rollout, assignments, ..
        } = self.coordinator.show(id).await?;
        Ok((rollout.unwrap_or_default(), assignments))
    }

    async fn is(&self, id: &str, state: RolloutState) -> anyhow::Result<Rollout> {
        eventually(state.as_str_name(), LONG, || async {
            let (rollout, _) = self.show(id).await?;
            Ok((rollout.state() == state).then_some(rollout))
        })
        .await
    }

    /// What `rollout show` says, once these words are part of it.
    async fn says(&self, id: &str, words: &str) -> anyhow::Result<String> {
        eventually(words, SOON, || async {
            let text = self.ask(&["show", id]).await?;
            Ok(text.contains(words).then_some(text))
        })
        .await
    }

    /// The names of the databases in a state, in their order.
    async fn names(&self, id: &str, state: AssignmentState) -> anyhow::Result<Vec<String>> {
        let (_, assignments) = self.show(id).await?;
        let of = assignments.into_iter().filter(|of| of.state() == state);
        Ok(of.map(|of| of.database).collect())
    }

    fn member(&self, name: &str) -> &Member {
        let mut members = self.members.iter();
        members.find(|member| member.name == name).expect("a member")
    }

    async fn number(&self, name: &str, query: &str) -> anyhow::Result<i64> {
        self.member(name).database.number(query).await
    }
}

/// Whether a migration has touched a database at all.
const HAS_LEDGER: &str = "SELECT count(*) FROM pg_namespace WHERE nspname = 'confiture'";

#[tokio::test]
async fn a_canary_that_falls_keeps_the_migration_from_all_others() -> anyhow::Result<()> {
    let names = ["canary_1", "canary_2", "canary_3"];
    let fleet = Fleet::start(&names).await?;
    fleet.spoil(&["canary_2"]).await?;
    let policy = "waves: [{ name: canary, databases: [canary_2] }]";
    let id = fleet.rollout(CREATE, policy).await?;
    let watched = fleet.watch(&id).await?;
    assert_eq!(watched.code, Some(4), "{}", watched.stderr);
    let why = "1 database failed, and the failure budget of wave canary is 1";
    assert!(watched.stderr.contains(why), "{}", watched.stderr);
    assert!(watched.stderr.contains("rollout retry"), "{}", watched.stderr);
    for name in ["canary_1", "canary_3"] {
        assert_eq!(fleet.number(name, HAS_LEDGER).await?, 0, "{name} was touched");
    }
    fleet.mend(&["canary_2"]).await?;
    fleet
        .ask(&["retry", &id, "--reason", "dropped the old table"])
        .await?;
    let watched = fleet.watch(&id).await?;
    assert_eq!(watched.code, Some(0), "{}", watched.stderr);
    let shown = fleet.ask(&["show", &id]).await?;
    assert!(shown.contains("dropped the old table"), "{shown}");
    for name in names {
        let made = "SELECT count(*) FROM pg_class WHERE relname = 'fresh' AND relkind = 'r'";
        assert_eq!(fleet.number(name, made).await?, 1, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_spent_budget_begins_nothing_more_and_failures_can_be_left_out() -> anyhow::Result<()> {
    let names = ["budget_1", "budget_2", "budget_3", "budget_4", "budget_5"];
    let fleet = Fleet::start(&names).await?;
    fleet.spoil(&["budget_1", "budget_2", "budget_3"]).await?;
    let id = fleet
        .rollout(CREATE, "{ max_in_flight: 1, failure_budget: 2 }")
        .await?;
    let paused = fleet.is(&id, RolloutState::Paused).await?;
    assert!(paused.halted, "{paused:?}");
    let failed = fleet.names(&id, AssignmentState::Failed).await?;
    assert_eq!(failed, ["budget_1", "budget_2"]);
    assert_eq!(fleet.number("budget_3", HAS_LEDGER).await?, 0);
    let skip = [
        "skip", &id, "budget_1", "budget_2", "budget_3", "--reason", "retired",
    ];
    fleet.ask(&skip).await?;
    fleet.is(&id, RolloutState::Paused).await?;
    let again = fleet
        .coordinator
        .command(&["rollout", "skip", &id, "budget_1", "--reason", "x"]);
    let again = again.run().await?;
    assert!(
        again.stderr.contains("the rollout stays paused"),
        "{}",
        again.stderr
    );
    fleet.ask(&["resume", &id]).await?;
    let done = fleet.is(&id, RolloutState::Done).await?;
    assert_eq!((done.done_databases, done.skipped_databases), (2, 3));
    assert_eq!(fleet.number("budget_3", HAS_LEDGER).await?, 0);
    let shown = fleet.ask(&["show", &id]).await?;
    assert!(shown.contains(": retired"), "{shown}");
    Ok(())
}

#[tokio::test]
async fn a_failed_rollout_is_opened_again_by_a_retry() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["again_1", "again_2"]).await?;
    fleet.spoil(&["again_1"]).await?;
    let id = fleet.rollout(CREATE, "{}").await?;
    let watched = fleet.watch(&id).await?;
    assert_eq!(watched.code, Some(1), "{}", watched.stderr);
    fleet.mend(&["again_1"]).await?;
    fleet.ask(&["retry", &id, "again_1"]).await?;
    fleet.is(&id, RolloutState::Done).await?;
    let nothing = fleet
        .coordinator
        .command(&["rollout", "retry", &id])
        .run()
        .await?;
    assert_eq!(nothing.code, Some(2), "{}", nothing.stderr);
    assert!(
        nothing.stderr.contains("the rollout is done"),
        "{}",
        nothing.stderr
    );
    Ok(())
}

#[tokio::test]
async fn a_pause_stops_between_two_batches_and_outlives_the_coordinator() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(&["paused"]).await?;
    fleet.fill().await?;
    let id = fleet.rollout(COUNT, "{}").await?;
    let counted = "SELECT count(*) FROM t WHERE n = 1";
    eventually("some batches", SOON, || async {
        Ok((fleet.number("paused", counted).await? > 0).then_some(()))
    })
    .await?;
    let asked = Instant::now();
    fleet.ask(&["pause", &id, "--reason", "lunch"]).await?;
    let at_pause = fleet.number("paused", counted).await?;
    eventually("nothing at work", SOON, || async {
        let (rollout, _) = fleet.show(&id).await?;
        Ok((rollout.running_databases == 0).then_some(()))
    })
    .await?;
    let took = asked.elapsed();
    assert!(took < PROMPTLY, "it took {took:?} to stop");
    let stopped = fleet.number("paused", counted).await?;
    assert!(
        stopped < ROWS && stopped <= at_pause + 2 * 500,
        "{at_pause} {stopped}"
    );
    let text = fleet.says(&id, "the rollout is paused (paused by").await?;
    assert!(!text.contains("error"), "a pause is no error: {text}");
    assert!(text.contains("lunch"), "{text}");
    let changed = |shown: &[Assignment]| shown[0].summary.map_or(0, |of| of.rows.cast_signed());
    let (_, assignments) = fleet.show(&id).await?;
    assert_eq!(
        changed(&assignments),
        stopped,
        "what was done before a pause counts"
    );
    fleet.coordinator.kill()?;
    fleet.coordinator.restart().await?;
    fleet.coordinator.wait_for_databases(&["paused"]).await?;
    fleet.is(&id, RolloutState::Paused).await?;
    assert_eq!(fleet.number("paused", counted).await?, stopped);
    fleet.ask(&["resume", &id]).await?;
    let done = fleet.is(&id, RolloutState::Done).await?;
    assert_eq!(done.actions.len(), 2, "{:?}", done.actions);
    assert_eq!(fleet.number("paused", counted).await?, ROWS);
    let (_, assignments) = fleet.show(&id).await?;
    assert_eq!(assignments[0].attempt, 1, "a pause is no failure");
    assert_eq!(changed(&assignments), ROWS);
    Ok(())
}

#[tokio::test]
async fn a_wave_soaks_and_the_next_waits_for_approval() -> anyhow::Result<()> {
    let mut fleet = Fleet::start(&["wave_1", "wave_2", "wave_3"]).await?;
    let policy = "
waves:
  - { name: first, databases: [wave_1], soak: 2s }
  - { name: second, databases: [wave_2], approval: true }
";
    let id = fleet.rollout(CREATE, policy).await?;
    let text = fleet.says(&id, "wave first soaks until").await?;
    assert!(text.contains("wave second has not begun"), "{text}");
    fleet.says(&id, "wave second waits for approval").await?;
    assert_eq!(fleet.names(&id, AssignmentState::Done).await?, ["wave_1"]);
    let wrong = ["rollout", "approve", &id, "thrid"];
    let wrong = fleet.coordinator.command(&wrong).run().await?;
    assert_eq!(wrong.code, Some(2));
    let known = "there is no wave `thrid`: the waves are first, second, rest";
    assert!(wrong.stderr.contains(known), "{}", wrong.stderr);
    fleet
        .ask(&["approve", &id, "second", "--reason", "looks good"])
        .await?;
    let done = fleet.is(&id, RolloutState::Done).await?;
    let ended = |name: &str, shown: &[Assignment]| {
        let of = shown.iter().find(|of| of.database == name);
        of.map_or(0, |of| of.ended_at_unix_ms)
    };
    let (_, shown) = fleet.show(&id).await?;
    assert!(
        ended("wave_1", &shown) + 2_000 <= ended("wave_2", &shown),
        "{shown:?}"
    );
    assert!(ended("wave_2", &shown) <= ended("wave_3", &shown), "{shown:?}");
    assert_eq!(done.waves.len(), 3);
    // What its time went into can be read afterwards, of a coordinator that has just begun too.
    fleet.coordinator.kill()?;
    fleet.coordinator.restart().await?;
    let told = eventually("the coordinator to answer again", SOON, || async {
        let told = fleet.ask(&["trace", &id, "--output", "json"]).await?;
        Ok(Some(serde_json::from_str::<serde_json::Value>(&told)?))
    })
    .await?;
    let timeline = told["timeline"].as_array().cloned().unwrap_or_default();
    let rows: Vec<_> = timeline
        .iter()
        .map(|stretch| {
            let text = |key: &str| stretch[key].as_str().unwrap_or_default().to_owned();
            (text("what"), text("wave"))
        })
        .collect();
    let expected = [
        ("wave", "first"),
        ("soak", "first"),
        ("approval", "second"),
        ("asked", ""),
        ("wave", "second"),
        ("wave", "rest"),
        ("ended", ""),
    ]
    .map(|(what, wave)| (what.to_owned(), wave.to_owned()));
    assert_eq!(rows, expected, "{timeline:#?}");
    let took = |stretch: &serde_json::Value| {
        stretch["to"].as_u64().unwrap_or(0) - stretch["from"].as_u64().unwrap_or(0)
    };
    assert_eq!(took(&timeline[1]), 2_000, "{timeline:#?}");
    assert!(
        timeline.iter().all(|stretch| stretch["to"].is_u64()),
        "{timeline:#?}"
    );
    let page = fleet.ask(&["trace", &id]).await?;
    for part in [
        "wave first soaked, for 2 s at least",
        "wave second waited for approval",
        "approve second asked for by",
        ": looks good",
        "the rollout ended: done",
    ] {
        assert!(page.contains(part), "`{part}` is not in\n{page}");
    }
    Ok(())
}

#[tokio::test]
async fn a_report_tells_what_happened_in_each_form() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["report_1", "report_2"]).await?;
    let create = format!(
        "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL, m int);
         INSERT INTO t (n) SELECT i FROM generate_series(1, {ROWS}) i"
    );
    fleet.members[0].database.execute(&create).await?;
    let id = fleet
        .rollout(VERIFIED, "waves: [{ name: canary, databases: [report_1] }]")
        .await?;
    // There is no such table on the other.
    fleet.is(&id, RolloutState::Failed).await?;
    let json = fleet.ask(&["report", &id, "--format", "json"]).await?;
    let report: serde_json::Value = serde_json::from_str(&json)?;
    let first = &report["databases"][0];
    assert_eq!(first["database"], "report_1", "{json}");
    assert_eq!(
        (&first["changed_rows"], &first["verified_rows"]),
        (&ROWS.into(), &ROWS.into())
    );
    assert_eq!(first["differing_rows"], 0, "{json}");
    assert!(first["batches"].as_u64() > Some(0), "{json}");
    assert_eq!(report["totals"]["changed_rows"], ROWS, "{json}");
    let text = fleet.ask(&["report", &id]).await?;
    for part in ["20,000 rows", "report_2:\n", "canary", "slowest", "LOCK WAIT"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let markdown = fleet.ask(&["report", &id, "--format", "markdown"]).await?;
    for part in [
        "# rollout ",
        "## Databases\n\n| DATABASE | WAVE |",
        "| report\\_1 | canary | done |",
    ] {
        assert!(markdown.contains(part), "{part}: {markdown}");
    }
    Ok(())
}

#[tokio::test]
async fn a_backfill_is_verified_on_canaries_and_not_on_the_rest() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["verified_1", "verified_2"]).await?;
    for member in &fleet.members {
        let create = "CREATE TABLE t (id bigint PRIMARY KEY, n int NOT NULL, m int);
             INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i";
        member.database.execute(create).await?;
    }
    let double = [(
        "001_double.yaml",
        "up:\n  - backfill: { table: t, set: { m: n * 2 } }\n",
    )];
    let id = fleet
        .rollout(&double, "waves: [{ databases: [verified_1] }]")
        .await?;
    fleet.is(&id, RolloutState::Done).await?;
    let (_, assignments) = fleet.show(&id).await?;
    let verified = assignments
        .iter()
        .map(|of| of.summary.map_or(0, |of| of.verified_rows));
    assert_eq!(verified.collect::<Vec<_>>(), [1000, 0]);
    Ok(())
}

#[tokio::test]
async fn no_more_databases_of_one_server_are_at_work_than_allowed() -> anyhow::Result<()> {
    let names = ["server_1", "server_2", "server_3"];
    let fleet = Fleet::start(&names).await?;
    let slow = &[("001_slow.up.sql", "SELECT pg_sleep(1);")];
    let id = fleet.rollout(slow, "max_per_server: 1").await?;
    fleet.says(&id, "waiting for its turn on server").await?;
    let mut most = 0;
    loop {
        let (rollout, _) = fleet.show(&id).await?;
        most = most.max(rollout.running_databases);
        if rollout.state() == RolloutState::Done {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(most, 1);
    Ok(())
}

#[tokio::test]
async fn a_table_that_even_readers_wait_for_is_waited_for_within_the_budget() -> anyhow::Result<()> {
    let fleet = Fleet::start(&["shut"]).await?;
    let database = &fleet.member("shut").database;
    database.execute("CREATE TABLE t (id bigint PRIMARY KEY)").await?;
    let holder = database.connect().await?;
    holder.batch_execute("BEGIN; LOCK TABLE t").await?;
    let add = &[(
        "001_add.yaml",
        "up:\n  - add_column: { table: t, column: c, type: int }\n    lock_timeout: 3s\n",
    )];
    let began = Instant::now();
    let id = fleet.rollout(add, "{ max_attempts: 1 }").await?;
    fleet
        .says(&id, "waiting for a lock, outside its queue, held by")
        .await?;
    fleet.is(&id, RolloutState::Failed).await?;
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let (_, assignments) = fleet.show(&id).await?;
    let waited = assignments[0].summary.map_or(0, |of| of.lock_wait_ms);
    assert!((2_000..6_000).contains(&waited), "{assignments:?}");
    holder.batch_execute("ROLLBACK").await?;
    Ok(())
}
