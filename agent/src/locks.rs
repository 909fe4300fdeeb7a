//! Who waits for whom in one database, for those who operate it.

use crate::database::Database;
use crate::error::Error;
use crate::step::blocker;
use shared::lock::{Jam, Waiting};
use shared::sql::{Tag, lock};
use std::collections::BTreeSet;
use tokio_postgres::Row;
use tokio_postgres::types::Type;

/// A look claims nothing.
const TAG: Tag = Tag::OF_NO_RUN;

/// Who waits for a lock in this database, and for whom.
///
/// # Errors
/// When the database cannot be asked.
pub async fn jam(database: &Database) -> Result<Jam, Error> {
    let session = database.session().await?;
    let rows = session
        .query(&TAG, "asking who waits for locks", lock::WAITING, &[])
        .await?;
    let waiting: Vec<Waiting> = rows.iter().map(self::waiting).collect();
    let those: BTreeSet<i32> = waiting.iter().map(|waiting| waiting.pid).collect();
    let by = waiting
        .iter()
        .flat_map(|waiting| waiting.blocked_by.iter().copied());
    let holders: Vec<i32> = by.filter(|pid| !those.contains(pid)).collect();
    let doing = "asking whom they wait for";
    let rows = session
        .query(&TAG, doing, &lock::holders(), &[(&holders, Type::INT4_ARRAY)])
        .await?;
    Ok(Jam {
        waiting,
        holders: rows.iter().map(blocker).collect(),
    })
}

fn waiting(row: &Row) -> Waiting {
    Waiting {
        pid: row.get(0),
        user: row.get(1),
        application: row.get(2),
        lock_type: row.get(3),
        mode: row.get(4),
        object: row.get(5),
        waited: row.get(6),
        age: row.get(7),
        query: row.get(8),
        blocked_by: row.get(9),
    }
}
