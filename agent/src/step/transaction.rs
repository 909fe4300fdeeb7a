//! Statements in one fenced transaction, tried until they get their locks or the budget for them ends.

use super::locks::{Locks, Seen, Turn};
use super::{Part, Place, record};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
use crate::pooler;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use futures_util::StreamExt as _;
use shared::lock::LONGEST_TRY;
use shared::migration::steps::Session as Effect;
use shared::plan::{Length, Transaction};
use shared::retry::Retryability;
use shared::sql::{self, Limits, Tag, ledger as texts};
use std::time::{Duration, Instant};
use tokio_postgres::SimpleQueryMessage;

/// How long taking back what a failed step put in place is tried.
const WITHDRAWAL: Duration = Duration::from_secs(10);

/// `lock_not_available`.
pub(super) const LOCK_TIMEOUT: &str = "55P03";

/// `check_violation` and `foreign_key_violation`.
const VIOLATIONS: [&str; 2] = ["23514", "23503"];

/// `query_canceled`.
const STATEMENT_TIMEOUT: &str = "57014";

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    transaction: &Transaction,
) -> Result<(), Error> {
    let tag = place.tag(run);
    let mut locks = Locks::new(run, place, &tag, transaction).await?;
    // Another connection would cost the server more than all of it.
    let mut unseen = transaction.creates_only;
    loop {
        let turn = locks.turn(run, &tag).await?;
        let mut session = session(run, place, transaction).await?;
        let began = Instant::now();
        // On the heap: a run of many steps is one future.
        let attempt = Box::pin(attempt(run, place, part, transaction, &mut session, &tag, &turn));
        let (tried, seen) = if unseen {
            (attempt.await, Seen::default())
        } else {
            Locks::watched(run, &tag, attempt).await
        };
        let taken = matches!(&tried, Err(error) if error.sqlstate() == Some(LOCK_TIMEOUT));
        run.locks.saw(&seen, taken.then(|| began.elapsed()));
        if tried.is_err() && !session.is_usable() {
            session.rollback(&tag).await;
        }
        if transaction.session == Effect::Changed {
            session.spoil();
        } else {
            drop(session);
        }
        match tried {
            Ok(()) => {
                run.locks.got(&seen);
                run.control.recorder.tried(began.elapsed(), true);
                run.committed();
                return Ok(());
            }
            Err(_) if taken => {
                // Somebody creates the same, and has not committed it.
                unseen = false;
                locks
                    .taken(run, &tag, &turn, began.elapsed(), seen.blockers)
                    .await?;
            }
            Err(error) => return Err(Box::pin(failed(run, place, transaction, error)).await),
        }
    }
}

/// Statements that may change their session get one that is theirs alone.
async fn session(run: &Run<'_>, place: Place<'_>, transaction: &Transaction) -> Result<Session, Error> {
    match transaction.session {
        Effect::Clean => run.database.session().await,
        Effect::Changed => {
            let own = run.database.own_session().await?;
            own.ok_or_else(|| pooler::needs_own_session(&place.todo.place_of(place.index)))
        }
    }
}

async fn attempt(
    run: &Run<'_>,
    place: Place<'_>,
    part: Part,
    transaction: &Transaction,
    session: &mut Session,
    tag: &Tag,
    turn: &Turn,
) -> Result<(), Error> {
    let limits = Limits {
        statement: statement_limit(run, place, transaction),
        ..ledger::book_limits()
    };
    ledger::begin_fenced(session, run.claim, tag, limits).await?;
    if let Some((lock, patience)) = &turn.aside {
        within(session, tag, *patience, lock).await?;
    }
    // In one flight.
    let (within, recorded) = tokio::join!(
        biased;
        within(session, tag, turn.length, ""),
        record::before(run, place, part, session, tag, None),
    );
    within?;
    let before = match recorded? {
        Some(xid) => xid,
        None => assign_xid(session, tag).await?,
    };
    let after = changed(session, &transaction.statements, tag, place).await?;
    faults::reach(Point::AfterChange).await?;
    if after.as_ref() != Some(&before) {
        return Err(Error::HiddenCommit);
    }
    record::after(run, place, part, session, tag).await?;
    record::commit(session, tag).await
}

/// Sends the statements; gives the id of the transaction we are in after the last one.
async fn changed(
    session: &Session,
    statements: &[String],
    tag: &Tag,
    place: Place<'_>,
) -> Result<Option<String>, Error> {
    // Its answer comes after the last statement's, which may take as long as it is allowed to.
    let question = format!("{tag}{}", texts::CURRENT_XID);
    let asked = session.client().query_typed(&question, &[]);
    let rows = if let Some((last, others)) = statements.split_last() {
        for text in others {
            send(session, text, tag, place).await?;
        }
        // In one flight.
        let (sent, rows) = tokio::join!(biased; send(session, last, tag, place), asked);
        sent?;
        rows
    } else {
        asked.await
    };
    let rows = rows.map_err(Error::statement("checking the transaction"))?;
    Ok(rows.first().and_then(|row| row.get(0)))
}

/// How long each of its statements may take.
fn statement_limit(run: &Run<'_>, place: Place<'_>, transaction: &Transaction) -> Option<Duration> {
    match transaction.length {
        Length::Bounded => {
            let own = place.option(|options| options.statement_timeout);
            Some(own.unwrap_or(run.database.limits().statement)).filter(|limit| !limit.is_zero())
        }
        Length::Long => None,
    }
}

/// Sets how long a lock is waited for from now on, and then runs a statement.
async fn within(session: &Session, tag: &Tag, limit: Duration, statement: &str) -> Result<(), Error> {
    let text = format!("{tag}{}; {tag}{statement}", sql::lock_timeout(limit));
    session
        .client()
        .batch_execute(&text)
        .await
        .map_err(Error::statement("preparing to take locks"))
}

/// Runs a text of one or many statements; an error says which of them failed.
async fn send(session: &Session, text: &str, tag: &Tag, place: Place<'_>) -> Result<(), Error> {
    let mut passed = 0;
    let sent = async {
        let answers = session.client().simple_query_raw(&format!("{tag}{text}")).await?;
        let mut answers = std::pin::pin!(answers);
        while let Some(answer) = answers.next().await {
            if let SimpleQueryMessage::CommandComplete(_) = answer? {
                passed += 1;
            }
        }
        Ok(())
    };
    let sent: Result<(), tokio_postgres::Error> = sent.await;
    sent.map_err(|error| {
        let error = user_error::of(&error, text, passed, tag, place);
        match error {
            // Its own time ran out: another try would take as long.
            Error::User {
                message,
                code: Some(code),
                ..
            } if code == STATEMENT_TIMEOUT => Error::User {
                message: format!(
                    "{message}\nhelp: give it more time with `statement_timeout`, or make it shorter"
                ),
                code: Some(code),
                retry: Retryability::GiveUp,
            },
            other => other,
        }
    })
}

/// A transaction that failed for good takes back what the step's transactions before it put in place, where the step
/// says how: a check that refuses rows, say.
async fn failed(run: &Run<'_>, place: Place<'_>, transaction: &Transaction, error: Error) -> Error {
    let Some(withdraw) = &transaction.withdraw else {
        return error;
    };
    if error.retryability() != Retryability::GiveUp || !matches!(error, Error::User { .. }) {
        return error;
    }
    let done = match withdrawn(run, place, &withdraw.statement).await {
        Ok(()) => withdraw.done,
        Err(problem) => {
            tracing::warn!(database = %run.database.name(), error = %problem, "what the step put in place stays");
            withdraw.left
        }
    };
    match error {
        Error::User { message, code, retry } => {
            let violated = code.as_deref().is_some_and(|code| VIOLATIONS.contains(&code));
            let help = if violated {
                format!("\nhelp: change the rows first; they are: {}", withdraw.find)
            } else {
                String::new()
            };
            Error::User {
                message: format!("{message}\n{done}{help}"),
                code,
                retry,
            }
        }
        other => other,
    }
}

async fn withdrawn(run: &Run<'_>, place: Place<'_>, statement: &str) -> Result<(), Error> {
    let tag = place.tag(run);
    let limits = Limits {
        lock: LONGEST_TRY,
        ..ledger::book_limits()
    };
    let mut backoff = Backoff::new();
    loop {
        let mut session = run.database.session().await?;
        let tried = async {
            ledger::begin_fenced(&mut session, run.claim, &tag, limits).await?;
            send(&session, statement, &tag, place).await?;
            session.commit(&tag).await
        };
        let tried = tried.await;
        let Err(error) = tried else {
            return Ok(());
        };
        session.rollback(&tag).await;
        if error.retryability() != Retryability::Retry || backoff.elapsed() > WITHDRAWAL {
            return Err(error);
        }
        run.stoppable(backoff.pause()).await?;
    }
}

/// A transaction that has written nothing yet gets its id, to be compared with at the end.
async fn assign_xid(session: &Session, tag: &Tag) -> Result<String, Error> {
    let rows = session
        .query(
            tag,
            "opening the transaction",
            "SELECT pg_catalog.pg_current_xact_id()::pg_catalog.text",
            &[],
        )
        .await?;
    rows.first()
        .map(|row| row.get(0))
        .ok_or(Error::Broken("a transaction without an id"))
}
