//! Whom to ask about databases. It is said at once: nothing of it is written.

use super::Reign;
use super::command::Asked;
use super::sessions::Sent;
use shared::id::{AgentId, DatabaseName};
use shared::inquiry::Inquiry;
use shared::rollout::Bundle;
use shared::rollout::fleet::Place;
use shared::rollout::message::ToAgent;
use std::collections::BTreeMap;

impl Reign {
    /// Asks one agent of each database, with one message for each agent.
    pub(super) fn inquire(
        &mut self,
        inquiry: u64,
        databases: Vec<DatabaseName>,
        what: &Inquiry,
        bundle: Option<&Bundle>,
    ) -> BTreeMap<DatabaseName, Asked> {
        let mut asked = BTreeMap::new();
        let mut questions: BTreeMap<AgentId, Vec<DatabaseName>> = BTreeMap::new();
        for database in databases {
            if let Some(agent) = self.whom(&database) {
                questions.entry(agent).or_default().push(database);
            } else {
                let problem = "no agent that serves it is connected".to_owned();
                asked.insert(database, Err(problem));
            }
        }
        for (agent, databases) in questions {
            let message = ToAgent::Inquire {
                inquiry,
                databases: databases.clone(),
                what: what.clone(),
            };
            let needs = what.bundle().zip(bundle);
            let sent = match self.sessions.instruct(&agent, needs, message) {
                Sent::Yes => Ok(agent),
                Sent::Later => Err(format!(
                    "agent {agent} has too much to hear at the moment: ask again"
                )),
                Sent::Gone => Err(format!("agent {agent} has just gone: ask again")),
            };
            asked.extend(databases.into_iter().map(|database| (database, sent.clone())));
        }
        asked
    }

    /// An agent that is connected and serves a database: the first by name that could reach it, else the first of all. A
    /// drained one will do, since it has no work from it.
    fn whom(&self, database: &DatabaseName) -> Option<AgentId> {
        let serving = || {
            let claims = self.book.fleet().claims(database);
            claims.filter(|(agent, _)| self.book.links().contains_key(*agent))
        };
        let reaching = serving().find(|(_, claim)| matches!(claim.place, Place::Known(_)));
        reaching
            .or_else(|| serving().next())
            .map(|(agent, _)| agent.clone())
    }
}
