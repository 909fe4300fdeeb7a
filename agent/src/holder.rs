//! Keeps the holder's row alive while a run works.

use crate::error::Error;
use crate::ledger;
use crate::run::Run;
use shared::rollout::work::Summary;

/// So many renewals fit into the time a holder counts as alive.
const RENEWALS: u32 = 3;

/// Finishes a run, renewing the holder beside it, and releases the holder when it ends. A run that was replaced and does
/// not notice, since it waits for something, is ended.
///
/// # Errors
/// Those of the run; `Replaced`.
///
/// # Cancel safety
/// When dropped the holder is not released; it expires by itself.
pub(crate) async fn held_while(run: &mut Run<'_>) -> Result<Summary, Error> {
    let (database, claim) = (run.database, run.claim);
    let held = ledger::held();
    let renewing = async {
        loop {
            tokio::time::sleep(held / RENEWALS).await;
            match ledger::renew(database, claim, held).await {
                Ok(()) => {}
                Err(replaced @ Error::Replaced { .. }) => {
                    // What is all but done may come to its own end; the fence lets it change nothing.
                    tokio::time::sleep(held).await;
                    return replaced;
                }
                Err(error) => {
                    tracing::warn!(database = %database.name(), error = %error, "the holder could not be renewed");
                }
            }
        }
    };
    let done = tokio::select! {
        done = Box::pin(run.finish()) => done,
        replaced = renewing => return Err(replaced),
    };
    // A waiting run then goes on at once. Whoever took over has a row of its own, which this leaves alone.
    if !run.released
        && let Err(error) = ledger::release(database, claim).await
    {
        tracing::debug!(database = %database.name(), error = %error, "the holder was not released; it expires");
    }
    done
}
