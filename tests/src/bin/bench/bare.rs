//! What a script would do to a fleet: the baseline of rollouts.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tests::fleet::Member;
use tests::postgres::Session;

/// A statement that makes a table, as rollouts and scripts run it.
pub(crate) fn table(name: &str) -> String {
    format!("CREATE TABLE {name} (id bigint PRIMARY KEY, note text)")
}

/// Connects, runs the statement, goes on to the next: so many databases at a time.
pub(crate) async fn run(members: &[Member], statement: &str, at_a_time: usize) -> anyhow::Result<()> {
    stream::iter(members)
        .map(|member| async move {
            let session = Session::open(member.database.url()).await?;
            session
                .batch_execute(statement)
                .await
                .map_err(anyhow::Error::from)
        })
        .buffer_unordered(at_a_time)
        .try_collect()
        .await
}
