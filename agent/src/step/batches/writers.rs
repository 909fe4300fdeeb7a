//! A range that ends at the largest key there is holds the rows that exist when the step begins. A transaction that wrote
//! to the table before and has not ended may still bring rows into it: they count as well, so it is waited for.

use crate::error::Error;
use crate::run::Run;
use crate::step::Place;
use shared::plan::Part;
use shared::sql::batch;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio_postgres::types::{ToSql, Type};

/// How often the transactions that are waited for are looked at.
const POLL: Duration = Duration::from_millis(100);

/// Waits until all transactions that write to a relation now have ended, within the budget for locks.
pub(super) async fn wait_for_older(run: &Run<'_>, place: Place<'_>, part: &Part) -> Result<(), Error> {
    let mut left = writers(run, place, part).await?;
    if left.is_empty() {
        return Ok(());
    }
    let budget = run.lock_budget(place);
    tracing::info!(
        database = %run.database.name(), relation = part.full_name(), transactions = left.len(),
        "waiting for transactions that were writing to the table before the step began"
    );
    let since = Instant::now();
    while !left.is_empty() {
        if since.elapsed() >= budget {
            let who: Vec<String> = left.into_values().collect();
            return Err(Error::LockBudget {
                budget,
                who: format!(
                    "transactions that wrote to {} before the step began are still open: {}",
                    part.full_name(),
                    who.join("; ")
                ),
            });
        }
        run.stoppable(POLL).await?;
        let now = writers(run, place, part).await?;
        left.retain(|transaction, _| now.contains_key(transaction));
    }
    Ok(())
}

/// Who writes to a relation, by virtual transaction, for people.
async fn writers(run: &Run<'_>, place: Place<'_>, part: &Part) -> Result<BTreeMap<String, String>, Error> {
    let session = run.database.session().await?;
    let params = [(&part.oid as &(dyn ToSql + Sync), Type::OID)];
    let doing = "looking for older transactions";
    let rows = session
        .query(&place.tag(run), doing, batch::WRITERS, &params)
        .await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
