//! One question about many databases: who is asked, and the answers as they come, each database once.

use super::Context;
use crate::reign::Command;
use crate::seat::Reigning;
use shared::id::{AgentId, DatabaseName};
use shared::inquiry::{Answer, Inquiry};
use shared::rollout::Bundle;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

/// An agent that says nothing for so long is silent, and so are all that have not answered: databases take turns.
const SILENCE: Duration = Duration::from_secs(25);

/// An inquiry ends after this, whatever is missing.
const LONGEST: Duration = Duration::from_mins(1);

/// Answers on their way to whoever asked.
const OUTBOX: usize = 16;

/// What came of the question about one database.
pub(super) struct Found {
    pub(super) database: DatabaseName,
    /// Who was asked.
    pub(super) agent: Option<AgentId>,
    /// The answer, or why there is none, for people.
    pub(super) result: Result<Answer, String>,
}

impl Context {
    /// Asks about these databases, with the bundle that the question names. Each is found once; the channel then ends.
    pub(super) async fn inquire(
        self: &Arc<Self>,
        reigning: &Reigning,
        databases: Vec<DatabaseName>,
        what: Inquiry,
        bundle: Option<Arc<Bundle>>,
    ) -> Result<mpsc::Receiver<Found>, Status> {
        let book = reigning.book.borrow().clone();
        let known = book.fleet().databases().keys().cloned().collect();
        let mut asking = self.inquiries.begin(databases.len(), &known);
        let inquiry = asking.number;
        let asked = self
            .ask(reigning, |reply| Command::Inquire {
                inquiry,
                databases,
                what,
                bundle,
                reply,
            })
            .await?;
        let (outbox, found) = mpsc::channel(OUTBOX);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            let collecting = collect(asked, &mut asking.answers, &outbox);
            // Whoever asked may have gone, and then sees the end of the channel.
            let _: Option<Option<()>> = stop.run_until_cancelled(collecting).await;
        });
        Ok(found)
    }
}

/// Passes answers on until all are there, or those that miss are silent; `None` when nobody listens any more.
async fn collect(
    asked: BTreeMap<DatabaseName, Result<AgentId, String>>,
    answers: &mut mpsc::Receiver<(DatabaseName, Result<Answer, String>)>,
    outbox: &mpsc::Sender<Found>,
) -> Option<()> {
    let mut open = BTreeMap::new();
    for (database, asked) in asked {
        match asked {
            Ok(agent) => {
                open.insert(database, agent);
            }
            Err(problem) => {
                let found = Found {
                    database,
                    agent: None,
                    result: Err(problem),
                };
                outbox.send(found).await.ok()?;
            }
        }
    }
    let end = Instant::now() + LONGEST;
    while !open.is_empty() {
        let until = end.min(Instant::now() + SILENCE);
        let answer = tokio::time::timeout_at(until, answers.recv()).await;
        let Ok(Some((database, result))) = answer else {
            break;
        };
        let Some(agent) = open.remove(&database) else {
            continue;
        };
        let found = Found {
            database,
            agent: Some(agent),
            result,
        };
        outbox.send(found).await.ok()?;
    }
    for (database, agent) in open {
        let problem = format!("agent {agent} did not answer in time: see its log and its version");
        let found = Found {
            database,
            agent: Some(agent),
            result: Err(problem),
        };
        outbox.send(found).await.ok()?;
    }
    Some(())
}
