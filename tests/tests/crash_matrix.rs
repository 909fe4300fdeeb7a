//! Every kind of step, met at every point of its life by every fault: the same command again finishes the work, every row
//! is changed exactly once, and the ledger is as it must be. All combinations are run; none is drawn by lot.
//!
//! A process dies (exit), stands still until its lease has run out and another has done its work (stall), or loses a
//! connection (error). At the points inside the program the program does it to itself; a COMMIT whose answer is lost
//! is made by the proxy before the server.

use anyhow::{Context as _, ensure};
use futures_util::StreamExt as _;
use std::fmt;
use std::time::Duration;
use tests::migrations::Migrations;
use tests::postgres::{Database, Options, Server};
use tests::process::{Build, Confiture, Ended, Process};
use tests::proxy::{AtCommit, Proxy};
use tokio::sync::OnceCell;

/// How long a holder counts as alive here.
const HOLDER_TIME: &str = "2s";
/// A stalled process sleeps for three times as long, at least.
const THREE_LEASES: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_mins(2);

/// Cases at work at once: nearly all of their time they wait for a lease to end.
const AT_ONCE: usize = 16;

/// The code of a process that a fault ended.
const DIED: i32 = 137;

/// What the program says when an armed fault happens.
const FIRED: &str = "a fault on purpose";

/// What the run says that did the work.
const APPLIED: &str = "1 migration applied";

/// One kind of step: a file with it alone, on a table that it can be met on.
struct Step {
    name: &'static str,
    /// A migration that is applied before, in peace.
    before: Option<&'static str>,
    file: (&'static str, &'static str),
    /// A query that gives one number: 0 when the step has been done, and once.
    wrong: &'static str,
    shape: Shape,
}

/// Which transactions a step consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// So many that each change something and keep books.
    Transactions(u32),
    /// A statement of its own between a transaction before it, a check of the fence, and a transaction after it.
    Outside,
    /// One that begins, a check of the fence, a statement of its own, one that publishes what it made.
    Built,
    /// One that gives it up, a check of the fence, a statement of its own, one that ends.
    Dropped,
    /// One that begins, at least four that change rows, one that ends.
    Batches,
    /// The same, with one before the end that keeps what a comparison of all rows found.
    VerifiedBatches,
    /// One that keeps books, after a query that changed nothing.
    Assertion,
}

/// A point of a step's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Point {
    AfterTakeover,
    AfterFenceLock,
    AfterChange,
    BeforeCommit,
    /// The server has committed, and its answer is lost on the way.
    CommitSent,
    AfterCommit,
    BeforeReport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Exit,
    Stall,
    Error,
}

/// One fault, at one point, the `turn`th time it is reached, in one kind of step.
#[derive(Clone, Copy)]
struct Case {
    step: &'static Step,
    point: Point,
    turn: u32,
    fault: Fault,
}

const POINTS: [Point; 7] = [
    Point::AfterTakeover,
    Point::AfterFenceLock,
    Point::AfterChange,
    Point::BeforeCommit,
    Point::CommitSent,
    Point::AfterCommit,
    Point::BeforeReport,
];

/// Forty rows in batches of ten (or of one block of some), and who was changed how often, by a trigger: what the program counts is not believed.
const TABLE: &str = "
CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n int NOT NULL DEFAULT 0, note text, spare int);
INSERT INTO t (note) SELECT 'a' FROM generate_series(1, 40);
CREATE TABLE touched (id bigint);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN INSERT INTO touched VALUES (old.id); RETURN NULL; END $$;
CREATE TRIGGER touch AFTER UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE strict (id bigint PRIMARY KEY, note text NOT NULL);
CREATE TABLE keyless (id bigint, n int, ballast text);
INSERT INTO keyless SELECT g, NULL, repeat('x', 1500) FROM generate_series(1, 40) g;
CREATE TRIGGER touch AFTER UPDATE OR DELETE ON keyless FOR EACH ROW EXECUTE FUNCTION touch();
CREATE TABLE parts (id int, strict_id bigint) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts DEFAULT;
INSERT INTO parts SELECT g FROM generate_series(1, 40) g;
CREATE TYPE state AS ENUM ('new');
";

/// Rows that were not touched exactly once, or have not become what they must be.
const COUNTED: &str =
    "SELECT count(*) FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
 WHERE n <> 1 OR times IS DISTINCT FROM 1";

/// Indexes beside the primary key that are not the one, or not valid.
const ONE_INDEX: &str =
    "SELECT abs(1 - count(*)) + count(*) FILTER (WHERE NOT indisvalid OR relname <> 't_n')
  FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = 't'::regclass AND NOT indisprimary";

/// The same for a column that is computed from others.
const DERIVED: &str =
    "SELECT count(*) FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
 WHERE spare IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1";

static STEPS: [Step; 24] = [
    Step {
        name: "sql",
        before: None,
        file: ("1_it.up.sql", "UPDATE t SET n = n + 1;\n"),
        wrong: COUNTED,
        shape: Shape::Transactions(1),
    },
    Step {
        name: "sql outside a transaction",
        before: None,
        file: (
            "1_it.up.sql",
            "-- confiture: transaction=off\nCREATE INDEX CONCURRENTLY t_n ON t (n);\n",
        ),
        wrong: "SELECT abs(1 - count(*)) + count(*) FILTER (WHERE NOT indisvalid)
                  FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Outside,
    },
    Step {
        name: "add_column",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_column: { table: t, column: fresh, type: text }\n"),
        wrong: "SELECT abs(5 - count(*)) + abs(1 - count(*) FILTER (WHERE attname = 'fresh'))
                  FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "drop_column",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_column: { table: t, column: spare }\n"),
        wrong: "SELECT abs(4 - count(*)) + abs(1 - count(*) FILTER (WHERE attisdropped))
                  FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "set_not_null",
        before: None,
        file: ("1_it.yaml", "up:\n  - set_not_null: { table: t, column: note }\n"),
        wrong: "SELECT count(*) FROM pg_attribute a WHERE attrelid = 't'::regclass AND attname = 'note'
                   AND (NOT attnotnull OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c'))",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "drop_not_null",
        before: None,
        file: ("1_it.yaml", "up:\n  - drop_not_null: { table: strict, column: note }\n"),
        wrong: "SELECT count(*) FROM pg_attribute WHERE attrelid = 'strict'::regclass AND attname = 'note' AND attnotnull",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "add_check",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_check: { table: parts, name: small, check: id < 99 }\n"),
        wrong: "SELECT abs(2 - count(*)) + count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE conname = 'small'",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "add_foreign_key",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - add_foreign_key: { table: parts, name: to_strict, columns: [strict_id], references: { table: strict } }\n",
        ),
        wrong: "SELECT abs(2 - count(*)) + count(*) FILTER (WHERE NOT convalidated) FROM pg_constraint WHERE conname = 'to_strict'",
        shape: Shape::Transactions(3),
    },
    Step {
        name: "create_table",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - create_table: { table: fresh, columns: [{ name: id, type: int }], primary_key: [id] }\n",
        ),
        wrong: "SELECT abs(1 - count(*)) FROM pg_class WHERE relname = 'fresh'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "rename_table",
        before: None,
        file: ("1_it.yaml", "up:\n  - rename_table: { table: strict, to: stricter }\n"),
        wrong: "SELECT abs(1 - count(*)) FROM pg_class WHERE relname = 'stricter'",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "add_enum_value",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_enum_value: { type: state, value: paid }\n"),
        wrong: "SELECT abs(2 - count(*)) FROM pg_enum",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "backfill that reads what it sets",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { n: n + 1 }, batch: { size: 10 } }\n",
        ),
        wrong: COUNTED,
        shape: Shape::Batches,
    },
    Step {
        name: "derived backfill",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, batch: { size: 10 } }\n",
        ),
        wrong: DERIVED,
        shape: Shape::Batches,
    },
    Step {
        name: "backfill that is verified",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, batch: { size: 10, verify: true } }\n",
        ),
        wrong: DERIVED,
        shape: Shape::VerifiedBatches,
    },
    Step {
        name: "add_column with a default for each row",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - add_column: { table: t, column: fresh, type: uuid, default: gen_random_uuid(), not_null: true, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) FILTER (WHERE times IS DISTINCT FROM 1) + abs(40 - count(DISTINCT fresh))
                     + (SELECT count(*) FROM pg_attribute a WHERE attrelid = 't'::regclass AND attname = 'fresh'
                           AND (NOT attnotnull OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = attrelid AND contype = 'c')))
                  FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)",
        shape: Shape::Batches,
    },
    Step {
        name: "backfill with a trigger",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: t, set: { spare: n + 7 }, sync: trigger, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) + (SELECT abs(3 - count(*)) FROM pg_trigger WHERE tgrelid = 't'::regclass)
                  FROM t LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
                 WHERE spare IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1",
        shape: Shape::Batches,
    },
    Step {
        name: "drop_sync",
        before: Some("up:\n  - backfill: { table: t, set: { spare: n + 7 }, sync: trigger }\n"),
        file: ("1_it.yaml", "up:\n  - drop_sync: { table: t, column: spare }\n"),
        wrong: "SELECT abs(1 - count(*)) FROM pg_trigger WHERE tgrelid = 't'::regclass",
        shape: Shape::Transactions(1),
    },
    Step {
        name: "backfill by blocks",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - backfill: { table: keyless, set: { n: 7 }, where: n IS NULL, batch: { size: 10 } }\n",
        ),
        wrong: "SELECT count(*) FROM keyless LEFT JOIN (SELECT id, count(*) AS times FROM touched GROUP BY id) c USING (id)
                 WHERE n IS DISTINCT FROM 7 OR times IS DISTINCT FROM 1",
        shape: Shape::Batches,
    },
    Step {
        name: "delete",
        before: None,
        file: (
            "1_it.yaml",
            "up:\n  - delete: { table: t, where: \"id % 2 = 0\", batch: { size: 10 } }\n",
        ),
        wrong: "SELECT abs(20 - count(*)) + count(*) FILTER (WHERE id % 2 = 0)
                     + (SELECT abs(20 - count(*)) + abs(20 - count(DISTINCT id)) FROM touched) FROM t",
        shape: Shape::Batches,
    },
    Step {
        name: "create_index",
        before: None,
        file: ("1_it.yaml", "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n"),
        wrong: ONE_INDEX,
        shape: Shape::Built,
    },
    Step {
        name: "drop_index",
        before: Some("up:\n  - create_index: { table: t, columns: [n], name: t_n }\n"),
        file: ("1_it.yaml", "up:\n  - drop_index: { name: t_n }\n"),
        wrong: "SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Dropped,
    },
    Step {
        name: "reindex",
        before: Some(
            "up:\n  - create_index: { table: t, columns: [n], name: t_n }\n  - sql: CREATE TABLE was AS SELECT 't_n'::regclass::oid AS oid\n",
        ),
        file: ("1_it.yaml", "up:\n  - reindex: { index: t_n }\n"),
        wrong: "SELECT abs(1 - count(*)) + count(*) FILTER (WHERE NOT indisvalid OR relname <> 't_n')
                     + (SELECT count(*) FROM was WHERE oid = 't_n'::regclass)
                  FROM pg_index JOIN pg_class ON oid = indexrelid WHERE indrelid = 't'::regclass AND NOT indisprimary",
        shape: Shape::Outside,
    },
    Step {
        name: "add_unique",
        before: None,
        file: ("1_it.yaml", "up:\n  - add_unique: { table: t, columns: [n, id], name: t_n }\n"),
        wrong: ONE_INDEX,
        shape: Shape::Built,
    },
    Step {
        name: "assert",
        before: None,
        file: ("1_it.yaml", "up:\n  - assert: { query: SELECT count(*) = 40 FROM t }\n"),
        wrong: "SELECT count(*) FROM touched",
        shape: Shape::Assertion,
    },
];

impl Point {
    /// Its name where the program does it to itself.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::AfterTakeover => Some("after_takeover"),
            Self::AfterFenceLock => Some("after_fence_lock"),
            Self::AfterChange => Some("after_change"),
            Self::BeforeCommit => Some("before_commit"),
            Self::CommitSent => None,
            Self::AfterCommit => Some("after_commit"),
            Self::BeforeReport => Some("before_report"),
        }
    }
}

impl Shape {
    /// At which of the times it comes to a point it is met there; none where it never does.
    fn turns(self, point: Point) -> &'static [u32] {
        let (locks, changes, commits): (&[u32], &[u32], &[u32]) = match self {
            Self::Transactions(1) => (&[1], &[1], &[1]),
            Self::Transactions(_) => (&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]),
            Self::Outside => (&[1, 2, 3], &[1], &[1, 2]),
            Self::Built | Self::Dropped => (&[1, 2, 3], &[1, 2], &[1, 2]),
            // In the first and in the middle.
            Self::Batches => (&[1, 3], &[1, 3], &[1, 3]),
            Self::VerifiedBatches => (&[1, 3, 6], &[1, 3], &[1, 3, 6]),
            // An assertion changes nothing, so there is no moment after its change.
            Self::Assertion => (&[1], &[], &[1]),
        };
        match point {
            Point::AfterTakeover | Point::BeforeReport => &[1],
            Point::AfterFenceLock => locks,
            Point::AfterChange => changes,
            Point::BeforeCommit | Point::CommitSent | Point::AfterCommit => commits,
        }
    }
}

impl Case {
    /// Whether all was committed when it was met: nothing was left for another run.
    fn was_the_end(self) -> bool {
        let last = match self.step.shape {
            Shape::Transactions(all) => all,
            Shape::Outside | Shape::Built | Shape::Dropped => 2,
            Shape::Assertion => 1,
            // Its end is none of those it is met at.
            Shape::Batches | Shape::VerifiedBatches => u32::MAX,
        };
        match self.point {
            Point::BeforeReport => true,
            Point::CommitSent | Point::AfterCommit => self.turn == last,
            Point::AfterTakeover | Point::AfterFenceLock | Point::AfterChange | Point::BeforeCommit => false,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            point,
            turn,
            fault,
        } = self;
        write!(f, "{}, {point:?}, turn {turn}, {fault:?}", step.name)
    }
}

/// A server with room for all cases at once.
async fn server() -> anyhow::Result<&'static Server> {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    let options = || Options {
        max_connections: 300,
        ..Options::default()
    };
    let start = async || {
        Build::Faults.make().await?;
        Server::start_with(options()).await
    };
    SERVER.get_or_try_init(start).await
}

async fn database() -> anyhow::Result<Database> {
    let database = server().await?.fresh_database().await?;
    database.execute(TABLE).await?;
    Ok(database)
}

fn migrate_up(url: &str, migrations: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .build(Build::Faults)
        .arg(migrations.path())
        .env("DATABASE_URL", url)
        .env("CONFITURE_HOLDER_TIME", HOLDER_TIME)
}

/// All cases of one fault, many at once; says all that went wrong, not only the first.
async fn all_of(fault: Fault) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for step in &STEPS {
        for point in POINTS {
            let turns = step.shape.turns(point).iter();
            cases.extend(turns.map(|turn| Case {
                step,
                point,
                turn: *turn,
                fault,
            }));
        }
    }
    let count = cases.len();
    let done = futures_util::stream::iter(cases)
        .map(|case| async move { (case, Box::pin(meet(case)).await) })
        .buffer_unordered(AT_ONCE);
    let failed: Vec<String> = done
        .filter_map(|(case, ended)| async move { ended.err().map(|error| format!("{case}: {error:#}")) })
        .collect()
        .await;
    ensure!(
        failed.is_empty(),
        "{} of {count} cases failed:\n{}",
        failed.len(),
        failed.join("\n")
    );
    Ok(())
}

async fn meet(case: Case) -> anyhow::Result<()> {
    let database = database().await?;
    let migrations = Migrations::write(&[])?;
    if let Some(before) = case.step.before {
        migrations.put("0_before.yaml", before)?;
        migrate_up(database.url(), &migrations).succeed().await?;
    }
    migrations.put(case.step.file.0, case.step.file.1)?;
    let again = migrate_up(database.url(), &migrations);
    match case.point.name() {
        Some(point) => inside(case, point, &again).await?,
        None => on_the_way(case, OF_STEPS, &database, &migrations).await?,
    }
    let last = again.run().await?;
    expect(&last, 0)?;
    is_done_once(case.step, &database).await
}

/// The program does it to itself.
async fn inside(case: Case, point: &str, up: &Confiture) -> anyhow::Result<()> {
    let kind = match case.fault {
        Fault::Exit => "exit",
        Fault::Stall => "stall",
        Fault::Error => "error",
    };
    let armed = up
        .clone()
        .env("CONFITURE_FAULT", format!("{point}:{kind}@{}", case.turn));
    match case.fault {
        Fault::Exit => expect(&armed.run().await?, DIED),
        Fault::Error => {
            let ended = armed.run().await?;
            ensure!(
                ended.stderr.contains(FIRED),
                "it was not reached: {}",
                ended.stderr
            );
            // It passes by itself, but where the run is over and only its report is left.
            expect(&ended, i32::from(case.point == Point::BeforeReport))
        }
        Fault::Stall => {
            let mut stalled = armed.start("stalled")?;
            stalled.wait_for_line(FIRED, LONG).await?;
            let other = while_asleep(up).await?;
            stalled.resume()?;
            says_how_it_was(&mut stalled, &other, case).await
        }
    }
}

/// COMMITs of steps name the step in their tag; those of the ledger's creation and of the takeover do not.
const OF_STEPS: fn(&str) -> bool = |text| text.contains(" n=");

/// The COMMIT reaches the server, and its answer nobody. Then the process loses its connection, dies or stands still.
async fn on_the_way(
    case: Case,
    of: fn(&str) -> bool,
    database: &Database,
    migrations: &Migrations,
) -> anyhow::Result<()> {
    let server = server().await?;
    let proxy = Proxy::start(server).await?;
    let then = match case.fault {
        Fault::Error => AtCommit::LoseAnswer,
        Fault::Exit | Fault::Stall => AtCommit::HoldAnswer,
    };
    let mut seen = 0;
    proxy.at_commit(move |text| {
        seen += u32::from(of(text));
        if of(text) && seen == case.turn {
            then
        } else {
            AtCommit::Pass
        }
    });
    let up = migrate_up(&proxy.url(server, database), migrations);
    if case.fault == Fault::Error {
        let ended = up.run().await?;
        ensure!(proxy.kept() == 1, "there was no such COMMIT");
        return expect(&ended, 0);
    }
    let mut process = up.start("in doubt")?;
    let kept = tokio::time::timeout(LONG, proxy.kept_back(1)).await;
    kept.context("there was no such COMMIT")?;
    if case.fault == Fault::Exit {
        process.kill();
        return Ok(());
    }
    process.freeze()?;
    let other = while_asleep(&migrate_up(database.url(), migrations)).await?;
    proxy.cut();
    process.resume()?;
    says_how_it_was(&mut process, &other, case).await
}

/// Another run, which waits for the stalled one's lease to end; three leases at least.
async fn while_asleep(up: &Confiture) -> anyhow::Result<Ended> {
    let (other, ()) = tokio::join!(up.run(), tokio::time::sleep(THREE_LEASES));
    let other = other?;
    expect(&other, 0).context("the run beside the stalled one")?;
    Ok(other)
}

/// What a process says when it wakes up: that it was replaced, where it had left something for the other one to do.
async fn says_how_it_was(woken: &mut Process, other: &Ended, case: Case) -> anyhow::Result<()> {
    let status = woken.wait(LONG).await?;
    let (code, word, others) = match case.point {
        // It had begun nothing: it reads the ledger and finds all done.
        Point::AfterTakeover => (0, "nothing to do", APPLIED),
        // It cannot know that the commit was its own.
        Point::CommitSent if case.was_the_end() => (0, "nothing to do", "nothing to do"),
        _ if case.was_the_end() => (0, APPLIED, "nothing to do"),
        _ => (4, "replaced", APPLIED),
    };
    ensure!(other.stdout.contains(others), "the other run: {}", other.stdout);
    let said = [woken.stdout(), woken.stderr()].concat();
    ensure!(
        status.code() == Some(code) && said.contains(word),
        "it ended with {status}: {said}"
    );
    Ok(())
}

fn expect(ended: &Ended, code: i32) -> anyhow::Result<()> {
    ensure!(
        ended.code == Some(code),
        "ended with {:?} instead of {code}: {}{}",
        ended.code,
        ended.stdout,
        ended.stderr
    );
    Ok(())
}

async fn is_done_once(step: &Step, database: &Database) -> anyhow::Result<()> {
    let wrong = database.number(step.wrong).await?;
    ensure!(wrong == 0, "changed more or less than once: {wrong}");
    let verified = Confiture::new(["ledger", "verify"])
        .build(Build::Faults)
        .env("DATABASE_URL", database.url())
        .run()
        .await?;
    expect(&verified, 0)?;
    let word = "the ledger is as it must be";
    ensure!(verified.stdout.contains(word), "{}", verified.stdout);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_anywhere_is_followed_by_the_next() -> anyhow::Result<()> {
    all_of(Fault::Exit).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_stands_still_anywhere_is_replaced_and_changes_nothing_when_it_wakes()
-> anyhow::Result<()> {
    all_of(Fault::Stall).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_that_passes_is_survived_anywhere_by_the_same_run() -> anyhow::Result<()> {
    all_of(Fault::Error).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_listed_as_never_reached_is_never_reached() -> anyhow::Result<()> {
    let mut never = 0;
    for step in &STEPS {
        for point in POINTS.iter().filter(|point| step.shape.turns(**point).is_empty()) {
            let point = point.name().context("every step commits")?;
            let database = database().await?;
            let migrations = Migrations::write(&[step.file])?;
            let up = migrate_up(database.url(), &migrations);
            let ended = up.env("CONFITURE_FAULT", format!("{point}:exit")).run().await?;
            expect(&ended, 0).with_context(|| format!("{}, {point}", step.name))?;
            is_done_once(step, &database).await?;
            never += 1;
        }
    }
    assert_eq!(never, 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_takeover_whose_answer_is_lost_is_known_again_or_waited_for() -> anyhow::Result<()> {
    let step = &STEPS[0];
    for (turn, fault) in [
        (1, Fault::Error),
        (1, Fault::Exit),
        (1, Fault::Stall),
        (2, Fault::Error),
        (2, Fault::Exit),
        (2, Fault::Stall),
    ] {
        // The first creates the ledger, the second takes the fence.
        let case = Case {
            step,
            point: Point::AfterTakeover,
            turn,
            fault,
        };
        let database = database().await?;
        let migrations = Migrations::write(&[step.file])?;
        let met = on_the_way(case, |text| !OF_STEPS(text), &database, &migrations);
        Box::pin(met).await.with_context(|| case.to_string())?;
        let last = migrate_up(database.url(), &migrations).run().await?;
        expect(&last, 0).with_context(|| case.to_string())?;
        is_done_once(step, &database)
            .await
            .with_context(|| case.to_string())?;
    }
    Ok(())
}
