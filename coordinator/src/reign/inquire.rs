//! Whom to ask about databases. It is said at once: nothing of it is written.

use super::Reign;
use super::sessions::Sent;
use crate::inquiries::Asked;
use shared::id::{AgentId, DatabaseName};
use shared::inquiry::{Inquiry, Whom};
use shared::rollout::Bundle;
use shared::rollout::fleet::Place;
use shared::rollout::message::ToAgent;
use std::collections::BTreeMap;

impl Reign {
    /// Asks the agents of each database, with one message for each agent.
    pub(super) fn inquire(
        &mut self,
        inquiry: u64,
        databases: Vec<DatabaseName>,
        what: &Inquiry,
        bundle: Option<&Bundle>,
    ) -> Asked {
        let mut asked = Asked::new();
        let mut questions: BTreeMap<AgentId, Vec<DatabaseName>> = BTreeMap::new();
        for database in databases {
            let agents = self.serving(&database, what.whom());
            for agent in &agents {
                let of_agent = questions.entry(agent.clone()).or_default();
                of_agent.push(database.clone());
            }
            if agents.is_empty() {
                let problem = "no agent that serves it is connected".to_owned();
                asked.push((database, Err(problem)));
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

    /// Agents that are connected and serve a database: all, or the first by name that could reach it, else the first. A
    /// drained one will do, since it has no work from it.
    fn serving(&self, database: &DatabaseName, whom: Whom) -> Vec<AgentId> {
        let serving = || {
            let claims = self.book.fleet().claims(database);
            claims.filter(|(agent, _)| self.book.links().contains_key(*agent))
        };
        if whom == Whom::Each {
            return serving().map(|(agent, _)| agent.clone()).collect();
        }
        let reaching = serving().find(|(_, claim)| matches!(claim.place, Place::Known(_)));
        reaching
            .or_else(|| serving().next())
            .map(|(agent, _)| agent.clone())
            .into_iter()
            .collect()
    }
}
