//! What a server has room for, for those who size pools.

use crate::database::Database;
use crate::error::Error;
use shared::pool::Room;
use shared::sql::{Tag, room};
use tokio_postgres::Row;

/// A look claims nothing.
const TAG: Tag = Tag::OF_NO_RUN;

/// How many connections the server of a database takes, and how many it has.
///
/// # Errors
/// When the database cannot be asked.
pub async fn room(database: &Database) -> Result<Room, Error> {
    let session = database.session().await?;
    let rows = session
        .query(&TAG, "asking for connections of the server", room::ROOM, &[])
        .await?;
    let row = rows.first().ok_or(Error::Broken(
        "the server does not know its own role and database",
    ))?;
    let pools = database.pools();
    Ok(Room {
        max_connections: number(row, 0).unwrap_or_default(),
        reserved: number(row, 1).unwrap_or_default(),
        used: number(row, 2).unwrap_or_default(),
        ours: pools.transactions.size() + pools.outside.size(),
        of_role: number(row, 3),
        of_database: number(row, 4),
    })
}

fn number(row: &Row, column: usize) -> Option<usize> {
    row.get::<_, Option<i64>>(column)
        .and_then(|number| usize::try_from(number).ok())
}
