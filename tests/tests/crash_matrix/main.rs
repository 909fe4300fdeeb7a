//! Every kind of step, met at every point of its life by every fault: the same run, one beside it or the same command
//! again finishes the work, every row is changed exactly once, the ledger is as it must be, and the catalog as if nothing
//! had happened. All combinations are run; none is drawn by lot.
//!
//! A process dies (exit), stands still until its lease has run out and another has done its work (stall), or loses a
//! connection (error). At the points inside the program the program does it to itself; a COMMIT whose answer is lost
//! is made by the proxy before the server.

mod ground;

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _};
use ground::{Ground, Grounds};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tests::migrations::Migrations;
use tests::postgres::{Database, Options, Server};
use tests::process::{Build, Confiture, Ended, Process};
use tests::proxy::{AtCommit, Proxy};
use tests::steps::{STEPS, Shape, Step};
use tokio::sync::OnceCell;

/// How long a holder counts as alive here.
const HOLDER_TIME: &str = "2s";
/// A stalled process sleeps for three times as long, at least.
const THREE_LEASES: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_mins(2);

/// Cases at work at once: where most of their time they wait for leases to end, where they wait for one, and where they
/// compute all the time.
const SLEEPING: usize = 40;
const WAITING: usize = 16;
const COMPUTING: usize = 4;

/// The code of a process that a fault ended.
const DIED: i32 = 137;

/// What the program says when an armed fault happens.
const FIRED: &str = "a fault on purpose";

/// What the run says that did the work.
const APPLIED: &str = "1 migration applied";

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

/// At which of the times it comes to a point it is met there; none where it never does.
fn turns(shape: Shape, point: Point) -> &'static [u32] {
    let (locks, changes, commits): (&[u32], &[u32], &[u32]) = match shape {
        Shape::Transactions(1) => (&[1], &[1], &[1]),
        Shape::Transactions(_) => (&[1, 2, 3], &[1, 2, 3], &[1, 2, 3]),
        Shape::Outside => (&[1, 2, 3], &[1], &[1, 2]),
        Shape::Built | Shape::Dropped => (&[1, 2, 3], &[1, 2], &[1, 2]),
        // In the first and in the middle.
        Shape::Batches => (&[1, 3], &[1, 3], &[1, 3]),
        Shape::VerifiedBatches => (&[1, 3, 6], &[1, 3], &[1, 3, 6]),
        Shape::Changed => (&[1, 2, 5, 9, 11], &[1, 2, 4, 8, 9], &[2, 9, 10]),
        // An assertion changes nothing, so there is no moment after its change.
        Shape::Assertion => (&[1], &[], &[1]),
    };
    match point {
        Point::AfterTakeover | Point::BeforeReport => &[1],
        Point::AfterFenceLock => locks,
        Point::AfterChange => changes,
        Point::BeforeCommit | Point::CommitSent | Point::AfterCommit => commits,
    }
}

impl Case {
    /// Whether all was committed when it was met: nothing was left for another run.
    const fn was_the_end(self) -> bool {
        let last = match self.step.shape {
            Shape::Transactions(all) => all,
            Shape::Outside | Shape::Built | Shape::Dropped => 2,
            Shape::Assertion => 1,
            // Its end is none of those it is met at.
            Shape::Batches | Shape::VerifiedBatches | Shape::Changed => u32::MAX,
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
    let start = async || {
        Build::Faults.make().await?;
        let options = Options {
            max_connections: 300,
            ..Options::default()
        };
        // As many catalogs as there are cases at once.
        Server::start_with(options.setting("shared_buffers", "512MB")).await
    };
    SERVER.get_or_try_init(start).await
}

fn migrate_up(url: &str, migrations: &Migrations) -> Confiture {
    Confiture::new(["migrate", "up", "--migrations"])
        .build(Build::Faults)
        .arg(migrations.path())
        .env("DATABASE_URL", url)
        .env("CONFITURE_HOLDER_TIME", HOLDER_TIME)
}

/// What each kind of step makes of the catalog when nothing happens to it.
type Catalogs = BTreeMap<&'static str, Vec<String>>;

async fn catalogs(grounds: &Grounds) -> anyhow::Result<Catalogs> {
    let plain = STEPS.iter().map(|step| async move {
        let (ground, migrations) = prepared(grounds, step).await?;
        let up = migrate_up(ground.database.url(), &migrations);
        up.succeed().await.context(step.name)?;
        let catalog = ground.catalog().await?;
        grounds.give_back(ground).await?;
        Ok((step.name, catalog))
    });
    futures_util::stream::iter(plain)
        .buffer_unordered(COMPUTING)
        .try_collect()
        .await
}

/// All cases of one fault, many at once; says all that went wrong, not only the first.
async fn all_of(fault: Fault) -> anyhow::Result<()> {
    let mut cases = Vec::new();
    for step in &STEPS {
        for point in POINTS {
            let turns = turns(step.shape, point).iter();
            cases.extend(turns.map(|turn| Case {
                step,
                point,
                turn: *turn,
                fault,
            }));
        }
    }
    let count = cases.len();
    let grounds = &Grounds::default();
    let catalogs = &catalogs(grounds).await?;
    let done = futures_util::stream::iter(cases)
        .map(|case| async move { (case, Box::pin(meet(case, grounds, catalogs)).await) })
        .buffer_unordered(match fault {
            Fault::Stall => SLEEPING,
            Fault::Exit => WAITING,
            Fault::Error => COMPUTING,
        });
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

/// A database on which a step can be met, and its migration not yet applied.
async fn prepared(grounds: &Grounds, step: &Step) -> anyhow::Result<(Ground, Migrations)> {
    let ground = grounds.take(server().await?, step).await?;
    let migrations = Migrations::write(&[])?;
    if let Some(before) = step.before {
        migrations.put("0_before.yaml", before)?;
        migrate_up(ground.database.url(), &migrations).succeed().await?;
    }
    migrations.put(step.file.0, step.file.1)?;
    Ok((ground, migrations))
}

async fn meet(case: Case, grounds: &Grounds, catalogs: &Catalogs) -> anyhow::Result<()> {
    let (ground, migrations) = prepared(grounds, case.step).await?;
    let again = migrate_up(ground.database.url(), &migrations);
    match case.point.name() {
        Some(point) => inside(case, point, &again).await?,
        None => on_the_way(case, OF_STEPS, &says_of(case), &ground.database, &migrations).await?,
    }
    // Of the others one has finished already: itself after an error, and who came while it stood still.
    if case.fault == Fault::Exit {
        expect(&again.run().await?, 0)?;
    }
    ground.is_done_once(case.step).await?;
    let found = ground.catalog().await?;
    ensure!(
        found == catalogs[case.step.name],
        "the catalog is not what it is without a fault:\n{}",
        found.join("\n")
    );
    grounds.give_back(ground).await
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
            says_how_it_was(&mut stalled, &other, &says_of(case)).await
        }
    }
}

/// COMMITs of steps name the step in their tag; those of the ledger's creation and of the takeover do not.
const OF_STEPS: fn(&str) -> bool = |text| text.contains(" n=");

/// The COMMIT reaches the server, and its answer nobody. Then the process loses its connection, dies or stands still.
async fn on_the_way(
    case: Case,
    of: fn(&str) -> bool,
    says: &Says,
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
    says_how_it_was(&mut process, &other, says).await
}

/// Another run, which waits for the stalled one's lease to end; three leases at least.
async fn while_asleep(up: &Confiture) -> anyhow::Result<Ended> {
    let (other, ()) = tokio::join!(up.run(), tokio::time::sleep(THREE_LEASES));
    let other = other?;
    expect(&other, 0).context("the run beside the stalled one")?;
    Ok(other)
}

/// What two runs say of which one slept while the other went on.
struct Says {
    /// The one that woke up, by the code it ends with: any of them.
    woken: &'static [(i32, &'static str)],
    other: &'static str,
}

const NOTHING: (i32, &str) = (0, "nothing to do");
const REPLACED: (i32, &str) = (4, "replaced");

/// What a process says that lost the answer of a COMMIT and tries again: it hears it from the fence or from the ledger,
/// whichever it comes to first.
const IN_DOUBT: Says = Says {
    woken: &[REPLACED, NOTHING],
    other: APPLIED,
};

/// That it was replaced, where it had left something for the other one to do.
const fn says_of(case: Case) -> Says {
    match (case.point, case.was_the_end()) {
        // It cannot know that the commit was its own.
        (Point::CommitSent, true) => Says {
            woken: &[NOTHING],
            other: NOTHING.1,
        },
        (_, true) => Says {
            woken: &[(0, APPLIED)],
            other: NOTHING.1,
        },
        (Point::CommitSent, false) => IN_DOUBT,
        (_, false) => Says {
            woken: &[REPLACED],
            other: APPLIED,
        },
    }
}

async fn says_how_it_was(woken: &mut Process, other: &Ended, says: &Says) -> anyhow::Result<()> {
    let status = woken.wait(LONG).await?;
    ensure!(
        other.stdout.contains(says.other),
        "the other run: {}",
        other.stdout
    );
    let said = [woken.stdout(), woken.stderr()].concat();
    let mut may_say = says.woken.iter();
    ensure!(
        may_say.any(|(code, word)| status.code() == Some(*code) && said.contains(word)),
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
async fn who_wakes_up_replaced_does_not_even_begin_to_build() -> anyhow::Result<()> {
    Build::Faults.make().await?;
    let server = Server::start_with(Options::default().setting("log_statement", "ddl")).await?;
    let built = STEPS.iter().find(|step| matches!(step.shape, Shape::Built));
    let case = Case {
        step: built.context("no step builds an index")?,
        point: Point::AfterFenceLock,
        // After the look at the fence that comes before the build.
        turn: 2,
        fault: Fault::Stall,
    };
    let ground = Ground::new(&server, case.step).await?;
    let migrations = Migrations::write(&[case.step.file])?;
    inside(
        case,
        "after_fence_lock",
        &migrate_up(ground.database.url(), &migrations),
    )
    .await?;
    ground.is_done_once(case.step).await?;
    let builds = server.log().matches("CREATE INDEX CONCURRENTLY").count();
    assert_eq!(builds, 1, "{}", server.log());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_listed_as_never_reached_is_never_reached() -> anyhow::Result<()> {
    let mut never = 0;
    let grounds = Grounds::default();
    for step in &STEPS {
        for point in POINTS
            .iter()
            .filter(|point| turns(step.shape, **point).is_empty())
        {
            let point = point.name().context("every step commits")?;
            let (ground, migrations) = prepared(&grounds, step).await?;
            let up = migrate_up(ground.database.url(), &migrations);
            let ended = up.env("CONFITURE_FAULT", format!("{point}:exit")).run().await?;
            expect(&ended, 0).with_context(|| format!("{}, {point}", step.name))?;
            ground.is_done_once(step).await?;
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
        let ground = Ground::new(server().await?, step).await?;
        let database = &ground.database;
        let migrations = Migrations::write(&[step.file])?;
        let met = on_the_way(case, |text| !OF_STEPS(text), &IN_DOUBT, database, &migrations);
        Box::pin(met).await.with_context(|| case.to_string())?;
        let last = migrate_up(database.url(), &migrations).run().await?;
        expect(&last, 0).with_context(|| case.to_string())?;
        ground
            .is_done_once(step)
            .await
            .with_context(|| case.to_string())?;
    }
    Ok(())
}
