//! A backfill of a million rows, against one plain UPDATE of the same rows.

use crate::median;
use std::time::{Duration, Instant};
use tests::migrations::Migrations;
use tests::postgres::{Database, Durability, Options, Server};
use tests::process::Confiture;

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// Prints both times and their ratio.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!(
        "Backfill: {ROWS} rows by primary key, one shard, against one UPDATE, median of {ROUNDS} rounds"
    );
    let options = Options {
        durability: Durability::Disk,
        ..Options::default()
    }
    .setting("shared_buffers", "256MB")
    .setting("max_wal_size", "8GB") // no checkpoint in the middle of one side
    .setting("autovacuum", "off");
    let server = Server::start_with(options).await?;
    let database = server.database("bench").await?;
    let set = Migrations::write(&[("0000_ledger.up.sql", "CREATE TABLE warm_up ()")])?;
    migrate_up(&database, &set).await?;

    let (mut plain, mut batched) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        if round % 2 == 0 {
            plain.push(one_update(&server, &database).await?);
            batched.push(in_batches(&server, &database, &set, round).await?);
        } else {
            batched.push(in_batches(&server, &database, &set, round).await?);
            plain.push(one_update(&server, &database).await?);
        }
        println!(
            "  round {round}: {:.2} s and {:.2} s",
            plain[round - 1].as_secs_f64(),
            batched[round - 1].as_secs_f64()
        );
    }

    let (plain, batched) = (median(plain), median(batched));
    println!("  one UPDATE                      {:7.2} s", plain.as_secs_f64());
    println!(
        "  confiture migrate up            {:7.2} s",
        batched.as_secs_f64()
    );
    println!(
        "  ratio                           {:7.2}    (aim: 1.1 or less)",
        batched.as_secs_f64() / plain.as_secs_f64()
    );
    Ok(())
}

async fn one_update(server: &Server, database: &Database) -> anyhow::Result<Duration> {
    fresh_table(server, database).await?;
    let session = database.connect().await?;
    let began = Instant::now();
    session
        .execute("UPDATE public.items SET gross = net + net / 5", &[])
        .await?;
    Ok(began.elapsed())
}

async fn in_batches(
    server: &Server,
    database: &Database,
    set: &Migrations,
    round: usize,
) -> anyhow::Result<Duration> {
    fresh_table(server, database).await?;
    let step = "up: [ { backfill: { table: public.items, set: { gross: \"net + net / 5\" } } } ]\n";
    set.put(&format!("{round:04}_round.yaml"), step)?;
    let time = migrate_up(database, set).await?;
    let missed = database
        .number("SELECT count(*) FROM public.items WHERE gross IS NULL")
        .await?;
    anyhow::ensure!(missed == 0, "the backfill left out {missed} rows");
    Ok(time)
}

/// `confiture migrate up`, from its start to its end.
async fn migrate_up(database: &Database, set: &Migrations) -> anyhow::Result<Duration> {
    let up = Confiture::new(["migrate", "up", "--migrations"])
        .arg(set.path())
        .env("DATABASE_URL", database.url());
    let began = Instant::now();
    up.succeed().await?;
    Ok(began.elapsed())
}

/// The same rows in the same order, read once, with nothing left to write from before.
async fn fresh_table(server: &Server, database: &Database) -> anyhow::Result<()> {
    database
        .execute(&format!(
            "DROP TABLE IF EXISTS public.items;
             CREATE TABLE public.items (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, net bigint NOT NULL, name text NOT NULL, gross bigint);
             INSERT INTO public.items (net, name) SELECT g % 9973, 'item ' || g FROM generate_series(1, {ROWS}) g;"
        ))
        .await?;
    database.execute("VACUUM (ANALYZE) public.items").await?;
    server
        .admin(database.name())
        .await?
        .batch_execute("CHECKPOINT")
        .await?;
    Ok(())
}
