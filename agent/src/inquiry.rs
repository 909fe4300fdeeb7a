//! Answers to what is asked about one database. Nothing is changed.

use crate::database::Database;
use crate::error::Error;
use crate::{check, local, survey};
use shared::inquiry::{Answer, Inquiry};
use shared::ledger::{Goal, Order};
use shared::migration::Set;
use shared::plan::{MigrationOutlook, Outlook, Strategies};

/// Answers a question, with the set of its bundle where it names one; the error is for people.
pub(crate) async fn answer(database: &Database, what: Inquiry, set: Option<&Set>) -> Result<Answer, String> {
    match what {
        Inquiry::Survey(detail) => survey::survey(database, detail).await.map(Answer::Survey),
        Inquiry::Check(query) => check::holds(database, &query).await.map(Answer::Check),
        Inquiry::Pools => Ok(Answer::Pools(database.pools())),
        Inquiry::Plan { bundle, strategies } => match set {
            Some(set) => plan(database, set, strategies).await.map(Answer::Plan),
            None => Err(format!("bundle {} is not here", bundle.short())),
        },
    }
}

/// What a set would do. A rule that forbids it is an answer too; whatever may pass is none.
async fn plan(database: &Database, set: &Set, strategies: Strategies) -> Result<Outlook, String> {
    let goal = Goal::Up {
        target: None,
        order: Order::Strict,
    };
    match local::plan(database, set, &goal, strategies).await {
        Ok(planned) => Ok(Outlook {
            migrations: (planned.into_iter())
                .map(|migration| MigrationOutlook {
                    version: migration.version,
                    name: migration.name,
                    steps: (migration.steps.into_iter()).map(|step| step.outlook).collect(),
                })
                .collect(),
            refused: None,
        }),
        Err(error) if is_refusal(&error) => Ok(Outlook {
            migrations: Vec::new(),
            refused: Some(error.failure().message),
        }),
        Err(error) => Err(error.failure().message),
    }
}

fn is_refusal(error: &Error) -> bool {
    match error {
        Error::At { source, .. } => is_refusal(source),
        Error::Conflict { .. }
        | Error::Refused(_)
        | Error::Identity { .. }
        | Error::LedgerNewer { .. }
        | Error::ServerOld(_) => true,
        _ => false,
    }
}
