//! A statement that PostgreSQL refuses inside a transaction: recorded as begun, run, verified, recorded as done.
//!
//! ```text
//! no record --> begun --> (a backend of an earlier try still at it? wait) --> observe --done already--> done
//!                                                                               | not done, or broken
//!                                                                               v
//!                                                              clean up, run, observe --> done
//! ```

use super::{Part, Place, record};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use shared::migration::steps::{Outside, Verify};
use shared::name::Table;
use shared::retry::Retryability;
use shared::sql::Tag;
use std::time::Duration;
use tokio_postgres::types::Type;

/// How often a backend of an earlier try is looked for.
const POLL: Duration = Duration::from_secs(1);

/// Whether an index is there and valid: one boolean, or no row. Parameter: its quoted name (text).
const INDEX: &str =
    "SELECT i.indisvalid FROM pg_catalog.pg_index i WHERE i.indexrelid = pg_catalog.to_regclass($1)";

/// Sessions that work on the same step. Parameter: the step's tag up to its fence (text).
const SAME_STEP: &str = r"
SELECT count(*) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND state <> 'idle' AND pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.starts_with(query, $1)";

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    _part: Part,
    outside: &Outside,
) -> Result<(), Error> {
    let tag = place.tag(run);
    let begun = place.has_begun();
    if !begun {
        if let Verify::IndexValid(index) = &outside.verify {
            // What is there before we begin is not ours: neither to be dropped nor to be taken for the result.
            let session = run.database.session().await?;
            if index_valid(&session, &tag, index).await?.is_some() {
                return Err(Error::User {
                    message: format!("there is a relation {index} already"),
                    code: Some("42P07".to_owned()),
                    retry: Retryability::GiveUp,
                });
            }
        }
        record::only(run, place, Part::First).await?;
    }
    let mut session = run.database.direct_session().await?;
    wait_for_earlier(run, &session, &tag).await?;
    if !(begun && is_done(&session, &tag, &outside.verify).await?) {
        if begun && let Verify::IndexValid(index) = &outside.verify {
            drop_broken(&session, &tag, index).await?;
        }
        check_fence(run, &mut session, &tag).await?;
        let done = session
            .client()
            .batch_execute(&format!("{tag}{}", outside.text))
            .await;
        if let Err(error) = done {
            let error = user_error::of(&error, &outside.text, 0, &tag, place);
            if let Verify::IndexValid(index) = &outside.verify
                && let Err(left) = drop_broken(&session, &tag, index).await
            {
                tracing::warn!(error = %left, "the broken index stays until the next try");
            }
            return Err(error);
        }
        faults::reach(Point::AfterChange).await?;
        if !matches!(outside.verify, Verify::Repeat) && !is_done(&session, &tag, &outside.verify).await? {
            return Err(Error::User {
                message: "the statement ended without an error, but its effect is not there".to_owned(),
                code: None,
                retry: Retryability::GiveUp,
            });
        }
    }
    record::only(run, place, Part::Last).await
}

async fn check_fence(run: &Run<'_>, session: &mut Session, tag: &Tag) -> Result<(), Error> {
    ledger::begin_fenced(session, run.claim, tag, ledger::book_limits()).await?;
    session.rollback(tag).await;
    Ok(())
}

async fn wait_for_earlier(run: &Run<'_>, session: &Session, tag: &Tag) -> Result<(), Error> {
    let text = tag.to_string();
    let start = text.split("f=").next().unwrap_or_default();
    loop {
        let rows = session
            .query(
                &run.claim.tag(),
                "looking for an earlier try",
                SAME_STEP,
                &[(&start, Type::TEXT)],
            )
            .await?;
        if rows.first().is_none_or(|row| row.get::<_, i64>(0) == 0) {
            return Ok(());
        }
        run.stoppable(POLL).await?;
    }
}

async fn is_done(session: &Session, tag: &Tag, verify: &Verify) -> Result<bool, Error> {
    Ok(match verify {
        Verify::Repeat => false,
        Verify::IndexValid(index) => index_valid(session, tag, index).await? == Some(true),
        Verify::IndexGone(index) => index_valid(session, tag, index).await?.is_none(),
    })
}

/// Drops an index that is there and not valid: it would be maintained by every write and used by none.
async fn drop_broken(session: &Session, tag: &Tag, index: &Table) -> Result<(), Error> {
    if index_valid(session, tag, index).await? == Some(false) {
        let drop = format!("{tag}DROP INDEX CONCURRENTLY {index}");
        session
            .client()
            .batch_execute(&drop)
            .await
            .map_err(Error::statement("dropping an index that is not valid"))?;
    }
    Ok(())
}

async fn index_valid(session: &Session, tag: &Tag, index: &Table) -> Result<Option<bool>, Error> {
    let name = index.to_string();
    let rows = session
        .query(tag, "looking for the index", INDEX, &[(&name, Type::TEXT)])
        .await?;
    Ok(rows.first().map(|row| row.get(0)))
}
