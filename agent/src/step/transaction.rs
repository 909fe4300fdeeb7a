//! Statements in one fenced transaction, tried with a short lock timeout until they get their locks or the budget ends.

use super::{Part, Place, record};
use crate::backoff::Backoff;
use crate::error::Error;
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use shared::migration::steps::Session as Effect;
use shared::plan::{Length, Transaction};
use shared::sql::{self, Commit, Limits, Tag, ledger as texts};
use std::time::Duration;
use tokio_postgres::types::Type;

/// The longest one try stands in a lock queue: applications that arrive meanwhile wait behind it.
const LONGEST_TRY: Duration = Duration::from_millis(500);

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    transaction: &Transaction,
) -> Result<(), Error> {
    let options = &place.todo.script.options;
    let defaults = run.database.limits();
    let budget = run
        .overrides
        .lock_timeout
        .or(options.lock_timeout)
        .unwrap_or(defaults.lock);
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
    loop {
        let mut session = run.database.session().await?;
        let tried = attempt(run, place, part, transaction, &mut session, &tag, limits).await;
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
                    return Err(error);
                }
            }
        }
        if backoff.elapsed() >= budget {
            return Err(Error::LockBudget {
                budget,
                who: lock_holders(run, place, &tag).await,
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
    for statement in &transaction.statements {
        let tagged = format!("{tag}{statement}");
        if let Err(error) = session.client().batch_execute(&tagged).await {
            return Err(user_error::of(&error, statement, tag, place));
        }
    }
    let after = session
        .query(tag, "checking the transaction", texts::CURRENT_XID, &[])
        .await?;
    let after: Option<String> = after.first().and_then(|row| row.get(0));
    if after.as_ref() != Some(&before) {
        return Err(Error::HiddenCommit);
    }
    record::after(run, place, part, session, tag).await?;
    session.commit(tag).await
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

/// Who holds the locks on the step's tables, for people.
async fn lock_holders(run: &Run<'_>, place: Place<'_>, tag: &Tag) -> String {
    let mut lines = Vec::new();
    if let Ok(session) = run.database.session().await {
        for table in place.step().change.tables() {
            let name = table.to_string();
            let Ok(rows) = session
                .query(
                    tag,
                    "asking who holds the lock",
                    sql::ledger::LOCK_HOLDERS,
                    &[(&name, Type::TEXT)],
                )
                .await
            else {
                continue;
            };
            for row in rows {
                let (pid, user, application, state): (i32, Option<String>, String, Option<String>) =
                    (row.get(0), row.get(1), row.get(2), row.get(3));
                let (age, query): (Option<f64>, String) = (row.get(4), row.get(5));
                lines.push(format!(
                    "pid {pid}, user {}, application \"{application}\", {}, transaction open for {:.0} s, last statement: {}",
                    user.as_deref().unwrap_or("unknown"),
                    state.as_deref().unwrap_or("unknown"),
                    age.unwrap_or_default(),
                    query.split_whitespace().collect::<Vec<_>>().join(" "),
                ));
            }
        }
    }
    if lines.is_empty() {
        "who held it could not be seen".to_owned()
    } else {
        format!("held by {}", lines.join("; "))
    }
}
