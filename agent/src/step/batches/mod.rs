//! The batch loop: workers that go over ranges of a table's rows, each batch one fenced transaction with its checkpoint.
//!
//! ```text
//! plan --prepare--> ranges in the ledger --workers--> all ranges done --prepare--> another pass, or none is left: done
//! ```
//! A lost connection or an unknown COMMIT ends the attempt; the next one's first statement waits for the row lock of the
//! doubtful transaction and then reads what became of it. Nothing but the ledger tells how far a range is.

mod batch;
mod cut;
mod pacer;
mod shards;
mod split;
mod vacuum;
mod verify;
mod worker;
mod writers;

use super::{Part, Place, record};
use crate::error::Error;
use crate::facts;
use crate::run::Run;
use shards::Prepared;
use shared::plan::{Action, Batches, Passes, Stage, Upper, When};
use shared::sql::batch::WAL_WRITTEN;

/// How often rows that move are gone after: what still changes then is changed by applications.
const MOST_PASSES: i32 = 10;

/// `undefined_table`.
const UNDEFINED_TABLE: &str = "42P01";

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    batches: &Batches,
) -> Result<(), Error> {
    run.report(|progress| progress.estimated_rows = batches.estimated_rows());
    let wal_before = wal(run, place).await?;
    let is_last = matches!(part, Part::Whole | Part::Last);
    let mut part = part;
    let mut again: Option<Batches> = None;
    loop {
        let batches = again.as_ref().unwrap_or(batches);
        let prepared = shards::prepare(run, place, part, batches).await?;
        part = Part::Middle;
        match prepared {
            Prepared::Open(open) => {
                if open.is_untouched && batches.upper == Upper::AtStart {
                    for part in &batches.parts {
                        writers::wait_for_older(run, place, part).await?;
                    }
                }
                match worker::all(run, place, batches, open).await {
                    Ok(()) => {}
                    Err(error) if error.sqlstate() == Some(UNDEFINED_TABLE) => {
                        let found = look_again(run, place).await?;
                        if names(&found).eq(names(batches)) {
                            return Err(error);
                        }
                        // A partition was dropped, detached or renamed meanwhile.
                        again = Some(found);
                        continue;
                    }
                    Err(error) => return Err(error),
                }
            }
            Prepared::Done { still_changing } => {
                if still_changing > 0 {
                    tracing::warn!(
                        database = %run.database.name(), rows = still_changing,
                        "the last of {MOST_PASSES} passes still found rows to change: applications go on writing such rows"
                    );
                }
                break;
            }
        }
        if batches.parts.len() == 1 && batches.passes == Passes::One {
            break;
        }
        again = Some(look_again(run, place).await?);
    }
    let settled = again.as_ref().unwrap_or(batches);
    if let Some(verification) = &settled.verification
        && (verification.when == When::Always || run.overrides.canary)
    {
        verify::run(run, place, settled, verification).await?;
    }
    let written = u64::try_from(wal(run, place).await? - wal_before).unwrap_or(0);
    run.tally.wal_bytes = Some(written);
    run.tally.of_all_lives = Some(shards::effort(run, place).await?);
    // Durable, and under the fence row: the asynchronous commits of the loop are on disk with it.
    if is_last {
        record::only(run, place, Part::Last).await?;
    }
    if let Err(error) = shards::forget_old(run, place).await {
        tracing::warn!(database = %run.database.name(), error = %error, "old evidence of batches was not removed");
    }
    Ok(())
}

/// How much WAL the server has written.
async fn wal(run: &Run<'_>, place: Place<'_>) -> Result<i64, Error> {
    let session = run.database.session().await?;
    let tag = place.tag(run);
    let rows = session
        .query(&tag, "asking for the WAL's end", WAL_WRITTEN, &[])
        .await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or(Error::Broken("the WAL has no end"))
}

fn names(batches: &Batches) -> impl Iterator<Item = (u32, String)> {
    batches.parts.iter().map(|part| (part.oid, part.full_name()))
}

/// The loop as it is planned now: partitions may have come and gone.
async fn look_again(run: &Run<'_>, place: Place<'_>) -> Result<Batches, Error> {
    let change = &place.step().change;
    let mut facts = place.facts(run, Stage::Begun);
    let mut session = run.database.session().await?;
    facts::inspect(&mut session, &place.tag(run), change, &mut facts).await?;
    let batches = change.plan(&facts)?.into_iter().find_map(|action| match action {
        Action::Batches(batches) => Some(*batches),
        Action::Transaction(_)
        | Action::Assert(_)
        | Action::Outside(_)
        | Action::Index(_)
        | Action::LookAgain => None,
    });
    batches.ok_or(Error::Broken("a step that works in batches has none any more"))
}
