//! An index to be there.

use super::super::{Part, Place, record, transaction};
use super::concurrent::{self, Ended, Watched};
use super::observe::{self, Names};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::run::Run;
use shared::index::{Create, Next, Published};
use shared::lock::Mode;
use shared::name::Ident;
use shared::plan::Transaction;
use shared::retry::Retryability;
use shared::sql::index as texts;
use std::time::Duration;

/// How soon a backend that was cancelled is looked at again.
const SOON: Duration = Duration::from_millis(100);

/// `unique_violation`.
const NOT_UNIQUE: &str = "23505";

/// `duplicate_table`, which an index is to PostgreSQL too.
const NAME_TAKEN: &str = "42P07";

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    create: &Create,
) -> Result<(), Error> {
    let mut begun = !matches!(part, Part::Whole | Part::First);
    let end = match part {
        Part::Whole | Part::Last => Part::Last,
        Part::First | Part::Middle => Part::Middle,
    };
    published(run, place, create, end, &mut begun).await
}

/// The names an index to be built may be found under.
pub(super) fn names(create: &Create) -> Names<'_> {
    Names {
        exact: create.full_name(),
        starts: vec![create.temporary().start().to_owned()],
        schema: Some(create.schema.as_str()),
    }
}

/// Goes on until the index is published. With it the step is done, where `end` says so.
pub(super) async fn published(
    run: &mut Run<'_>,
    place: Place<'_>,
    create: &Create,
    end: Part,
    begun: &mut bool,
) -> Result<(), Error> {
    let tag = place.tag(run);
    let names = names(create);
    let starts = names.starts.clone();
    let watched = Watched {
        tag: &tag,
        starts: &starts,
        wait: create.wait,
        about: "",
    };
    let done = go_on(run, place, create, end, begun, &names, &watched).await;
    if let Err(Error::Replaced { .. } | Error::Foreign { .. }) = &done
        && let Err(error) = drop_orphan(run, create, &names, &watched).await
    {
        tracing::warn!(
            database = %run.database.name(), error = %error,
            "what was built too late stays: `confiture index repair` shows it"
        );
    }
    done
}

/// Drops what we built while we were replaced, where another one has its place by now. Otherwise whoever replaced us
/// finds it, and takes or drops it.
async fn drop_orphan(
    run: &Run<'_>,
    create: &Create,
    names: &Names<'_>,
    watched: &Watched<'_>,
) -> Result<(), Error> {
    let own = create.name_for(run.claim.fence);
    let seen = observe::seen(run, watched.tag, names, "").await?;
    let orphan = (seen.temporary.iter()).find(|index| index.name == own.as_str() && seen.named.is_some());
    if let Some(orphan) = orphan {
        concurrent::drop_orphan(run, watched, &orphan.full_name).await?;
    }
    Ok(())
}

async fn go_on(
    run: &mut Run<'_>,
    place: Place<'_>,
    create: &Create,
    end: Part,
    begun: &mut bool,
    names: &Names<'_>,
    watched: &Watched<'_>,
) -> Result<(), Error> {
    let tag = watched.tag;
    let wanted = observe::essence(run, tag, create).await?;
    loop {
        run.stop_if_asked()?;
        let next = create.next(&observe::seen(run, tag, names, &wanted).await?);
        let part = if *begun || end == Part::Middle {
            end
        } else {
            Part::Whole
        };
        match &next {
            Next::Done => {
                return match &create.published {
                    Published::Index | Published::Constraint if part == Part::Middle && *begun => Ok(()),
                    Published::Index | Published::Constraint if part == Part::Middle => {
                        record::only(run, place, Part::First).await
                    }
                    Published::Index | Published::Constraint => record::only(run, place, part).await,
                    Published::Part { of } => {
                        let attach = texts::attach(of, &create.full_name());
                        let attach = Transaction::bounded(attach).locking(Mode::IndexOnly);
                        transaction::run(run, place, Part::Middle, &attach).await
                    }
                };
            }
            Next::Refuse(refusal) => return Err(refusal.clone().into()),
            Next::Adopt | Next::Cancel(_) | Next::Drop(_) | Next::Build | Next::Publish(_) => {}
        }
        if !*begun {
            record::only(run, place, Part::First).await?;
            *begun = true;
        }
        match next {
            Next::Adopt => {
                if let Some(who) = concurrent::adopt(run, watched).await? {
                    return Err(given_up(run, names, watched, create, who).await);
                }
            }
            Next::Cancel(worker) => {
                concurrent::cancel(run, tag, &worker).await?;
                run.stoppable(SOON).await?;
            }
            Next::Drop(index) => drop_leftover(run, watched, &index).await?,
            Next::Build => build(run, names, watched, create).await?,
            Next::Publish(index) => match publish(run, place, create, end, &index).await {
                Err(Error::User { code: Some(code), .. }) if code == NAME_TAKEN => {}
                published => return published,
            },
            Next::Done | Next::Refuse(_) => {}
        }
    }
}

async fn drop_leftover(run: &Run<'_>, watched: &Watched<'_>, index: &str) -> Result<(), Error> {
    match concurrent::drop_index(run, watched, index).await? {
        Ended::Done => Ok(()),
        Ended::Failed(error) => Err(Error::statement("dropping what an earlier build left")(error)),
        Ended::Waited { who } => Err(Error::WaitBudget {
            what: format!("dropping {index}, which an earlier build left,"),
            budget: watched.wait,
            who,
            left: "it stays, and is dropped by the next run".to_owned(),
        }),
    }
}

async fn build(
    run: &Run<'_>,
    names: &Names<'_>,
    watched: &Watched<'_>,
    create: &Create,
) -> Result<(), Error> {
    let statement = create.statement(&create.name_for(run.claim.fence));
    let error = match concurrent::run(run, watched, &statement).await? {
        Ended::Done => return faults::reach(Point::AfterChange).await,
        Ended::Waited { who } => return Err(given_up(run, names, watched, create, who).await),
        Ended::Failed(error) => error,
    };
    let Some(code) = error.code().map(|code| code.code().to_owned()) else {
        // The connection was lost: the backend may still be at work, and is adopted then.
        return Err(Error::statement("building an index")(error));
    };
    let left = clean(run, names, watched).await;
    if code != NOT_UNIQUE {
        return Err(observe::refused(&error, create));
    }
    let what = match create.published {
        Published::Index | Published::Part { .. } => "index",
        Published::Constraint => "constraint",
    };
    let table = create.full_table();
    Err(Error::User {
        message: format!(
            "unique {what} {} cannot be: rows of {table} have equal keys; {left}\n  help: find them with: {}",
            create.name,
            one_line(&create.definition.duplicates(&table))
        ),
        code: Some(code),
        retry: Retryability::GiveUp,
    })
}

/// The error of a build that waited too long, after what it left is dropped.
async fn given_up(
    run: &Run<'_>,
    names: &Names<'_>,
    watched: &Watched<'_>,
    create: &Create,
    who: String,
) -> Error {
    Error::WaitBudget {
        what: format!("building index {}", create.name),
        budget: watched.wait,
        who,
        left: clean(run, names, watched).await.to_owned(),
    }
}

/// Drops what a failed build left; says what became of it.
async fn clean(run: &Run<'_>, names: &Names<'_>, watched: &Watched<'_>) -> &'static str {
    const LEFT: &str = "what the build left could not be dropped yet: the next run drops it";
    let Ok(seen) = observe::seen(run, watched.tag, names, "").await else {
        return LEFT;
    };
    for index in seen.temporary.iter().filter(|index| !index.valid) {
        if !concurrent::clean(run, watched, &index.full_name).await {
            return LEFT;
        }
    }
    "nothing is left behind"
}

/// Gives the index its final name, and records the step as done where it is then, in one transaction.
async fn publish(
    run: &mut Run<'_>,
    place: Place<'_>,
    create: &Create,
    end: Part,
    index: &str,
) -> Result<(), Error> {
    let named = || {
        vec![
            texts::rename(index, &create.name),
            texts::must_be_valid(&create.full_name()),
        ]
    };
    let (lock, statements) = match &create.published {
        Published::Index => (Mode::IndexOnly, named()),
        Published::Part { of } => {
            let attach = texts::attach(of, &create.full_name());
            let statements = named().into_iter().chain([attach]).collect();
            (Mode::IndexOnly, statements)
        }
        Published::Constraint => {
            let own = own_name(index);
            let add = texts::add_unique(&create.full_table(), &create.name, &own?);
            (Mode::AccessExclusive, vec![add])
        }
    };
    let publish = Transaction::bounded_all(statements).locking(lock);
    transaction::run(run, place, end, &publish).await
}

/// The last part of an index' full name.
fn own_name(index: &str) -> Result<Ident, Error> {
    shared::name::Table::parse(index)
        .map(|name| name.name)
        .map_err(|_| Error::Broken("the catalog gave no name"))
}

/// A statement for one line of a message.
fn one_line(statement: &str) -> String {
    statement.split_whitespace().collect::<Vec<_>>().join(" ")
}
