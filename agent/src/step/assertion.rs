//! A query that must hold, in a transaction that can change nothing.

use super::{Part, Place, record};
use crate::check;
use crate::error::Error;
use crate::run::Run;
use crate::user_error;
use shared::plan::Assertion;
use shared::sql::{Commit, Limits, assertion as texts};

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    assertion: &Assertion,
) -> Result<(), Error> {
    let tag = place.tag(run);
    let defaults = run.database.limits();
    let statement = place
        .option(|options| options.statement_timeout)
        .unwrap_or(defaults.statement);
    let limits = Limits {
        lock: run.lock_budget(place),
        statement: Some(statement).filter(|limit| !limit.is_zero()),
        commit: Commit::Durable,
    };
    {
        let mut session = run.database.session().await?;
        let read_only = format!("{tag}SET TRANSACTION READ ONLY");
        session
            .begin_with(&tag, limits, "opening a transaction", "SELECT 1", &[])
            .await?;
        session
            .client()
            .batch_execute(&read_only)
            .await
            .map_err(Error::statement("opening a read-only transaction"))?;
        let rows = session
            .client()
            .query_typed(&format!("{tag}{}", texts::assertion(&assertion.query)), &[])
            .await;
        session.rollback(&tag).await;
        let lead = format!("{tag}{}", texts::LEAD);
        let rows = rows.map_err(|error| user_error::behind(&error, &assertion.query, 0, &lead, place))?;
        let failed = || {
            assertion
                .message
                .clone()
                .unwrap_or_else(|| format!("{} is not true", assertion.query.trim()))
        };
        match check::truth(&rows).map_err(|why| Error::Assertion(why.to_owned()))? {
            Some(true) => {}
            Some(false) | None => return Err(Error::Assertion(failed())),
        }
    }
    record::only(run, place, part).await
}
