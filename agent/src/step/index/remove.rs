//! An index to be gone.

use super::super::{Part, Place, record, transaction};
use super::concurrent::{self, Ended, Watched};
use super::observe::{self, Names};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::run::Run;
use shared::index::{Kind, Next, Remove, Removed};
use shared::lock::Mode;
use shared::plan::Transaction;
use shared::sql::index as texts;
use std::time::Duration;

/// How soon a backend that was cancelled is looked at again.
const SOON: Duration = Duration::from_millis(100);

pub(super) async fn run(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    remove: &Remove,
) -> Result<(), Error> {
    // What its first and its last transaction record, and one that is both.
    let (first, last, both) = match part {
        Part::Whole | Part::Last => (Part::First, Part::Last, Part::Whole),
        Part::First => (Part::First, Part::Middle, Part::First),
        Part::Middle => (Part::Middle, Part::Middle, Part::Middle),
    };
    let tag = place.tag(run);
    let own = remove.temporary();
    let starts: Vec<String> = std::iter::once(own.clone())
        .chain(remove.building())
        .map(|names| names.start().to_owned())
        .collect();
    let names = Names {
        exact: remove.name.to_string(),
        starts: starts.clone(),
        schema: None,
    };
    let watched = Watched {
        tag: &tag,
        starts: &starts,
        wait: remove.wait,
        about: "",
    };
    // Where the removal is all that the step does, its first transaction is behind us once it has begun.
    if part != Part::Last {
        // A build that is taken back stands in the way of dropping what is there of it.
        let seen = loop {
            let seen = observe::seen(run, &tag, &names, "").await?;
            let Next::Cancel(builder) = remove.next(&seen) else {
                break seen;
            };
            concurrent::cancel(run, &tag, &builder).await?;
            run.stoppable(SOON).await?;
        };
        match remove.check(&seen)? {
            // PostgreSQL drops it only at once, with those of the partitions.
            Some(index) if index.kind == Kind::Partitioned => {
                let drop = Transaction::bounded(texts::drop_at_once(&index.full_name));
                let left = remove.next(&seen) != Next::Done;
                let part = if left { first } else { both };
                transaction::run(run, place, part, &drop).await?;
                if !left {
                    return Ok(());
                }
            }
            Some(index) if remove.removed == Removed::Constraint => {
                let drop = texts::drop_constraint(&index.table, &remove.name.name);
                return transaction::run(run, place, both, &Transaction::bounded(drop)).await;
            }
            Some(index) => {
                let rename = texts::rename(&index.full_name, &own.name(run.claim.fence));
                let rename = Transaction::bounded(rename).locking(Mode::IndexOnly);
                transaction::run(run, place, first, &rename).await?;
            }
            None if remove.next(&seen) == Next::Done => return recorded(run, place, both).await,
            None => recorded(run, place, first).await?,
        }
    }
    loop {
        run.stop_if_asked()?;
        let seen = observe::seen(run, &tag, &names, "").await?;
        match remove.next(&seen) {
            Next::Adopt => {
                if let Some(who) = concurrent::adopt(run, &watched).await? {
                    return Err(given_up(remove, who));
                }
            }
            Next::Cancel(worker) => {
                concurrent::cancel(run, &tag, &worker).await?;
                run.stoppable(SOON).await?;
            }
            Next::Drop(index) => match concurrent::drop_index(run, &watched, &index).await? {
                Ended::Done => faults::reach(Point::AfterChange).await?,
                Ended::Failed(error) => return Err(Error::statement("dropping an index")(error)),
                Ended::Waited { who } => return Err(given_up(remove, who)),
            },
            Next::Done | Next::Build | Next::Publish(_) => return recorded(run, place, last).await,
            Next::Refuse(refusal) => return Err(refusal.into()),
        }
    }
}

/// Writes the records of a part, where it has any.
async fn recorded(run: &mut Run<'_>, place: Place<'_>, part: Part) -> Result<(), Error> {
    match part {
        Part::Middle => Ok(()),
        Part::Whole | Part::First | Part::Last => record::only(run, place, part).await,
    }
}

fn given_up(remove: &Remove, who: String) -> Error {
    Error::WaitBudget {
        what: format!("dropping index {}", remove.name),
        budget: remove.wait,
        who,
        left: "queries no longer use it; the next run goes on dropping it".to_owned(),
    }
}
