//! Applications at work on a table while it is migrated, who know themselves what each row must be.
//!
//! ```text
//! create --> start --> sessions insert, update and delete, each its own rows --> finish --> Record --> check
//! ```
//! What a session does adds [`STEP`] to a row's `n`; what a migration does adds 1. So `n` alone says how often each of
//! them came to the row, and the sessions' own account of it, in memory, says how often they did. A session that loses its
//! connection looks what became of its last transaction, so its account is certain.

use crate::postgres::{Database, Session};
use crate::wait::eventually;
use anyhow::Context as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What one update of a session adds to `n`. Migrations add 1 at a time, and less than this in all.
pub const STEP: i64 = 1_000;

/// A server that is started again answers within this time.
const AWAY: Duration = Duration::from_mins(1);

/// How the table is worked on.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The same seed makes the same choices; the moments in which they fall are the machine's.
    pub seed: u64,
    /// Rows of the table before anything else happens.
    pub rows: u32,
    /// Sessions at the same time.
    pub sessions: u32,
    /// Transactions of each session, after which it ends by itself.
    pub transactions: u32,
}

/// Sessions at work.
#[derive(Debug)]
pub struct Load {
    sessions: JoinSet<anyhow::Result<Account>>,
    stop: CancellationToken,
}

/// What the rows must be, by the word of those who changed them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    rows: BTreeMap<i64, Row>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Updates of its session.
    updates: i64,
    origin: Origin,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// Before the sessions began, and so before a migration did.
    Old,
    /// Inserted by a session: a migration may have met it or not.
    New,
}

/// Rows that are not what they must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wrong {
    /// Gone, and no session deleted them.
    pub lost: Vec<i64>,
    /// There, and deleted or never inserted.
    pub unknown: Vec<i64>,
    /// Changed by the migration fewer times than they must be.
    pub left_out: Vec<i64>,
    /// Changed by the migration more often than they must be.
    pub repeated: Vec<i64>,
    /// Without, or with too many, changes of their sessions.
    pub overwritten: Vec<i64>,
}

/// The account of one session.
type Account = BTreeMap<i64, Row>;

/// One transaction of a session.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// A row with a mark by which it can be found again.
    Insert(i64),
    Update(i64),
    Delete(i64),
}

impl Load {
    /// Makes the table `t` with its rows.
    pub async fn create(database: &Database, plan: Plan) -> anyhow::Result<()> {
        let create = format!(
            "CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n bigint NOT NULL DEFAULT 0, mark bigint UNIQUE);
             INSERT INTO t (n) SELECT 0 FROM generate_series(1, {})",
            plan.rows
        );
        database.execute(&create).await
    }

    /// Starts the sessions on that table.
    pub fn start(database: &Database, plan: Plan) -> Self {
        let stop = CancellationToken::new();
        let mut sessions = JoinSet::new();
        for number in 0..plan.sessions {
            sessions.spawn(Worker::run(database.clone(), plan, number, stop.clone()));
        }
        Self { sessions, stop }
    }

    /// Ends the sessions after their current transaction, if they have not ended by themselves, and puts their accounts
    /// together.
    pub async fn finish(mut self) -> anyhow::Result<Record> {
        self.stop.cancel();
        let mut rows = BTreeMap::new();
        while let Some(account) = self.sessions.join_next().await {
            rows.extend(account.context("a session of the load panicked")??);
        }
        Ok(Record { rows })
    }
}

struct Worker {
    database: Database,
    session: Session,
    rng: StdRng,
    account: Account,
}

impl Worker {
    async fn run(
        database: Database,
        plan: Plan,
        number: u32,
        stop: CancellationToken,
    ) -> anyhow::Result<Account> {
        let old = (1..=i64::from(plan.rows)).filter(|id| id % i64::from(plan.sessions) == i64::from(number));
        let row = Row {
            updates: 0,
            origin: Origin::Old,
        };
        let mut worker = Self {
            session: connected(&database).await?,
            database,
            rng: StdRng::seed_from_u64(plan.seed ^ (u64::from(number) << 32)),
            account: old.map(|id| (id, row)).collect(),
        };
        for turn in 0..plan.transactions {
            let pause = Duration::from_millis(worker.rng.random_range(0..12));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => break,
            }
            let act = worker.choose(i64::from(number) << 32 | i64::from(turn));
            worker.carry_out(act).await?;
        }
        Ok(worker.account)
    }

    fn choose(&mut self, mark: i64) -> Act {
        let any = self.rng.random_range(0..self.account.len().max(1));
        match (self.rng.random_range(0..10), self.account.keys().nth(any)) {
            (0..2, _) | (_, None) => Act::Insert(mark),
            (2, Some(id)) => Act::Delete(*id),
            (_, Some(id)) => Act::Update(*id),
        }
    }

    /// Does it, and writes down what came of it.
    async fn carry_out(&mut self, act: Act) -> anyhow::Result<()> {
        // Row locks are held for a while, as applications do.
        let hold = Duration::from_millis(self.rng.random_range(0..8));
        let committed = if attempt(&self.session, act, hold).await.is_ok() {
            true
        } else {
            self.session = connected(&self.database).await?;
            self.was_committed(act).await?
        };
        if !committed {
            return Ok(());
        }
        match act {
            Act::Insert(mark) => {
                let id = self.number(ID_OF_MARK, mark).await?;
                let new = Row {
                    updates: 0,
                    origin: Origin::New,
                };
                self.account.insert(id.context("it was inserted")?, new);
            }
            Act::Update(id) => self.account.get_mut(&id).context("a row of ours")?.updates += 1,
            Act::Delete(id) => drop(self.account.remove(&id)),
        }
        Ok(())
    }

    /// What became of a transaction whose end was not seen. Its connection is gone, and with it what was not committed.
    async fn was_committed(&mut self, act: Act) -> anyhow::Result<bool> {
        let found = match act {
            Act::Insert(mark) => self.number(ID_OF_MARK, mark).await?,
            Act::Update(id) | Act::Delete(id) => self.number(N_OF_ID, id).await?,
        };
        Ok(match act {
            Act::Insert(_) => found.is_some(),
            Act::Delete(_) => found.is_none(),
            // Anything else than before: the check at the end says if it is not one more.
            Act::Update(id) => found.map(|n| n / STEP) != self.account.get(&id).map(|row| row.updates),
        })
    }

    /// What a row says, however often the server goes away meanwhile.
    async fn number(&mut self, query: &str, of: i64) -> anyhow::Result<Option<i64>> {
        loop {
            match self.session.query_opt(query, &[&of]).await {
                Ok(row) => return Ok(row.map(|row| row.get(0))),
                Err(_) => self.session = connected(&self.database).await?,
            }
        }
    }
}

const ID_OF_MARK: &str = "SELECT id FROM t WHERE mark = $1";
const N_OF_ID: &str = "SELECT n FROM t WHERE id = $1";

/// One transaction.
async fn attempt(session: &Session, act: Act, hold: Duration) -> Result<(), tokio_postgres::Error> {
    let statement = match act {
        Act::Insert(mark) => format!("INSERT INTO t (mark) VALUES ({mark})"),
        Act::Update(id) => format!("UPDATE t SET n = n + {STEP} WHERE id = {id}"),
        Act::Delete(id) => format!("DELETE FROM t WHERE id = {id}"),
    };
    session.batch_execute(&format!("BEGIN; {statement}")).await?;
    tokio::time::sleep(hold).await;
    session.batch_execute("COMMIT").await
}

/// Connects, if need be when the server is there again.
async fn connected(database: &Database) -> anyhow::Result<Session> {
    eventually("the server to take a session of the load", AWAY, || async {
        database.connect().await.map(Some)
    })
    .await
}

impl Record {
    /// Compares the table with the account. `times` is how often a migration changes each row that was there when it
    /// began; a row inserted meanwhile it may have met or not.
    pub async fn check(&self, database: &Database, times: i64) -> anyhow::Result<Wrong> {
        let mut wrong = Wrong::default();
        let mut missing = self.rows.clone();
        for row in database
            .connect()
            .await?
            .query("SELECT id, n FROM t ORDER BY id", &[])
            .await?
        {
            let (id, n): (i64, i64) = (row.get(0), row.get(1));
            let Some(expected) = missing.remove(&id) else {
                wrong.unknown.push(id);
                continue;
            };
            let least = if expected.origin == Origin::Old { times } else { 0 };
            if n % STEP < least {
                wrong.left_out.push(id);
            }
            if n % STEP > times {
                wrong.repeated.push(id);
            }
            if n / STEP != expected.updates {
                wrong.overwritten.push(id);
            }
        }
        wrong.lost = missing.into_keys().collect();
        Ok(wrong)
    }

    /// Rows that must be there.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }
}

impl Wrong {
    /// Whether all rows are what they must be.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [
            ("lost", &self.lost),
            ("unknown", &self.unknown),
            ("left out", &self.left_out),
            ("repeated", &self.repeated),
            ("overwritten", &self.overwritten),
        ];
        for (name, ids) in all.into_iter().filter(|(_, ids)| !ids.is_empty()) {
            write!(f, "{} {name} (the first is {}); ", ids.len(), ids[0])?;
        }
        Ok(())
    }
}
