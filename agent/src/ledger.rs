//! The ledger in a database: reading it, creating it, taking its fence.

use crate::claim::Claim;
use crate::database::Database;
use crate::error::{Error, Forbidden};
use crate::session::Session;
use shared::fence::{Fence, Standing};
use shared::id::{DatabaseName, Holder, SetName};
use shared::ledger::{Format, Ledger};
use shared::rollout::work::Newer;
use shared::sql::{self, Commit, Limits, Tag, ledger as texts};
use std::time::Duration;
use tokio_postgres::types::Type;

/// How long one try of a takeover waits for the row locks of others.
const TAKEOVER_LOCK: Duration = Duration::from_secs(2);

/// How long statements of the ledger may take.
const STATEMENT: Duration = Duration::from_secs(15);

/// `insufficient_privilege`.
const FORBIDDEN: &str = "42501";

/// Tries of one takeover; each ends the sessions that stood in its way.
const TAKEOVER_TRIES: u32 = 5;

/// How long a holder counts as alive after it last renewed.
pub(crate) const HELD: Duration = Duration::from_secs(15);

/// How a fence is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take<'a> {
    /// By a lease of the fleet: any smaller fence gives way.
    Lease(&'a DatabaseName),
    /// By a run without a coordinator: only from what it read.
    Local {
        /// Fence and holder as read; none where there was no row.
        read: Option<(Fence, Holder)>,
        /// What to do with a holder that is alive.
        living: Living,
    },
    /// By the same lease again, after a lost connection: it is ours, or a failover lost the first takeover.
    LeaseAgain(&'a DatabaseName),
    /// Not at all: a run without a coordinator that has held it once never takes it again.
    Keep,
}

/// What a run without a coordinator does with a holder that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Living {
    /// Waits for it.
    Wait,
    /// Displaces it.
    Displace,
}

/// How a takeover ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The fence is ours.
    Ours,
    /// Somebody else was quicker, or lives: read again.
    Refused,
}

fn limits(lock: Duration, commit: Commit) -> Limits {
    Limits {
        lock,
        statement: Some(STATEMENT),
        commit,
    }
}

/// Reads the ledger of one set; `None` when there is none.
pub(crate) async fn read(session: &Session, tag: &Tag, set: &SetName) -> Result<Option<Ledger>, Error> {
    let rows = session
        .query(tag, "looking for the ledger", texts::EXISTS, &[])
        .await?;
    if !rows.first().is_some_and(|row| row.get(0)) {
        return Ok(None);
    }
    read_present(session, tag, set).await.map(Some)
}

/// Reads the ledger of one set where one is known to be there: somebody took its fence.
pub(crate) async fn read_present(session: &Session, tag: &Tag, set: &SetName) -> Result<Ledger, Error> {
    let read = session
        .query(
            tag,
            "reading the ledger",
            texts::READ,
            &[(&set.as_str(), Type::TEXT)],
        )
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
    let json: &str = rows.first().ok_or(Error::Broken("it gave no answer"))?.get(0);
    let ledger: Ledger = serde_json::from_str(json).map_err(|_| Error::Broken("its rows cannot be read"))?;
    workable(ledger.ledger)?;
    Ok(ledger)
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
    let upgrades = format(session, tag).await?.upgrades();
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
    let rows = session
        .query(tag, "looking for the ledger", texts::EXISTS, &[])
        .await?;
    if rows.first().is_some_and(|row| row.get(0)) {
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

/// Takes the fence, stamps the open shards and says who holds the database: one transaction, durable.
///
/// # Errors
/// `Replaced` or `Foreign` when a larger fence is in force, `Identity` when this is a clone.
pub(crate) async fn take(database: &Database, claim: &Claim, how: Take<'_>) -> Result<Taken, Error> {
    let mut tries = 0;
    loop {
        let mut session = database.session().await?;
        let error = match try_take(&mut session, claim, how).await {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        session.rollback(&claim.tag()).await;
        tries += 1;
        let locked = matches!(&error, Error::Statement { source, .. } if source.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE));
        if !locked || tries >= TAKEOVER_TRIES {
            return Err(error);
        }
        // What stands in the way is a transaction of an older fence, or one of ours whose end we did not see.
        end_older_sessions(session, claim, how).await?;
    }
}

async fn try_take(session: &mut Session, claim: &Claim, how: Take<'_>) -> Result<Taken, Error> {
    let tag = claim.tag();
    let doing = "taking over the database";
    let begin = limits(TAKEOVER_LOCK, Commit::Durable);
    let [epoch, token, local, holder] = claim.params();
    let store = claim.store.map(|store| store.0);
    let rows = match how {
        Take::Lease(name) | Take::LeaseAgain(name) => {
            let name = name.as_str();
            let params = [
                epoch,
                token,
                local,
                holder,
                (&store, Type::UUID),
                (&name, Type::TEXT),
            ];
            session
                .begin_with(&tag, begin, doing, texts::TAKE, &params)
                .await?
        }
        Take::Local { read, living } => {
            let read_local = read.map(|(fence, _)| fence.local);
            let read_holder = read.map(|(_, holder)| holder.0);
            let displace = living == Living::Displace;
            let params = [
                epoch,
                token,
                local,
                holder,
                (&read_local, Type::INT8),
                (&read_holder, Type::UUID),
                (&displace, Type::BOOL),
            ];
            session
                .begin_with(&tag, begin, doing, texts::TAKE_LOCAL, &params)
                .await?
        }
        Take::Keep => {
            session
                .begin_with(&tag, begin, doing, texts::LOCK_FENCE, &claim.params())
                .await?
        }
    };
    if rows.is_empty() {
        let standing = standing(session, claim).await?;
        if standing != Standing::Ours {
            session.rollback(&tag).await;
            return match (how, standing) {
                (Take::Local { .. }, _) => Ok(Taken::Refused),
                (Take::Lease(_) | Take::LeaseAgain(_) | Take::Keep, Standing::Older) => Err(Error::Broken(
                    "its fence is smaller than ours and cannot be taken",
                )),
                (Take::Lease(_) | Take::LeaseAgain(_) | Take::Keep, _) => {
                    Err(replacement(session, claim).await?)
                }
            };
        }
    }
    let held = HELD.as_secs_f64();
    let stamp_params = [
        claim.params()[0].clone(),
        claim.params()[1].clone(),
        claim.params()[2].clone(),
    ];
    let hold_params = [
        (
            &claim.holder.0 as &(dyn tokio_postgres::types::ToSql + Sync),
            Type::UUID,
        ),
        (&store, Type::UUID),
        (&claim.description, Type::TEXT),
        (&held, Type::FLOAT8),
    ];
    let (upgraded, stamped, held) = tokio::join!(
        upgrade(session, &tag),
        session.execute(&tag, doing, texts::STAMP_SHARDS, &stamp_params),
        session.execute(&tag, doing, texts::HOLD, &hold_params),
    );
    upgraded?;
    stamped?;
    held?;
    session.commit(&tag).await?;
    Ok(Taken::Ours)
}

/// How the fence in force stands to ours; larger ones are errors that name who has it.
async fn standing(session: &Session, claim: &Claim) -> Result<Standing, Error> {
    let tag = claim.tag();
    let no_set = SetName::default_set();
    let ledger = read_present(session, &tag, &no_set).await?;
    check_identity(&ledger)?;
    let Some(row) = &ledger.fence else {
        return Ok(Standing::Older);
    };
    let held = row.held();
    let standing = held.standing(claim.fence, claim.holder, claim.store);
    match standing {
        Standing::Ours | Standing::Older => Ok(standing),
        Standing::Replaced if claim.store.is_none() => Ok(standing),
        Standing::Replaced => Err(replacement(session, claim).await?),
        Standing::Foreign => Err(Error::Foreign {
            theirs: held.fence,
            ours: claim.fence,
            store: held
                .store
                .map_or_else(|| "unknown".to_owned(), |store| store.to_string()),
        }),
    }
}

/// Whether the fence is still ours, by a read alone: says who has it otherwise.
pub(crate) async fn check(database: &Database, claim: &Claim) -> Result<(), Error> {
    let session = database.session().await?;
    match standing(&session, claim).await? {
        Standing::Ours | Standing::Older => Ok(()),
        Standing::Replaced | Standing::Foreign => Err(replacement(&session, claim).await?),
    }
}

/// Who has the fence, and with what.
async fn replacement(session: &Session, claim: &Claim) -> Result<Error, Error> {
    let rows = session
        .query(&claim.tag(), "asking who took over", texts::WHO, &[])
        .await?;
    let row = rows.first().ok_or(Error::Broken("it has no fence"))?;
    let lease: (i64, i64) = (row.get(1), row.get(2));
    // Of two leases with one token at least one was forgotten: a lease's fence ends with 0.
    let local: i64 = row.get(3);
    let ours = (claim.fence.epoch, claim.fence.token);
    let newer = if lease > ours || (lease == ours && local == 0) {
        Newer::Lease
    } else {
        Newer::Local
    };
    Ok(Error::Replaced {
        by: row.get(0),
        newer,
    })
}

/// Why a check of the fence found no row: somebody took over, and who.
pub(crate) async fn replaced(session: &mut Session, claim: &Claim) -> Error {
    session.rollback(&claim.tag()).await;
    match replacement(session, claim).await {
        Ok(replaced) => replaced,
        // Asked again with the next attempt.
        Err(error) => error,
    }
}

/// Ends sessions of ours with a smaller fence; where the fence was ours before, also those of the same fence, whose end
/// we did not see. Not inside a transaction: what is seen there does not change.
async fn end_older_sessions(session: Session, claim: &Claim, how: Take<'_>) -> Result<(), Error> {
    let tag = claim.tag();
    let rows = session
        .query(&tag, "looking for older sessions", texts::OUR_BACKENDS, &[])
        .await?;
    for row in rows {
        let (pid, statement): (i32, String) = (row.get(0), row.get(1));
        let in_the_way = sql::tagged_fence(&statement).is_some_and(|fence| match how {
            Take::Keep | Take::LeaseAgain(_) => fence <= claim.fence,
            Take::Lease(_) | Take::Local { .. } => fence < claim.fence,
        });
        if in_the_way {
            tracing::warn!(pid, "ending a session of an earlier holder that is in the way");
            let params = [
                (&pid as &(dyn tokio_postgres::types::ToSql + Sync), Type::INT4),
                (&statement, Type::TEXT),
            ];
            session
                .query(&tag, "ending an older session", texts::TERMINATE, &params)
                .await?;
        }
    }
    Ok(())
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
        Ok(())
    }
}

/// Limits of a transaction that only keeps books.
pub(crate) fn book_limits() -> Limits {
    limits(TAKEOVER_LOCK, Commit::Durable)
}

/// Renews the holder for [`HELD`], or releases it. Courtesy, not safety: others wait for it.
pub(crate) async fn renew(database: &Database, claim: &Claim, held: Duration) -> Result<(), Error> {
    let mut session = database.session().await?;
    let seconds = held.as_secs_f64();
    let params = [
        (
            &claim.holder.0 as &(dyn tokio_postgres::types::ToSql + Sync),
            Type::UUID,
        ),
        (&seconds, Type::FLOAT8),
    ];
    session
        .only(
            &claim.tag(),
            limits(TAKEOVER_LOCK, Commit::Deferred),
            "renewing the holder",
            texts::RENEW,
            &params,
        )
        .await
}
