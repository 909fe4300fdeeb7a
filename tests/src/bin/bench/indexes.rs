//! An index built through us, against the statement that builds it.

use crate::median;
use crate::table::{Steps, fill, server};
use std::time::{Duration, Instant};
use tests::postgres::Database;

const ROWS: u32 = 3_000_000;
const ROUNDS: usize = 5;

const STATEMENT: &str = "CREATE INDEX CONCURRENTLY items_by_name ON public.items (name, net DESC)";
const STEP: &str = "create_index: { table: public.items, name: items_by_name, columns: [name, { column: net, order: desc }] }";
const DROP: &str = "DROP INDEX public.items_by_name";

/// Prints both times and their ratio.
pub(crate) async fn measure() -> anyhow::Result<()> {
    println!("Index: {ROWS} rows, against CREATE INDEX CONCURRENTLY, medians of {ROUNDS} rounds");
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;
    fill(&server, &database, ROWS).await?;
    let (mut plain, mut ours) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        if round % 2 == 0 {
            plain.push(statement(&database).await?);
        }
        ours.push(steps.run(STEP).await?);
        database.execute(DROP).await?;
        if round % 2 == 1 {
            plain.push(statement(&database).await?);
        }
    }
    let (plain, ours) = (median(plain), median(ours));
    println!("  the statement         {:7.2} s", plain.as_secs_f64());
    println!("  confiture migrate up  {:7.2} s", ours.as_secs_f64());
    println!(
        "  ratio                 {:7.2}    (aim: 1.05 or less)",
        ours.as_secs_f64() / plain.as_secs_f64()
    );
    Ok(())
}

async fn statement(database: &Database) -> anyhow::Result<Duration> {
    let session = database.connect().await?;
    let began = Instant::now();
    session.batch_execute(STATEMENT).await?;
    let time = began.elapsed();
    database.execute(DROP).await?;
    Ok(time)
}
