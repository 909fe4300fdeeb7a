//! The ledger in a database: reading it, creating it, and the transactions that may write it.

mod takeover;

use crate::claim::Claim;
use crate::database::Database;
use crate::error::{Error, Forbidden};
use crate::faults::{self, Point};
use crate::session::Session;
use shared::id::{SetName, StoreId};
use shared::ledger::{Format, Ledger};
use shared::sql::{Commit, Limits, Tag, ledger as texts};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

pub use takeover::Living;
pub(crate) use takeover::{Reading, Take, Taken, check, replaced, take};

/// How long one try of ours waits for the row locks of others.
const TAKEOVER_LOCK: Duration = Duration::from_secs(2);

/// How long statements of the ledger may take.
const STATEMENT: Duration = Duration::from_secs(15);

/// What is being done, in errors.
const READING: &str = "reading the ledger";

/// `insufficient_privilege`.
const FORBIDDEN: &str = "42501";

/// How long a holder counts as alive after it last renewed.
const HELD: Duration = Duration::from_secs(15);

/// How long a holder counts as alive after it last renewed: a constant, but for tests.
pub(crate) fn held() -> Duration {
    faults::holder_time().unwrap_or(HELD)
}

fn limits(lock: Duration, commit: Commit) -> Limits {
    Limits {
        lock,
        statement: Some(STATEMENT),
        commit,
    }
}

/// Whether there is a ledger.
async fn is_there(session: &Session, tag: &Tag) -> Result<bool, Error> {
    let doing = "looking for the ledger";
    let rows = session.query(tag, doing, texts::EXISTS, &[]).await?;
    Ok(rows.first().is_some_and(|row| row.get(0)))
}

/// Reads the ledger of one set; `None` when there is none.
pub(crate) async fn read(session: &Session, tag: &Tag, set: &SetName) -> Result<Option<Ledger>, Error> {
    if is_there(session, tag).await? {
        read_present(session, tag, set).await.map(Some)
    } else {
        Ok(None)
    }
}

/// Reads the ledger of one set where one is known to be there: somebody took its fence.
pub(crate) async fn read_present(session: &Session, tag: &Tag, set: &SetName) -> Result<Ledger, Error> {
    let ledger = read_whole(session, tag, set).await?;
    with_holder(session, tag, ledger, Reader::Anyone).await
}

async fn read_whole(session: &Session, tag: &Tag, set: &SetName) -> Result<Ledger, Error> {
    let read = session
        .query(tag, READING, texts::READ, &[(&set.as_str(), Type::TEXT)])
        .await;
    let rows = match read {
        Ok(rows) => rows,
        Err(Error::Statement { source, .. })
            if source.code().map(tokio_postgres::error::SqlState::code) == Some(FORBIDDEN) =>
        {
            return Err(forbidden(session, tag, Forbidden::Use).await?);
        }
        // A newer one may not have the shape we know.
        Err(error) => {
            format(session, tag).await?;
            return Err(error);
        }
    };
    parsed(&rows)
}

fn parsed(rows: &[Row]) -> Result<Ledger, Error> {
    let json: &str = rows.first().ok_or(Error::Broken("it gave no answer"))?.get(0);
    let ledger: Ledger = serde_json::from_str(json).map_err(|_| Error::Broken("its rows cannot be read"))?;
    workable(ledger.ledger)?;
    Ok(ledger)
}

/// Whose reading it is: what a holder that does not renew itself may still be doing matters to others alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// Whoever has the fence.
    Holder,
    /// Somebody for whom holders of this store are no others.
    Store(StoreId),
    /// Somebody for whom every holder is another.
    Anyone,
}

/// Asks whether the holder's statements run, where that matters: it does not renew itself, and may be alive all the same.
async fn with_holder(
    session: &Session,
    tag: &Tag,
    mut ledger: Ledger,
    reader: Reader,
) -> Result<Ledger, Error> {
    let another = |store| match reader {
        Reader::Holder => false,
        Reader::Store(ours) => store != Some(ours),
        Reader::Anyone => true,
    };
    let unknown = (ledger.holder.as_mut()).filter(|holder| !holder.is_held() && another(holder.store));
    if let Some(holder) = unknown {
        let doing = "looking for statements of the holder";
        let rows = session.query(tag, doing, texts::WORKING, &[]).await?;
        holder.found(rows.first().is_some_and(|row| row.get(0)));
    }
    Ok(ledger)
}

/// Reads what of it decides whether there is something to do. Formats before ours may refuse that.
async fn read_briefly(session: &Session, tag: &Tag, set: &SetName) -> Result<Ledger, Error> {
    let params = [(&set.as_str() as &(dyn ToSql + Sync), Type::TEXT)];
    let rows = session.query(tag, READING, texts::READ_BRIEFLY, &params).await?;
    parsed(&rows)
}

/// Reads as much of a ledger that is there as decides what is to be done: all of it only where that is needed.
pub(crate) async fn read_to_decide(
    session: &Session,
    tag: &Tag,
    set: &SetName,
    reader: Reader,
) -> Result<Ledger, Error> {
    // Whatever is wrong, the whole reading says it better; an older format is nothing wrong.
    let ledger = match read_briefly(session, tag, set).await {
        Ok(ledger) if ledger.is_between_runs() => ledger,
        Ok(_) | Err(_) => read_whole(session, tag, set).await?,
    };
    with_holder(session, tag, ledger, reader).await
}

/// Who may not do it, and where.
async fn forbidden(session: &Session, tag: &Tag, what: Forbidden) -> Result<Error, Error> {
    let rows = session
        .query(tag, "asking who we are", texts::WHO_WE_ARE, &[])
        .await?;
    let row = rows.first().ok_or(Error::Broken("the server does not know us"))?;
    Ok(Error::Forbidden {
        what,
        role: row.get(0),
        database: row.get(1),
    })
}

/// The ledger's format, if we can work with it.
async fn format(session: &Session, tag: &Tag) -> Result<Format, Error> {
    let rows = session
        .query(tag, "reading the ledger's format", texts::FORMAT_ROW, &[])
        .await?;
    let json: &str = rows.first().ok_or(Error::Broken("its format is missing"))?.get(0);
    workable(serde_json::from_str(json).map_err(|_| Error::Broken("its format cannot be read"))?)
}

/// Brings the ledger to our format, inside a transaction that holds the fence row.
pub(crate) async fn upgrade(session: &Session, tag: &Tag) -> Result<(), Error> {
    upgrade_from(format(session, tag).await?, session, tag).await
}

async fn upgrade_from(from: Format, session: &Session, tag: &Tag) -> Result<(), Error> {
    let upgrades = from.upgrades();
    if upgrades.is_empty() {
        return Ok(());
    }
    session
        .client()
        .batch_execute(&format!("{tag}{}", upgrades.concat()))
        .await
        .map_err(Error::statement("upgrading the ledger"))
}

fn workable(format: Format) -> Result<Format, Error> {
    if format.is_workable() {
        return Ok(format);
    }
    Err(Error::LedgerNewer {
        found: format.format,
        known: texts::FORMAT,
    })
}

/// The ledger of one set, or an empty one with the database's identity.
pub(crate) async fn read_or_absent(
    database: &Database,
    session: &Session,
    tag: &Tag,
    set: &SetName,
) -> Result<Ledger, Error> {
    let read = read(session, tag, set).await?;
    database.saw_ledger(read.is_some());
    match read {
        Some(ledger) => Ok(ledger),
        None => Ok(Ledger::absent(Database::identity_by(session).await?)),
    }
}

/// The same, as much of it as decides what is to be done.
pub(crate) async fn read_or_absent_to_decide(
    database: &Database,
    session: &Session,
    tag: &Tag,
    set: &SetName,
    reader: Reader,
) -> Result<Ledger, Error> {
    if !database.has_ledger() {
        let there = is_there(session, tag).await?;
        database.saw_ledger(there);
        if !there {
            return Ok(Ledger::absent(Database::identity_by(session).await?));
        }
    }
    match read_to_decide(session, tag, set, reader).await {
        Ok(ledger) => Ok(ledger),
        // It may be gone, or the connection is.
        Err(_) => read_or_absent(database, session, tag, set).await,
    }
}

/// Refuses a database that is not the one its ledger was written in.
pub(crate) fn check_identity(ledger: &Ledger) -> Result<(), Error> {
    match ledger.fence.as_ref().map(shared::ledger::FenceRow::identity) {
        Some(then) if then != ledger.identity() => Err(Error::Identity {
            now: ledger.identity(),
            then,
        }),
        _ => Ok(()),
    }
}

/// Creates the ledger where the last look found none. Of several that do so at once one succeeds; the others go on with
/// its.
pub(crate) async fn ensure(database: &Database, tag: &Tag) -> Result<(), Error> {
    if database.has_ledger() {
        return Ok(());
    }
    let session = &mut database.session().await?;
    if is_there(session, tag).await? {
        return Ok(());
    }
    // Only for its refusal of servers that are too old.
    Database::identity_by(session).await?;
    let begin = limits(TAKEOVER_LOCK, Commit::Durable);
    session
        .begin_with(tag, begin, "creating the ledger", texts::EXISTS, &[])
        .await?;
    let created = session
        .client()
        .batch_execute(&format!("{tag}{}{}", texts::CREATE, texts::UPGRADES.concat()))
        .await;
    match created {
        Ok(()) => session.commit(tag).await,
        Err(error) => {
            session.rollback(tag).await;
            match error.code().map(tokio_postgres::error::SqlState::code) {
                Some("23505" | "42P06" | "42P07") => Ok(()),
                Some(FORBIDDEN) => Err(forbidden(session, tag, Forbidden::Create).await?),
                _ => Err(Error::Statement {
                    doing: "creating the ledger (schema confiture)",
                    source: error,
                }),
            }
        }
    }
}

/// Opens a transaction that holds the fence row: steps and shards are recorded only in such ones.
pub(crate) async fn begin_fenced(
    session: &mut Session,
    claim: &Claim,
    tag: &Tag,
    limits: Limits,
) -> Result<(), Error> {
    let rows = session
        .begin_with(
            tag,
            limits,
            "checking the fence",
            texts::LOCK_FENCE,
            &claim.params(),
        )
        .await?;
    if rows.is_empty() {
        Err(replaced(session, claim).await)
    } else {
        faults::reach(Point::AfterFenceLock).await
    }
}

/// Limits of a transaction that only keeps books.
pub(crate) fn book_limits() -> Limits {
    limits(TAKEOVER_LOCK, Commit::Durable)
}

/// Renews the holder for this long. Courtesy, not safety: others wait for it.
///
/// # Errors
/// `Replaced` when another is the holder, and the fence says the same.
pub(crate) async fn renew(database: &Database, claim: &Claim, held: Duration) -> Result<(), Error> {
    let mut session = database.session().await?;
    let seconds = held.as_secs_f64();
    let started = Instant::now();
    let renewed = session
        .only(
            &claim.tag(),
            // Durable: nothing depends on it, but it tells how long a commit takes here.
            limits(TAKEOVER_LOCK, Commit::Durable),
            "renewing the holder",
            texts::RENEW,
            &[holder(claim), (&seconds, Type::FLOAT8)],
        )
        .await?;
    // Without the time that a connection was waited for.
    database.committed_in(started.elapsed());
    drop(session);
    if renewed == 0 {
        check(database, claim).await?;
    }
    Ok(())
}

const RELEASING: &str = "releasing the holder";

/// Releases the holder in the transaction that ends its run.
pub(crate) async fn release_within(session: &Session, claim: &Claim, tag: &Tag) -> Result<(), Error> {
    session
        .execute(tag, RELEASING, texts::RELEASE, &[holder(claim)])
        .await
        .map(drop)
}

/// Releases the holder. Where the server dies before that is on its disk, it expires.
pub(crate) async fn release(database: &Database, claim: &Claim) -> Result<(), Error> {
    let mut session = database.session().await?;
    let limits = limits(TAKEOVER_LOCK, Commit::Deferred);
    session
        .only(&claim.tag(), limits, RELEASING, texts::RELEASE, &[holder(claim)])
        .await
        .map(drop)
}

fn holder(claim: &Claim) -> (&(dyn ToSql + Sync), Type) {
    (&claim.holder.0, Type::UUID)
}
