//! Statements in one fenced transaction, tried with a short lock timeout until they get their locks or the budget ends.

use super::{Part, Place, record};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use futures_util::StreamExt as _;
use shared::migration::steps::Session as Effect;
use shared::plan::{Length, Transaction};
use shared::retry::Retryability;
use shared::sql::{Commit, Limits, Tag, ledger as texts};
use std::convert::Infallible;
use std::time::Duration;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, SimpleQueryMessage};

/// The longest one try stands in a lock queue: applications that arrive meanwhile wait behind it.
const LONGEST_TRY: Duration = Duration::from_millis(500);

/// How often whom a statement waits for is looked at.
const WATCH: Duration = Duration::from_millis(150);

/// How long taking back what a failed step put in place is tried.
const WITHDRAWAL: Duration = Duration::from_secs(10);

/// `query_canceled`.
const STATEMENT_TIMEOUT: &str = "57014";

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    transaction: &Transaction,
) -> Result<(), Error> {
    let options = &place.todo.script.options;
    let defaults = run.database.limits();
    let budget = run.lock_budget(place);
    let statement = match transaction.length {
        Length::Bounded => {
            Some(options.statement_timeout.unwrap_or(defaults.statement)).filter(|limit| !limit.is_zero())
        }
        Length::Long => None,
    };
    let limits = Limits {
        lock: LONGEST_TRY.min(budget),
        statement,
        commit: Commit::Durable,
    };
    let tag = place.tag(run);
    let mut backoff = Backoff::new();
    let mut blockers = String::new();
    loop {
        let mut session = run.database.session().await?;
        // On the heap: a run of many steps is one future.
        let attempt = Box::pin(attempt(run, place, part, transaction, &mut session, &tag, limits));
        let tried = tokio::select! {
            tried = attempt => tried,
            never = watch_blockers(run, &tag, &mut blockers) => match never {},
        };
        match tried {
            Ok(()) => {
                if transaction.session == Effect::Changed {
                    session.spoil();
                }
                run.committed();
                return Ok(());
            }
            Err(error) => {
                let lock_timeout = matches!(&error, Error::User { code: Some(code), .. } if code == "55P03");
                if !session.is_usable() {
                    session.rollback(&tag).await;
                }
                if transaction.session == Effect::Changed {
                    session.spoil();
                }
                if !lock_timeout {
                    return Err(Box::pin(failed(run, place, transaction, error)).await);
                }
            }
        }
        if backoff.elapsed() >= budget {
            return Err(Error::LockBudget {
                budget,
                who: if blockers.is_empty() {
                    "who held it could not be seen".to_owned()
                } else {
                    format!("held by {blockers}")
                },
            });
        }
        run.stoppable(backoff.pause()).await?;
    }
}

async fn attempt(
    run: &Run<'_>,
    place: Place<'_>,
    part: Part,
    transaction: &Transaction,
    session: &mut Session,
    tag: &Tag,
    limits: Limits,
) -> Result<(), Error> {
    ledger::begin_fenced(session, run.claim, tag, limits).await?;
    let recorded = record::before(run, place, part, session, tag, None).await?;
    let before = match recorded {
        Some(xid) => xid,
        None => assign_xid(session, tag).await?,
    };
    for text in &transaction.statements {
        send(session, text, tag, place).await?;
    }
    faults::reach(Point::AfterChange).await?;
    let after = session
        .query(tag, "checking the transaction", texts::CURRENT_XID, &[])
        .await?;
    let after: Option<String> = after.first().and_then(|row| row.get(0));
    if after.as_ref() != Some(&before) {
        return Err(Error::HiddenCommit);
    }
    record::after(run, place, part, session, tag).await?;
    record::commit(session, tag).await
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
        Error::User { message, code, retry } => Error::User {
            message: format!("{message}\n{done}"),
            code,
            retry,
        },
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

/// While a statement of the step waits for a lock, keeps in `blockers` whom it waits for, for people.
async fn watch_blockers(run: &Run<'_>, tag: &Tag, blockers: &mut String) -> Infallible {
    let start = tag.to_string();
    loop {
        tokio::time::sleep(WATCH).await;
        // Only for the message: what cannot be seen now may be seen with the next look.
        let Ok(session) = run.database.session().await else {
            continue;
        };
        let rows = session
            .query(
                &run.claim.tag(),
                "asking who holds the lock",
                texts::BLOCKERS,
                &[(&start, Type::TEXT)],
            )
            .await
            .unwrap_or_default();
        if !rows.is_empty() {
            *blockers = rows.iter().map(blocker).collect::<Vec<_>>().join("; ");
        }
    }
}

fn blocker(row: &Row) -> String {
    let (pid, user, application, state): (i32, Option<String>, Option<String>, Option<String>) =
        (row.get(0), row.get(1), row.get(2), row.get(3));
    let (age, query): (Option<f64>, Option<String>) = (row.get(4), row.get(5));
    format!(
        "pid {pid}, user {}, application \"{}\", {}, transaction open for {:.0} s, last statement: {}",
        user.as_deref().unwrap_or("unknown"),
        application.unwrap_or_default(),
        state.as_deref().unwrap_or("unknown"),
        age.unwrap_or_default(),
        query
            .unwrap_or_default()
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" "),
    )
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
