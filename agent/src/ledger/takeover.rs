//! Taking the fence, and telling who has it.

use super::{
    READING, TAKEOVER_LOCK, check_identity, format, held, limits, read_briefly, read_present, upgrade_from,
};
use crate::claim::Claim;
use crate::database::Database;
use crate::error::Error;
use crate::faults::{self, Point};
use crate::session::Session;
use shared::fence::{Fence, Standing};
use shared::id::{DatabaseName, Holder, SetName};
use shared::ledger::{Format, Ledger};
use shared::rollout::work::Newer;
use shared::sql::{self, Commit, ledger as texts};
use tokio_postgres::types::Type;

/// Tries of one takeover; each ends the sessions that stood in its way.
const TAKEOVER_TRIES: u32 = 5;

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

impl Take<'_> {
    /// A lease's takeover need not wait for the disk. All that is done under it comes later in the WAL: whatever of that is
    /// on disk, or on a standby, the takeover is too. Where a crash loses the takeover it loses all of that, and the fence
    /// before it is in force again; the lost connection makes us read anew, and take it again. A run without a coordinator
    /// never takes it twice, so it must not lose it.
    fn commit(self) -> Commit {
        match self {
            Self::Lease(_) | Self::LeaseAgain(_) => Commit::Deferred,
            Self::Local { .. } | Self::Keep => Commit::Durable,
        }
    }
}

/// What a run without a coordinator does with a holder that is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Living {
    /// Waits for it.
    Wait,
    /// Displaces it.
    Displace,
}

/// What a takeover read of the ledger, where a brief reading decides what is to be done.
pub(crate) type Reading = Option<Box<Ledger>>;

/// How a takeover ended.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The fence is ours, and this is what the ledger said under it.
    Ours(Reading),
    /// Somebody else was quicker, or lives: read again.
    Refused,
}

impl Taken {
    /// What the ledger said.
    pub(crate) fn reading(self) -> Reading {
        match self {
            Self::Ours(reading) => reading,
            Self::Refused => None,
        }
    }
}

/// Takes the fence, reads the ledger of a set under it, stamps the open shards and says who holds the database: one
/// transaction.
///
/// # Errors
/// `Replaced` or `Foreign` when a larger fence is in force, `Identity` when this is a clone.
pub(crate) async fn take(
    database: &Database,
    claim: &Claim,
    how: Take<'_>,
    set: &SetName,
) -> Result<Taken, Error> {
    let mut tries = 0;
    let mut read = Some(set);
    loop {
        let mut session = database.session().await?;
        let error = match try_take(&mut session, claim, how, read).await {
            Ok(taken) => return Ok(taken),
            Err(error) => error,
        };
        session.rollback(&claim.tag()).await;
        if matches!(&error, Error::Statement { doing, source } if *doing == READING && source.code().is_some())
        {
            // An older format refuses the brief reading: the takeover brings it to ours without one.
            read = None;
            continue;
        }
        tries += 1;
        let locked = matches!(&error, Error::Statement { source, .. } if source.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE));
        if !locked || tries >= TAKEOVER_TRIES {
            return Err(error);
        }
        // What stands in the way is a transaction of an older fence, or one of ours whose end we did not see.
        end_older_sessions(session, claim, how).await?;
    }
}

async fn try_take(
    session: &mut Session,
    claim: &Claim,
    how: Take<'_>,
    read: Option<&SetName>,
) -> Result<Taken, Error> {
    let tag = claim.tag();
    let doing = "taking over the database";
    let begin = limits(TAKEOVER_LOCK, how.commit());
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
                .begin_books_with(&tag, begin, doing, texts::TAKE, &params)
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
                .begin_books_with(&tag, begin, doing, texts::TAKE_LOCAL, &params)
                .await?
        }
        Take::Keep => {
            session
                .begin_books_with(&tag, begin, doing, texts::LOCK_FENCE, &claim.params())
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
    let held = held().as_secs_f64();
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
    let found = async {
        match read {
            Some(set) => read_briefly(session, &tag, set)
                .await
                .map(|ledger| Found::Ledger(Box::new(ledger))),
            None => format(session, &tag).await.map(Found::Format),
        }
    };
    // In one flight.
    let (found, held) = tokio::join!(
        biased;
        found,
        session.execute(&tag, doing, texts::HOLD, &hold_params),
    );
    let found = found?;
    held?;
    upgrade_from(found.format(), session, &tag).await?;
    if found.may_have_open_shards() {
        session
            .execute(&tag, doing, texts::STAMP_SHARDS, &stamp_params)
            .await?;
    }
    session.commit(&tag).await?;
    faults::reach(Point::AfterTakeover).await?;
    Ok(Taken::Ours(found.decisive()))
}

/// What a takeover read of the ledger.
enum Found {
    Ledger(Box<Ledger>),
    Format(Format),
}

impl Found {
    fn format(&self) -> Format {
        match self {
            Self::Ledger(ledger) => ledger.ledger,
            Self::Format(format) => *format,
        }
    }

    /// Shards are open only while the run of their step is; runs begin only under the fence, which is held now.
    fn may_have_open_shards(&self) -> bool {
        match self {
            Self::Ledger(ledger) => ledger.unfinished,
            Self::Format(_) => true,
        }
    }

    /// What decides what is to be done, if a brief reading does.
    fn decisive(self) -> Reading {
        match self {
            Self::Ledger(ledger) if ledger.is_between_runs() => Some(ledger),
            Self::Ledger(_) | Self::Format(_) => None,
        }
    }
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
