//! A statement that PostgreSQL refuses inside a transaction and that is safe to repeat: recorded as begun, run, recorded as
//! done.
//!
//! ```text
//! no record --> begun --> (a backend of an earlier try still at it? wait) --> run --> done
//! ```

use super::{Part, Place, record};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use crate::user_error;
use shared::sql::Tag;
use std::time::Duration;
use tokio_postgres::types::Type;

/// How often a backend of an earlier try is looked for.
const POLL: Duration = Duration::from_secs(1);

/// Sessions that work on the same step. Parameter: the step's tag up to its fence (text).
const SAME_STEP: &str = r"
SELECT count(*) FROM pg_catalog.pg_stat_activity
 WHERE datname = pg_catalog.current_database() AND state <> 'idle' AND pid <> pg_catalog.pg_backend_pid()
   AND pg_catalog.starts_with(query, $1)";

pub(super) async fn run(run: &mut Run<'_>, place: Place<'_>, statement: &str) -> Result<(), Error> {
    let tag = place.tag(run);
    if !place.has_begun() {
        record::only(run, place, Part::First).await?;
    }
    let mut session = run.database.direct_session().await?;
    wait_for_earlier(run, &session, &tag).await?;
    check_fence(run, &mut session, &tag).await?;
    let done = session.client().batch_execute(&format!("{tag}{statement}")).await;
    done.map_err(|error| user_error::of(&error, statement, 0, &tag, place))?;
    faults::reach(Point::AfterChange).await?;
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
