//! What the ledger says is to be done, and where files and ledger contradict each other: how they differ.

use crate::database::Database;
use crate::error::Error;
use crate::pooler;
use shared::id::{Digest, Direction};
use shared::ledger::{Conflict, Goal, Ledger, Work, next};
use shared::migration::{Script, Set, Version};
use shared::sql::{Tag, ledger as texts};
use similar::{ChangeTag, TextDiff};
use tokio_postgres::types::Type;

/// Lines of a difference that are shown.
const SHOWN: usize = 12;

/// What there is to do; a conflict over an edited file shows the lines that differ.
///
/// # Errors
/// When a rule forbids to begin.
pub(crate) async fn work<'a>(
    database: &Database,
    set: &'a Set,
    ledger: &Ledger,
    goal: &Goal,
) -> Result<Work<'a>, Error> {
    let conflict = match next(set, ledger, goal) {
        Ok(work) => {
            Box::pin(needs_no_other_session(database, &work)).await?;
            return Ok(work);
        }
        Err(conflict) => conflict,
    };
    let edited = match &conflict {
        Conflict::Edited { version, applied, .. } | Conflict::EditedUndo { version, applied, .. } => {
            set.find(version).map(|migration| (*applied, &migration.up))
        }
        Conflict::EditedStep { version, .. } => begun_with(set, ledger, version),
        Conflict::Missing { .. }
        | Conflict::Ahead { .. }
        | Conflict::MissingPartial { .. }
        | Conflict::OutOfOrder { .. }
        | Conflict::Undoing { .. }
        | Conflict::NoSuchTarget { .. }
        | Conflict::NoUndo { .. }
        | Conflict::NotUndone(_)
        | Conflict::LosesData { .. } => None,
    };
    let difference = match edited {
        Some((applied, file)) => difference(database, applied, &file.text).await,
        None => None,
    };
    Err(Error::Conflict {
        conflict: Box::new(conflict),
        difference,
    })
}

/// Refuses, before anything is done, what would leave something in a session that a pooler lends to others.
async fn needs_no_other_session(database: &Database, work: &Work<'_>) -> Result<(), Error> {
    let left =
        (work.todos.iter()).flat_map(|todo| (todo.done..todo.steps.len()).map(move |index| (todo, index)));
    let changing = left
        .into_iter()
        .find(|(todo, index)| todo.steps[*index].change.changes_session());
    match changing {
        Some((todo, index)) if database.own_session().await?.is_none() => {
            Err(pooler::needs_own_session(&todo.place_of(index)))
        }
        Some(_) | None => Ok(()),
    }
}

/// The checksum of the script that a version's newest run began with, and that script's file.
fn begun_with<'a>(set: &'a Set, ledger: &Ledger, version: &Version) -> Option<(Digest, &'a Script)> {
    let migration = set.find(version)?;
    let newest = ledger.newest_runs();
    let run = newest.get(&migration.version)?;
    let file = match (run.direction, &migration.down) {
        (Direction::Down, Some(down)) => down,
        (Direction::Down, None) | (Direction::Up, _) => &migration.up,
    };
    Some((run.checksum, file))
}

/// The lines in which a file differs from the text that was applied; nothing where that text is not to be had.
async fn difference(database: &Database, applied: Digest, file: &str) -> Option<String> {
    let session = database.session().await.ok()?;
    let tag = Tag::OF_NO_RUN;
    let checksum = applied.to_string();
    let rows = session
        .query(
            &tag,
            "reading a script",
            texts::SCRIPT,
            &[(&checksum, Type::TEXT)],
        )
        .await
        .ok()?;
    let before: &str = rows.first()?.get(0);
    let diff = TextDiff::from_lines(before, file);
    let mut lines: Vec<String> = (diff.iter_all_changes())
        .filter_map(|change| {
            let sign = match change.tag() {
                ChangeTag::Equal => return None,
                ChangeTag::Delete => '-',
                ChangeTag::Insert => '+',
            };
            Some(format!("{sign} {}", change.value().trim_end()))
        })
        .collect();
    if lines.len() > SHOWN {
        let more = lines.len() - SHOWN;
        lines.truncate(SHOWN);
        lines.push(format!("({more} more)"));
    }
    (!lines.is_empty()).then(|| lines.join("\n"))
}
