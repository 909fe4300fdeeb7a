//! The indexes of one database for those who operate it: builds at work, and what is not valid.

use crate::database::Database;
use crate::error::Error;
use crate::step;
use shared::index::{Broken, Progress, Repair};
use shared::sql::{Tag, index as texts};
use std::time::Duration;
use tokio_postgres::types::{ToSql, Type};
use tokio_util::sync::CancellationToken;

/// Looking claims nothing, and a repair needs no fence: it drops what no query uses.
const TAG: Tag = Tag::OF_NO_RUN;

/// How often a repair that is to end is told so.
const TELL_AGAIN: Duration = Duration::from_millis(250);

/// A build at work.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Its process.
    pub pid: i32,
    /// Its role.
    pub user: Option<String>,
    /// Its application.
    pub application: Option<String>,
    /// Whether a run of ours began it.
    pub ours: bool,
    /// The command, as PostgreSQL names it.
    pub command: String,
    /// The table, quoted in full.
    pub table: Option<String>,
    /// The index, quoted in full; not known at first.
    pub index: Option<String>,
    /// For how many seconds.
    pub seconds: f64,
    /// How far it is.
    pub progress: Progress,
}

/// The builds at work.
///
/// # Errors
/// When the database cannot be reached or read.
pub async fn builds(database: &Database) -> Result<Vec<Build>, Error> {
    let session = database.session().await?;
    let rows = session
        .query(&TAG, "looking for builds", texts::BUILDS, &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Build {
            pid: row.get(0),
            user: row.get(14),
            application: row.get(15),
            ours: row
                .get::<_, Option<&str>>(1)
                .is_some_and(|query| query.starts_with(texts::BUILD_TAG_START)),
            command: row.get(19),
            table: row.get(17),
            index: row.get(18),
            seconds: row.get::<_, Option<f64>>(16).unwrap_or_default(),
            progress: step::build_at_work(row).1,
        })
        .collect())
}

/// Indexes that are not valid, and those under names of ours.
///
/// # Errors
/// When the database cannot be reached or read.
pub async fn broken(database: &Database) -> Result<Vec<Broken>, Error> {
    let session = database.session().await?;
    let rows = session
        .query(&TAG, "looking for invalid indexes", texts::BROKEN, &[])
        .await?;
    Ok(rows
        .iter()
        .map(|row| Broken {
            full_name: row.get(0),
            table: row.get(1),
            name: row.get(2),
            definition: row.get(3),
            valid: row.get(4),
            partitioned: row.get(5),
            busy: row.get(6),
        })
        .collect())
}

/// Repairs an index; whether there was something to do. What a failed rebuild left is dropped.
///
/// # Errors
/// When it cannot be done, or was stopped.
pub async fn repair(database: &Database, index: &Broken, stop: &CancellationToken) -> Result<bool, Error> {
    match index.repair() {
        Repair::Leave { .. } => Ok(false),
        Repair::Drop { .. } => {
            run(database, &texts::drop(&index.full_name), stop).await?;
            Ok(true)
        }
        Repair::Rebuild => {
            let before = broken(database).await?;
            let rebuilt = run(database, &texts::reindex(&index.full_name), stop).await;
            if let Err(error) = rebuilt {
                let left = broken(database).await?;
                for left in left.iter().filter(|left| {
                    shared::index::is_copy_of(&left.name, &index.name)
                        && left.table == index.table
                        && !before.iter().any(|b| b.full_name == left.full_name)
                }) {
                    run(database, &texts::drop(&left.full_name), &CancellationToken::new()).await?;
                }
                return Err(error);
            }
            Ok(true)
        }
    }
}

/// Runs a statement outside a transaction; when it is to stop, its backend is told to.
async fn run(database: &Database, statement: &str, stop: &CancellationToken) -> Result<(), Error> {
    let mut session = database.direct_session().await?;
    step::must_be_unlimited(&session, &TAG).await?;
    let text = format!("{}{statement}", texts::BuildTag(&TAG));
    let mut work = std::pin::pin!(session.outside(&text));
    let done = tokio::select! {
        done = &mut work => done,
        () = stop.cancelled() => {
            // Until it has ended: behind a pooler it may not even have begun.
            loop {
                cancel(database, &text).await?;
                if tokio::time::timeout(TELL_AGAIN, &mut work).await.is_ok() {
                    return Err(Error::Stopped);
                }
            }
        }
    };
    done.map_err(Error::statement("repairing an index"))
}

/// Ends a statement of ours, wherever it runs.
async fn cancel(database: &Database, statement: &str) -> Result<(), Error> {
    let session = database.session().await?;
    let params = [(&statement as &(dyn ToSql + Sync), Type::TEXT)];
    session
        .query(&TAG, "cancelling a repair", texts::CANCEL_STATEMENT, &params)
        .await
        .map(drop)
}
