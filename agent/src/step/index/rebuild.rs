//! Indexes to be built anew.

use super::super::{Part, Place, record};
use super::concurrent::{self, Ended, Watched, is_gone};
use super::observe;
use crate::error::{Error, statement_message};
use crate::faults::{self, Point};
use crate::run::Run;
use shared::index::{Began, Found, NextRebuild, Rebuild, Role};
use shared::name::Ident;
use shared::retry::{self, Retryability};
use shared::sql::{TAG_START, Tag, index as texts};
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

pub(super) async fn run(run: &mut Run<'_>, place: Place<'_>, rebuild: &Rebuild) -> Result<(), Error> {
    let tag = place.tag(run);
    let Some(began) = begin(run, place, rebuild, &tag).await? else {
        return Ok(());
    };
    let starts = [of_step(&tag)];
    loop {
        run.stop_if_asked()?;
        // Whoever ends between the two looks has left what it left: so first who is at work, then what is there.
        let at_work = at_work(run, &tag, &starts).await?;
        let found = found(run, &tag, &began).await?;
        let (done, all) = began.progress(&found);
        let next = began.next(&found);
        let about = match next {
            NextRebuild::Rebuild(index) | NextRebuild::Drop(index) if all > 1 => {
                format!("index {} of {all}, {}: ", done + 1, index.full_name())
            }
            NextRebuild::Rebuild(_) | NextRebuild::Drop(_) | NextRebuild::Done => String::new(),
        };
        let watched = Watched {
            tag: &tag,
            starts: &starts,
            wait: rebuild.wait,
            about: &about,
        };
        if at_work {
            if let Some(who) = concurrent::adopt(run, &watched).await? {
                return Err(given_up(rebuild, "rebuilding an index", who, LATER));
            }
            continue;
        }
        match next {
            NextRebuild::Done => return record::only(run, place, Part::Last).await,
            NextRebuild::Drop(left) => drop_left(run, &watched, left).await?,
            NextRebuild::Rebuild(index) => one(run, &watched, rebuild, &began, index).await?,
        }
    }
}

/// What is said of leftovers that the next run drops.
const LATER: &str = "what it left is dropped by the next run";

/// What the step remembers of its beginning; `None` where there is nothing to rebuild, and that is recorded.
async fn begin(
    run: &mut Run<'_>,
    place: Place<'_>,
    rebuild: &Rebuild,
    tag: &Tag,
) -> Result<Option<Began>, Error> {
    if let Some(begun) = place.todo.begun.as_ref().filter(|_| place.has_begun()) {
        let detail = begun.detail.as_deref();
        let began = detail.and_then(|detail| serde_json::from_str(detail).ok());
        let unreadable = Error::Broken("what a step remembers of its beginning cannot be read");
        return began.map(Some).ok_or(unreadable);
    }
    let name = rebuild.target.name();
    let rows = {
        let session = run.database.session().await?;
        let doing = "looking for the indexes";
        let params = [(&name as &(dyn tokio_postgres::types::ToSql + Sync), Type::TEXT)];
        session.query(tag, doing, &texts::to_rebuild(), &params).await?
    };
    let found = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let began = rebuild.begin(&found)?;
    if began.indexes.is_empty() {
        record::only(run, place, Part::Whole).await?;
        return Ok(None);
    }
    let detail = serde_json::to_string(&began).expect("numbers are JSON");
    record::remembering(run, place, Part::First, Some(&detail)).await?;
    Ok(Some(began))
}

/// What the statements of this step hold in all its runs, whoever sends them.
fn of_step(tag: &Tag) -> String {
    let text = tag.to_string();
    let place = text.strip_prefix(TAG_START).unwrap_or(&text);
    place.split("f=").next().unwrap_or_default().to_owned()
}

async fn at_work(run: &Run<'_>, tag: &Tag, starts: &[String]) -> Result<bool, Error> {
    let session = run.database.session().await?;
    Ok(!observe::workers(&session, tag, starts).await?.is_empty())
}

/// All indexes of the tables in question.
async fn found(run: &Run<'_>, tag: &Tag, began: &Began) -> Result<Vec<Found>, Error> {
    let session = run.database.session().await?;
    let doing = "looking for the indexes";
    let params = [(
        &began.indexes as &(dyn tokio_postgres::types::ToSql + Sync),
        Type::OID_ARRAY,
    )];
    let rows = session.query(tag, doing, &texts::rebuilt(), &params).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<Found, Error> {
    let ident = |column: usize| {
        Ident::exact(row.get::<_, String>(column)).map_err(|_| Error::Broken("the catalog gave no name"))
    };
    Ok(Found {
        oid: row.get(0),
        schema: ident(1)?,
        name: ident(2)?,
        kind: row.get(3),
        table: format!("{}.{}", ident(4)?, ident(5)?),
        valid: row.get(6),
        exclusion: row.get(7),
        essence: row.get(8),
        keys: row.get(9),
        condition: row.get(10),
        role: match row.get::<_, &str>(11) {
            "target" => Role::Target,
            "within" => Role::Within,
            _ => Role::Beside,
        },
    })
}

async fn drop_left(run: &Run<'_>, watched: &Watched<'_>, left: &Found) -> Result<(), Error> {
    match concurrent::drop_index(run, watched, &left.full_name()).await? {
        Ended::Done => Ok(()),
        Ended::Failed(error) => Err(Error::statement("dropping what a rebuild left")(error)),
        Ended::Waited { who } => Err(Error::WaitBudget {
            what: format!("dropping {}, which a rebuild left,", left.full_name()),
            budget: watched.wait,
            who,
            left: "no query uses it; it is dropped by the next run".to_owned(),
        }),
    }
}

/// Rebuilds one. What became of it is seen by the next look.
async fn one(
    run: &Run<'_>,
    watched: &Watched<'_>,
    rebuild: &Rebuild,
    began: &Began,
    index: &Found,
) -> Result<(), Error> {
    let statement = texts::reindex(&index.full_name());
    let error = match concurrent::run(run, watched, &statement).await? {
        Ended::Done => return faults::reach(Point::AfterChange).await,
        Ended::Waited { who } => {
            let what = format!("rebuilding index {}", index.full_name());
            return Err(given_up(rebuild, &what, who, clean(run, watched, began).await));
        }
        Ended::Failed(error) => error,
    };
    if is_gone(&error) {
        return Ok(());
    }
    let Some(code) = error.code().cloned() else {
        // The connection was lost: the backend may still be at work, and is adopted then.
        return Err(Error::statement("rebuilding an index")(error));
    };
    let left = clean(run, watched, began).await;
    let (message, retry) = if code == SqlState::UNIQUE_VIOLATION {
        let find = texts::equal_keys(&index.table, &index.keys, index.condition.as_deref());
        let message = format!(
            "unique index {} cannot be rebuilt: rows of {} have equal keys, so it was broken before; {left}\n  help: find them with: {find}",
            index.full_name(),
            index.table
        );
        (message, Retryability::GiveUp)
    } else {
        let message = format!(
            "{}\nin the statement: {statement}; {left}",
            statement_message(&error)
        );
        (message, retry::of_sqlstate(code.code()))
    };
    Err(Error::User {
        message,
        code: Some(code.code().to_owned()),
        retry,
    })
}

/// Drops what a broken rebuild left, in a short time; says what became of it.
async fn clean(run: &Run<'_>, watched: &Watched<'_>, began: &Began) -> &'static str {
    loop {
        let Ok(found) = found(run, watched.tag, began).await else {
            return LATER;
        };
        let NextRebuild::Drop(left) = began.next(&found) else {
            return "nothing is left behind";
        };
        if !concurrent::clean(run, watched, &left.full_name()).await {
            return LATER;
        }
    }
}

fn given_up(rebuild: &Rebuild, what: &str, who: String, left: &str) -> Error {
    Error::WaitBudget {
        what: what.to_owned(),
        budget: rebuild.wait,
        who,
        left: left.to_owned(),
    }
}
