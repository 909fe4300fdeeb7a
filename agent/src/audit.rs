//! The ledger of one database for those who operate it: what is in it, whether it contradicts itself, and a new identity
//! for a database that was copied or upgraded on purpose.

use crate::database::Database;
use crate::error::Error;
use crate::ledger;
use crate::session::Session;
use crate::work::Evidence;
use shared::id::{Holder, SetName};
use shared::ledger::Ledger;
use shared::rollout::work::Identity;
use shared::sql::{Tag, audit as texts, ledger as books};
use std::time::{Duration, Instant};
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// How often a holder that is waited for is looked at.
const POLL: Duration = Duration::from_millis(500);

/// The first format that knows of accepted identities.
const KNOWS_ACCEPTED: i32 = 2;

/// The first format that keeps what verification found.
const KNOWS_EVIDENCE: i32 = 3;

const TAG: Tag = Tag::OF_NO_RUN;

/// What a ledger holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Format, identities, fence and holder; no runs and no steps.
    pub ledger: Ledger,
    /// In order of their names.
    pub sets: Vec<ShownSet>,
    /// Steps that were verified, oldest first.
    pub verified: Vec<Verified>,
    /// Oldest first.
    pub accepted: Vec<Accepted>,
}

/// One set of a ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownSet {
    /// Its name.
    pub name: String,
    /// Versions that are applied.
    pub applied: i64,
    /// Versions that are half applied or half undone.
    pub half_done: i64,
    /// The newest version applied, as its author wrote it.
    pub newest: Option<String>,
}

/// A step whose rows were looked at again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Its set.
    pub set: String,
    /// Its version, as its author wrote it.
    pub version: String,
    /// Up or down.
    pub direction: String,
    /// Which run of the version.
    pub run: i32,
    /// Counted from 1.
    pub step: i32,
    /// What it does.
    pub title: String,
    /// Whether it is done; else it failed by what was found, or is about to be done.
    pub done: bool,
    /// What was found.
    pub evidence: Evidence,
}

/// An identity that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// When, as ISO 8601 in UTC.
    pub at: String,
    /// Where the ledger was before.
    pub before: Identity,
    /// Where it was from then on.
    pub after: Identity,
    /// Why, in the words of whoever accepted it.
    pub reason: String,
    /// Who that was.
    pub by: String,
}

/// A place where a ledger contradicts itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The number of the invariant.
    pub number: u32,
    /// What should hold.
    pub sentence: &'static str,
    /// Where it does not.
    pub place: String,
}

/// What came of accepting an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acceptance {
    /// It is recorded; the identity before.
    Accepted(Identity),
    /// The ledger was written here: there is nothing to accept.
    Same,
    /// There is no ledger.
    NoLedger,
}

/// Reads what a ledger holds; `None` where there is none. Changes nothing.
///
/// # Errors
/// When the database cannot be reached, or has a newer ledger.
pub async fn show(database: &Database) -> Result<Option<Shown>, Error> {
    let session = database.session().await?;
    let Some(ledger) = read(&session).await? else {
        return Ok(None);
    };
    let doing = "reading the ledger";
    let sets = session.query(&TAG, doing, texts::SETS, &[]).await?;
    let accepted = if ledger.ledger.format >= KNOWS_ACCEPTED {
        session.query(&TAG, doing, texts::ACCEPTED, &[]).await?
    } else {
        Vec::new()
    };
    let verified = if ledger.ledger.format >= KNOWS_EVIDENCE {
        session.query(&TAG, doing, texts::VERIFIED, &[]).await?
    } else {
        Vec::new()
    };
    Ok(Some(Shown {
        ledger,
        sets: (sets.iter())
            .map(|row| ShownSet {
                name: row.get(0),
                applied: row.get(1),
                half_done: row.get(2),
                newest: row.get(3),
            })
            .collect(),
        verified: verified.iter().map(verified_of).collect::<Result<_, _>>()?,
        accepted: (accepted.iter())
            .map(|row| {
                let identity = |at| Identity {
                    system: row.get(at),
                    database: row.get(at + 1),
                };
                Accepted {
                    at: row.get(0),
                    before: identity(1),
                    after: identity(3),
                    reason: row.get(5),
                    by: row.get(6),
                }
            })
            .collect(),
    }))
}

fn verified_of(row: &Row) -> Result<Verified, Error> {
    let evidence = serde_json::from_str(row.get(7));
    Ok(Verified {
        set: row.get(0),
        version: row.get(1),
        direction: row.get(2),
        run: row.get(3),
        step: row.get(4),
        title: row.get(5),
        done: row.get(6),
        evidence: evidence.map_err(|_| Error::Broken("what verification found cannot be read"))?,
    })
}

/// Where a ledger contradicts itself; `None` where there is no ledger. Changes nothing.
///
/// # Errors
/// When the database cannot be reached, or has a newer ledger.
pub async fn verify(database: &Database) -> Result<Option<Vec<Finding>>, Error> {
    let session = database.session().await?;
    if read(&session).await?.is_none() {
        return Ok(None);
    }
    let mut findings = Vec::new();
    for invariant in texts::INVARIANTS {
        let rows = session
            .query(&TAG, "verifying the ledger", invariant.query, &[])
            .await?;
        findings.extend(rows.iter().map(|row| Finding {
            number: invariant.number,
            sentence: invariant.sentence,
            place: row.get(0),
        }));
    }
    Ok(Some(findings))
}

/// Accepts that the ledger is now in another database: a clone that is to be migrated on its own, or an upgraded cluster.
/// Waits for a holder that seems to live: a copy has the row of the one that held the original.
///
/// # Errors
/// When the database cannot be reached, has a newer ledger, or stays held for longer than `wait`.
pub async fn accept(
    database: &Database,
    reason: &str,
    by: &str,
    holder: Holder,
    wait: Duration,
) -> Result<Acceptance, Error> {
    let since = Instant::now();
    loop {
        let mut session = database.session().await?;
        let Some(ledger) = read(&session).await? else {
            return Ok(Acceptance::NoLedger);
        };
        let Some(before) = ledger.fence.as_ref().map(shared::ledger::FenceRow::identity) else {
            return Ok(Acceptance::Same);
        };
        if before == ledger.identity() {
            return Ok(Acceptance::Same);
        }
        let accepted = try_accept(&mut session, before, reason, by, holder).await;
        if !matches!(accepted, Ok(true)) {
            session.rollback(&TAG).await;
        }
        if accepted? {
            return Ok(Acceptance::Accepted(before));
        }
        if since.elapsed() >= wait {
            let by = ledger
                .holder
                .map_or_else(|| "somebody".to_owned(), |h| h.description);
            return Err(Error::WaitEnded {
                by,
                waited: since.elapsed(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn try_accept(
    session: &mut Session,
    before: Identity,
    reason: &str,
    by: &str,
    holder: Holder,
) -> Result<bool, Error> {
    let doing = "accepting the new identity";
    let params = [
        (&holder.0 as &(dyn ToSql + Sync), Type::UUID),
        (&before.system, Type::INT8),
        (&before.database, Type::OID),
    ];
    let taken = session
        .begin_with(&TAG, ledger::book_limits(), doing, texts::ACCEPT, &params)
        .await?;
    let Some(row) = taken.first() else {
        return Ok(false);
    };
    let fence: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
    ledger::upgrade(session, &TAG).await?;
    let fence = fence
        .each_ref()
        .map(|part| (part as &(dyn ToSql + Sync), Type::INT8));
    session.execute(&TAG, doing, books::STAMP_SHARDS, &fence).await?;
    let record = [
        (&before.system as &(dyn ToSql + Sync), Type::INT8),
        (&before.database, Type::OID),
        (&reason, Type::TEXT),
        (&by, Type::TEXT),
    ];
    session
        .execute(&TAG, doing, texts::RECORD_ACCEPTED, &record)
        .await?;
    session.commit(&TAG).await?;
    Ok(true)
}

async fn read(session: &Session) -> Result<Option<Ledger>, Error> {
    // Runs and steps are of one set each; none has no name.
    let ledger = ledger::read(session, &TAG, &SetName::default_set()).await?;
    Ok(ledger.map(|ledger| Ledger {
        runs: Vec::new(),
        steps: Vec::new(),
        ..ledger
    }))
}
