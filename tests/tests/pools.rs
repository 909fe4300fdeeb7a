//! Connections of an agent: bounded over all databases of a server, kept open while there is work and given up without,
//! asked for in a line, replaced when they are old.

use agent::error::Error;
use agent::local::{self, Options};
use agent::pool::{Servers, Stats};
use agent::story::Recorder;
use agent::work::{Control, Listener};
use agent::{Living, Overrides, audit};
use anyhow::Context as _;
use futures_util::FutureExt as _;
use futures_util::future::join_all;
use shared::id::Holder;
use shared::ledger::{Goal, Order};
use shared::migration::{File, Set};
use shared::pool::Verdict;
use shared::rollout::work::Progress;
use shared::settings::Pool;
use std::time::{Duration, Instant};
use tests::fleet::{Agent, Coordinator, members};
use tests::migrations::Migrations;
use tests::postgres::{Database, Server, Session};
use tests::process::Confiture;
use tests::{eventually, opened_with};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PLACES: i64 = 4;
const DATABASES: usize = 24;
const CLOSING: Duration = Duration::from_millis(500);
const OURS: &str =
    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'confiture' AND datname LIKE 'pooled%'";

#[tokio::test]
async fn many_databases_of_one_server_share_its_places() -> anyhow::Result<()> {
    let server = Server::start().await?;
    let names: Vec<String> = (0..DATABASES).map(|n| format!("pooled{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let members = members(&server, &names).await?;
    let coordinator = Coordinator::start("coordinator", "file:./confiture.redb").await?;
    let agent = Agent::start_with("agent-a", &[&coordinator.url()], &members, |settings| {
        settings["agent"]["connections_per_server"] = PLACES.into();
        settings["connection"]["pool"] =
            serde_json::json!({ "min_size": 2, "max_size": 4, "max_idle_time": 3 });
    })?;
    coordinator.wait_for_databases(&names).await?;
    let set = Migrations::write(&[
        ("001_a.up.sql", "CREATE TABLE a (id int)"),
        ("002_b.up.sql", "SELECT pg_sleep(0.2); CREATE TABLE b (id int)"),
    ])?;
    let rollout = coordinator
        .rollout(&set)
        .arg("--watch")
        .arg("--max-in-flight")
        .arg("3");
    let mut process = rollout.start("rollout")?;
    let admin = server.admin("postgres").await?;
    let (mut most, mut over) = (0, None);
    while process.ended()?.is_none() {
        let open = admin.number(OURS).await?;
        most = most.max(open);
        // A server's process lives on for a moment after its connection was closed.
        over = (open > PLACES).then(|| over.unwrap_or_else(Instant::now));
        assert!(
            over.is_none_or(|since| since.elapsed() < CLOSING),
            "{open} connections at once, and not only for a moment"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let status = process.wait(Duration::from_secs(1)).await?;
    assert!(status.success(), "{}\n{}", process.stderr(), agent.log());
    assert!(most > 1, "{most} connections at once");
    // Without work none is kept, whatever min_size says.
    eventually(
        "idle connections to be closed",
        Duration::from_secs(30),
        || async { Ok((admin.number(OURS).await? == 0).then_some(())) },
    )
    .await
}

const SOON: Duration = Duration::from_secs(20);

/// A database with a ledger, which others can lock.
async fn with_ledger() -> anyhow::Result<Database> {
    let database = Server::shared().await?.fresh_database().await?;
    let set = Migrations::write(&[("001_a.up.sql", "CREATE TABLE a (id int)")])?;
    let up = Confiture::new(["migrate", "up", "--migrations"]).arg(set.path());
    up.env("DATABASE_URL", database.url()).succeed().await?;
    Ok(database)
}

/// Until it ends, whoever reads the ledger waits in the server.
async fn lock(database: &Database) -> anyhow::Result<Session> {
    let session = database.connect().await?;
    session
        .batch_execute("BEGIN; LOCK TABLE confiture.ledger IN ACCESS EXCLUSIVE MODE")
        .await?;
    Ok(session)
}

/// So many requests, each with a connection until the ledger can be read.
async fn requests(of: &agent::database::Database, number: usize) -> Vec<Result<(), Error>> {
    let one = || audit::show(of).map(|shown| shown.map(drop)).boxed();
    join_all((0..number).map(|_| one())).await
}

/// What the server says of our connections to a database: those that are open, those that are in use.
async fn seen(admin: &Session, database: &Database) -> anyhow::Result<(usize, usize)> {
    let row = admin
        .query_one(
            "SELECT count(*), count(*) FILTER (WHERE state <> 'idle') FROM pg_stat_activity
              WHERE application_name = 'confiture' AND datname = $1",
            &[&database.name()],
        )
        .await?;
    let number = |column| usize::try_from(row.get::<_, i64>(column));
    Ok((number(0)?, number(1)?))
}

/// Waits until the pool says that so many are in use, idle and waiting, and the server agrees.
async fn agree(
    of: &agent::database::Database,
    admin: &Session,
    database: &Database,
    (active, idle, waiting): (usize, usize, usize),
) -> anyhow::Result<Stats> {
    let mut last = None;
    let agreed = eventually("pool and server to agree", SOON, || async {
        let stats = of.pools().transactions;
        let server = seen(admin, database).await?;
        let is = (stats.active, stats.idle, stats.waiting) == (active, idle, waiting);
        Ok((is && server == (active + idle, active)).then_some(stats))
    })
    .await;
    if agreed.is_err() {
        last = Some((of.pools(), seen(admin, database).await?));
    }
    agreed.with_context(|| format!("wanted {:?}, last seen {last:?}", (active, idle, waiting)))
}

#[tokio::test]
async fn a_storm_waits_in_line_and_nothing_of_it_is_lost() -> anyhow::Result<()> {
    let database = with_ledger().await?;
    let admin = database.admin().await?;
    let pool = Pool {
        min_size: 3,
        max_idle_time: Duration::from_secs(2),
        ..Pool::default()
    };
    let of = opened_with(database.url(), pool, &Servers::unbounded())?;
    let at_work = of.at_work();
    let scene = async {
        // There is work, and nothing asks for a connection yet.
        let warm = agree(&of, &admin, &database, (0, 3, 0)).await?;
        assert_eq!((warm.created, Verdict::of(&of.pools())), (3, Verdict::Healthy));

        let jam = lock(&database).await?;
        let opened_again = async {
            let stats = agree(&of, &admin, &database, (10, 0, 490)).await?;
            assert_eq!((stats.max, stats.created), (10, 10));
            let (waiting, max) = (490, 10);
            assert_eq!(Verdict::of(&of.pools()), Verdict::Exhausted { waiting, max });
            jam.batch_execute("COMMIT").await?;
            anyhow::Ok(())
        };
        let (answers, opened_again) = tokio::join!(requests(&of, 500), opened_again);
        opened_again?;
        assert_eq!(answers.len(), 500);
        answers.into_iter().collect::<Result<(), _>>()?;
        let after = of.pools().transactions;
        assert_eq!((after.size(), after.waiting), (10, 0));
        assert!(after.longest_wait > Duration::ZERO);

        // What is not needed any more goes, down to the least number, although somebody asks now and then.
        let now_and_then = async {
            loop {
                requests(&of, 1).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let calm = tokio::select! {
            calm = agree(&of, &admin, &database, (0, 3, 0)) => calm?,
            () = now_and_then => unreachable!("it asks for ever"),
        };
        assert_eq!((calm.created, calm.recycled, calm.given_up), (10, 0, 0));
        anyhow::Ok(())
    };
    tokio::select! {
        played = scene => played?,
        never = of.keep() => match never {},
    }
    drop(at_work);
    let rest = async { agree(&of, &admin, &database, (0, 0, 0)).await };
    tokio::select! {
        rests = rest => rests?,
        never = of.keep() => match never {},
    };
    assert_eq!(Verdict::of(&of.pools()), Verdict::AtRest);
    Ok(())
}

#[tokio::test]
async fn old_connections_are_replaced_and_no_request_fails() -> anyhow::Result<()> {
    const LIFETIME: Duration = Duration::from_secs(1);
    let database = with_ledger().await?;
    let admin = database.admin().await?;
    let pool = Pool {
        max_lifetime: LIFETIME,
        ..Pool::default()
    };
    let of = opened_with(database.url(), pool, &Servers::unbounded())?;
    let _at_work = of.at_work();
    let oldest = "SELECT (1000 * extract(epoch FROM max(clock_timestamp() - backend_start)))::bigint
                    FROM pg_stat_activity WHERE application_name = 'confiture' AND datname = current_database()";
    let scene = async {
        // While they are in use all the time.
        let until = Instant::now() + 4 * LIFETIME;
        let mut answered = 0;
        while Instant::now() < until {
            let answers = requests(&of, 20).await;
            answered += answers.len();
            answers.into_iter().collect::<Result<(), _>>()?;
        }
        let used = of.pools().transactions;
        assert!(used.recycled >= 30, "ten connections, three lives: {used:?}");
        assert!(answered > 200, "{answered} requests");
        assert_eq!(
            (used.given_up, used.created),
            (0, used.recycled + used.size() as u64)
        );

        // While nobody uses them: a keeper looks every second.
        let still = of.pools().transactions.recycled;
        eventually("idle ones to be replaced", SOON, || async {
            let now = of.pools().transactions;
            Ok((now.recycled >= still + 10 + 2 && now.idle == 2).then_some(()))
        })
        .await?;
        let age = admin.number(oldest).await?;
        assert!(age < 3_500, "a connection is {age} ms old");
        anyhow::Ok(())
    };
    tokio::select! {
        played = scene => played,
        never = of.keep() => match never {},
    }
}

#[tokio::test]
async fn keeping_connections_warm_takes_no_place_of_work() -> anyhow::Result<()> {
    let (busy, other) = (with_ledger().await?, with_ledger().await?);
    let admin = busy.admin().await?;
    let servers = Servers::with_places(4);
    let pool = Pool {
        min_size: 2,
        max_size: 4,
        max_idle_time: Duration::from_secs(3),
        ..Pool::default()
    };
    let of_busy = opened_with(busy.url(), pool.clone(), &servers)?;
    let of_other = opened_with(other.url(), pool, &servers)?;
    let (_works, works_too) = (of_busy.at_work(), of_other.at_work());
    let jam = lock(&busy).await?;
    let scene = async {
        // Warm ones of the other give way to requests.
        agree(&of_other, &admin, &other, (0, 2, 0)).await?;
        let opened_again = async {
            agree(&of_busy, &admin, &busy, (4, 0, 0)).await?;
            // Two looks of the keeper.
            tokio::time::sleep(Duration::from_millis(2_100)).await;
            assert_eq!(of_other.pools().transactions.size(), 0, "{:?}", of_other.pools());
            jam.batch_execute("COMMIT").await?;
            anyhow::Ok(())
        };
        let (answers, opened_again) = tokio::join!(requests(&of_busy, 4), opened_again);
        opened_again?;
        answers.into_iter().collect::<Result<(), _>>()?;
        // What it used a moment ago stays, although the other has fewer than the least number.
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let sizes = [&of_busy, &of_other].map(|of| of.pools().transactions.size());
        assert_eq!(sizes, [4, 0]);
        // Its own spare ones are closed; then there is room to keep some warm.
        agree(&of_other, &admin, &other, (0, 2, 0)).await?;
        let kept = agree(&of_busy, &admin, &busy, (0, 2, 0)).await?;
        assert_eq!(kept.given_up, 0);
        anyhow::Ok(())
    };
    tokio::select! {
        played = scene => played?,
        never = of_busy.keep() => match never {},
        never = of_other.keep() => match never {},
    }
    drop(works_too);
    Ok(())
}

#[tokio::test]
async fn waiting_is_bounded_in_time_and_in_number() -> anyhow::Result<()> {
    let database = with_ledger().await?;
    let pool = Pool {
        max_size: 2,
        wait_timeout: Duration::from_secs(2),
        ..Pool::default()
    };
    let of = opened_with(database.url(), pool, &Servers::unbounded())?;
    let jam = lock(&database).await?;
    let opened_again = async {
        eventually("those that wait to give up", SOON, || async {
            Ok((of.pools().transactions.given_up == 1_098).then_some(()))
        })
        .await?;
        jam.batch_execute("COMMIT").await?;
        anyhow::Ok(())
    };
    // Two have a connection, a thousand wait, 98 are too many.
    let (answers, opened_again) = tokio::join!(requests(&of, 1_100), opened_again);
    opened_again?;
    let told: Vec<String> = (answers.iter().filter_map(|answer| answer.as_ref().err()))
        .map(ToString::to_string)
        .collect();
    let number = |text: &str| told.iter().filter(|told| told.contains(text)).count();
    assert_eq!(told.len(), 1_098);
    assert_eq!(
        number("1000 requests wait for a connection of the pool already"),
        98
    );
    assert_eq!(number("all connections of the pool stayed in use"), 1_000);
    assert_eq!(number("raise connection.pool.max_size"), 1_098, "{}", told[0]);
    assert_eq!(of.pools().transactions.waiting, 0);
    Ok(())
}

#[tokio::test]
async fn batches_give_way_while_others_wait_for_connections_and_say_so() -> anyhow::Result<()> {
    const ROWS: i64 = 400_000;
    let database = Server::shared().await?.fresh_database().await?;
    let table = format!(
        "CREATE TABLE t (k bigint PRIMARY KEY, n int NOT NULL DEFAULT 0);
         INSERT INTO t SELECT g FROM generate_series(1, {ROWS}) g; ANALYZE t"
    );
    database.execute(&table).await?;
    let step =
        "up:\n  - backfill: { table: t, set: { n: 1 }, batch: { size: 100, target: 2ms, max_duty: 1 } }\n";
    let file = File {
        path: "001_count.yaml".to_owned(),
        content: step.into(),
    };
    let set = Set::parse(None, &[file])?;
    let pool = Pool {
        min_size: 1,
        max_size: 3,
        ..Pool::default()
    };
    let of = opened_with(database.url(), pool, &Servers::unbounded())?;
    let (progress, seen) = watch::channel(Progress::default());
    let control = Control {
        stop: CancellationToken::new(),
        progress,
        listener: Listener::default(),
        recorder: Recorder::default(),
    };
    let options = Options {
        goal: Goal::Up {
            target: None,
            order: Order::Strict,
        },
        overrides: Overrides::default(),
        wait: Duration::ZERO,
        living: Living::Wait,
        description: "a test".to_owned(),
        holder: Holder(uuid::Uuid::new_v4()),
    };
    let migrated = local::migrate(&of, &set, &options, &control, |_| {}).boxed();
    let crowd = async {
        eventually("batches", SOON, || async {
            Ok((seen.borrow().rows > 0).then_some(()))
        })
        .await?;
        let told = eventually("the pool to be the reason", SOON, || async {
            Ok((seen.borrow().pace.contains("waiting for a pool connection")).then_some(()))
        });
        tokio::select! {
            told = told => told,
            _ = join_all((0..12).map(|_| async { loop { drop(requests(&of, 1).await) } })) => {
                anyhow::bail!("requests go on for ever")
            }
        }
    };
    let (done, crowd) = tokio::join!(migrated, crowd);
    let done = done?;
    crowd?;
    // Nobody waits any more, and the rest is done.
    assert_eq!(done.summary.rows, u64::try_from(ROWS)?);
    assert_eq!(database.number("SELECT sum(n) FROM t").await?, ROWS);
    Ok(())
}
