//! Batched changes at full speed, against the one statement that does the same.

use crate::median;
use crate::table::{Steps, fill, server};
use std::time::{Duration, Instant};
use tests::postgres::{Database, Server};

const ROWS: u32 = 1_000_000;
const ROUNDS: usize = 5;

/// One comparison.
struct Sides {
    name: &'static str,
    statement: &'static str,
    /// The same by two sessions side by side, each for one half of the rows: what the server has to give.
    halves: Option<[&'static str; 2]>,
    step: &'static str,
    /// Gives the rows that are not as they must be.
    wrong: &'static str,
    aim: f64,
}

const ALL: [Sides; 3] = [
    Sides {
        name: "backfill of a numeric expression, two workers",
        statement: "UPDATE public.items SET gross = net * 1.2",
        halves: Some([
            "UPDATE public.items SET gross = net * 1.2 WHERE id <= 500000",
            "UPDATE public.items SET gross = net * 1.2 WHERE id > 500000",
        ]),
        step: "backfill: { table: public.items, set: { gross: net * 1.2 }, sync: none, batch: { workers: 2, max_duty: 1 } }",
        wrong: "SELECT count(*) FROM public.items WHERE gross IS DISTINCT FROM net * 1.2",
        aim: 0.75,
    },
    Sides {
        name: "backfill of a numeric expression, one worker",
        statement: "UPDATE public.items SET gross = net * 1.2",
        halves: None,
        step: "backfill: { table: public.items, set: { gross: net * 1.2 }, sync: none, batch: { workers: 1, max_duty: 1 } }",
        wrong: "SELECT count(*) FROM public.items WHERE gross IS DISTINCT FROM net * 1.2",
        aim: 1.1,
    },
    Sides {
        name: "delete of half the rows by a condition, two workers",
        statement: "DELETE FROM public.items WHERE id % 2 = 0",
        halves: Some([
            "DELETE FROM public.items WHERE id % 2 = 0 AND id <= 500000",
            "DELETE FROM public.items WHERE id % 2 = 0 AND id > 500000",
        ]),
        step: "delete: { table: public.items, where: id % 2 = 0, batch: { workers: 2, max_duty: 1 } }",
        wrong: "SELECT count(*) - 500000 + count(*) FILTER (WHERE id % 2 = 0) FROM public.items",
        aim: 1.0,
    },
];

/// Prints both times and their ratio for each.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;
    for sides in ALL {
        println!(
            "{}: {ROWS} rows by primary key, against one statement, medians of {ROUNDS} rounds",
            sides.name
        );
        let (mut plain, mut batched, mut halved) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            if round % 2 == 0 {
                batched.push(in_batches(&server, &database, &mut steps, &sides).await?);
                plain.push(at_once(&server, &database, &sides).await?);
            } else {
                plain.push(at_once(&server, &database, &sides).await?);
                batched.push(in_batches(&server, &database, &mut steps, &sides).await?);
            }
            if let Some(halves) = sides.halves {
                halved.push(side_by_side(&server, &database, halves).await?);
            }
        }
        let ratios: Vec<String> = (plain.iter().zip(&batched))
            .map(|(plain, batched)| format!("{:.2}", batched.as_secs_f64() / plain.as_secs_f64()))
            .collect();
        let (plain, batched) = (median(plain), median(batched));
        println!("  one statement         {:7.2} s", plain.as_secs_f64());
        if !halved.is_empty() {
            println!("  two, for a half each  {:7.2} s", median(halved).as_secs_f64());
        }
        println!("  confiture migrate up  {:7.2} s", batched.as_secs_f64());
        println!(
            "  ratio                 {:7.2}    (aim: {} or less; by round {})",
            batched.as_secs_f64() / plain.as_secs_f64(),
            sides.aim,
            ratios.join(" ")
        );
    }
    Ok(())
}

async fn at_once(server: &Server, database: &Database, sides: &Sides) -> anyhow::Result<Duration> {
    fill(server, database, ROWS).await?;
    let session = database.connect().await?;
    let began = Instant::now();
    session.execute(sides.statement, &[]).await?;
    Ok(began.elapsed())
}

async fn side_by_side(server: &Server, database: &Database, halves: [&str; 2]) -> anyhow::Result<Duration> {
    fill(server, database, ROWS).await?;
    let sessions = [database.connect().await?, database.connect().await?];
    let began = Instant::now();
    tokio::try_join!(
        sessions[0].execute(halves[0], &[]),
        sessions[1].execute(halves[1], &[]),
    )?;
    Ok(began.elapsed())
}

async fn in_batches(
    server: &Server,
    database: &Database,
    steps: &mut Steps<'_>,
    sides: &Sides,
) -> anyhow::Result<Duration> {
    fill(server, database, ROWS).await?;
    let time = steps.run(sides.step).await?;
    let wrong = database.number(sides.wrong).await?;
    anyhow::ensure!(wrong == 0, "{wrong} rows are not as they must be");
    Ok(time)
}
