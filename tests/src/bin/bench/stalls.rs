//! What changes of the schema make applications wait: the longest latency of a load while one of them runs, beside a
//! transaction that has read the table and stays open for a while.

use crate::load::{self, PER_SECOND, timed};
use crate::median;
use crate::table::{Steps, fill, server};
use std::time::Duration;
use tests::postgres::{Database, Server};

const ROWS: u32 = 500_000;
const ROUNDS: usize = 5;

/// How long the transaction stays open.
const OPEN: Duration = Duration::from_secs(3);

/// One comparison: the statement as people write it, and the step.
struct Sides {
    name: &'static str,
    statement: &'static str,
    step: &'static str,
}

const ALL: [Sides; 3] = [
    Sides {
        name: "ADD COLUMN",
        statement: "ALTER TABLE public.items ADD COLUMN fresh text",
        step: "add_column: { table: public.items, column: fresh, type: text }",
    },
    Sides {
        name: "ADD FOREIGN KEY",
        statement: "ALTER TABLE public.items ADD CONSTRAINT of_kind FOREIGN KEY (kind) REFERENCES public.kinds",
        step: "add_foreign_key: { table: public.items, name: of_kind, columns: [kind], references: { table: public.kinds } }",
    },
    Sides {
        name: "change_type of an indexed column",
        statement: "ALTER TABLE public.items ALTER COLUMN kind TYPE bigint",
        step: "change_type: { table: public.items, column: kind, type: bigint }",
    },
];

/// Prints the longest latency of both sides, and their ratio, for each.
pub(crate) async fn measure() -> anyhow::Result<()> {
    let server = server().await?;
    let database = server.database("bench").await?;
    let mut steps = Steps::on(&database).await?;
    for sides in ALL {
        println!(
            "Stalls: {}, longest of {PER_SECOND} transactions a second on the table of {ROWS} rows, one transaction open for {} s, medians of {ROUNDS} rounds",
            sides.name,
            OPEN.as_secs()
        );
        let (mut plain, mut ours, mut plain_time, mut our_time) = (vec![], vec![], vec![], vec![]);
        for _ in 0..ROUNDS {
            prepare(&server, &database).await?;
            let session = database.connect().await?;
            let statement = session.batch_execute(sides.statement);
            let (latency, (time, ran)) = beside(&database, timed(statement)).await?;
            ran?;
            plain.push(latency);
            plain_time.push(time);
            prepare(&server, &database).await?;
            let (latency, (time, ran)) = beside(&database, timed(steps.run(sides.step))).await?;
            ran?;
            ours.push(latency);
            our_time.push(time);
        }
        let [plain, ours, plain_time, our_time] = [plain, ours, plain_time, our_time].map(median);
        let line = |name: &str, latency: Duration, time: Duration| {
            println!(
                "  {name:22}{:9.1} ms    in {:.1} s",
                latency.as_secs_f64() * 1000.0,
                time.as_secs_f64()
            );
        };
        line("the statement", plain, plain_time);
        line("confiture migrate up", ours, our_time);
        println!(
            "  ratio                 {:9.3}    (aim: well below 1)",
            ours.as_secs_f64() / plain.as_secs_f64()
        );
    }
    Ok(())
}

async fn prepare(server: &Server, database: &Database) -> anyhow::Result<()> {
    fill(server, database, ROWS).await?;
    database
        .execute(
            "DROP TABLE IF EXISTS public.kinds;
             CREATE TABLE public.kinds (id int PRIMARY KEY); INSERT INTO public.kinds SELECT generate_series(0, 99);
             ALTER TABLE public.items ADD COLUMN kind int NOT NULL DEFAULT 7; CREATE INDEX ON public.items (kind)",
        )
        .await
}

/// The longest latency of the load while `work` runs beside an open transaction.
async fn beside<T>(database: &Database, work: impl Future<Output = T>) -> anyhow::Result<(Duration, T)> {
    let reader = database.connect().await?;
    reader
        .batch_execute("BEGIN; SELECT name FROM public.items LIMIT 1")
        .await?;
    let open = async {
        tokio::time::sleep(OPEN).await;
        reader.batch_execute("COMMIT").await
    };
    let (measured, committed) = tokio::join!(load::beside(database, ROWS, work), open);
    committed?;
    let (latencies, done) = measured?;
    Ok((latencies.last().copied().unwrap_or_default(), done))
}
