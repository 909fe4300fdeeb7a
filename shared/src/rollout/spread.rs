//! Who of several databases is next, and by which agent.

use crate::id::{AgentId, DatabaseName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an agent or a server has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Databases at work.
    pub(super) work: usize,
    /// Looks on their way, or waiting for a place to become free.
    pub(super) looks: usize,
}

/// What agents and servers have to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Loads<'a> {
    pub(super) agents: BTreeMap<&'a AgentId, Load>,
    /// By system identifier.
    pub(super) servers: BTreeMap<i64, Load>,
}

/// What candidates are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be given work; the candidate has been looked at by its agent.
    Lease,
    /// To be looked at.
    Look,
}

/// A database that could be next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Candidate<'a> {
    pub(super) database: &'a DatabaseName,
    /// The server it is on, where that is known.
    pub(super) server: Option<i64>,
    /// Who could do it.
    pub(super) agents: Vec<&'a AgentId>,
}

/// One that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    pub(super) database: DatabaseName,
    pub(super) server: Option<i64>,
    pub(super) agent: AgentId,
}

/// How much may be asked for at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) all: usize,
    pub(super) per_server: usize,
    pub(super) per_agent: usize,
}

impl Load {
    /// Whether one more fits. Looks run ahead of the work by as many as may be at work.
    pub(super) fn has_room(&self, limit: usize, purpose: Purpose) -> bool {
        match purpose {
            Purpose::Lease => self.work < limit,
            Purpose::Look => self.looks < limit,
        }
    }

    fn burden(&self, purpose: Purpose) -> usize {
        match purpose {
            Purpose::Lease => self.work,
            Purpose::Look => self.work + self.looks,
        }
    }

    fn take(&mut self, purpose: Purpose) {
        match purpose {
            Purpose::Lease => {
                self.work += 1;
                self.looks = self.looks.saturating_sub(1);
            }
            Purpose::Look => self.looks += 1,
        }
    }
}

impl<'a> Loads<'a> {
    fn agent(&self, agent: &AgentId) -> Load {
        self.agents.get(agent).copied().unwrap_or_default()
    }

    fn server(&self, server: Option<i64>) -> Load {
        let load = server.and_then(|server| self.servers.get(&server));
        load.copied().unwrap_or_default()
    }

    /// Whether one more fits for an agent and a server.
    pub(super) fn have_room(
        &self,
        agent: &AgentId,
        server: Option<i64>,
        limits: Limits,
        purpose: Purpose,
    ) -> bool {
        self.agent(agent).has_room(limits.per_agent, purpose)
            && self.server(server).has_room(limits.per_server, purpose)
    }

    /// A look is of no use any more: another one is needed.
    pub(super) fn forget_look(&mut self, agent: &AgentId, server: Option<i64>) {
        let agent = self.agents.get_mut(agent);
        let server = server.and_then(|server| self.servers.get_mut(&server));
        for load in agent.into_iter().chain(server) {
            load.looks = load.looks.saturating_sub(1);
        }
    }

    fn take(&mut self, agent: &'a AgentId, server: Option<i64>, purpose: Purpose) {
        self.agents.entry(agent).or_default().take(purpose);
        if let Some(server) = server {
            self.servers.entry(server).or_default().take(purpose);
        }
    }
}

/// Chooses up to `limits.all` candidates, each with one of its agents: always for the agent that has least to do, of
/// its servers the one that has, and of the databases there the first by name.
pub(super) fn spread<'a>(
    candidates: &[Candidate<'a>],
    limits: Limits,
    loads: &mut Loads<'a>,
    purpose: Purpose,
) -> Vec<Choice> {
    let mut queues: BTreeMap<(&AgentId, Option<i64>), VecDeque<&DatabaseName>> = BTreeMap::new();
    for candidate in candidates {
        for agent in &candidate.agents {
            let queue = queues.entry((agent, candidate.server)).or_default();
            queue.push_back(candidate.database);
        }
    }
    let mut chosen = BTreeSet::new();
    let mut choices = Vec::new();
    while choices.len() < limits.all {
        for queue in queues.values_mut() {
            while queue.front().is_some_and(|database| chosen.contains(*database)) {
                queue.pop_front();
            }
        }
        let next = queues
            .iter()
            .filter(|((agent, server), _)| loads.have_room(agent, *server, limits, purpose))
            .filter_map(|((agent, server), queue)| {
                let burdens = (
                    loads.agent(agent).burden(purpose),
                    loads.server(*server).burden(purpose),
                );
                Some((burdens, *queue.front()?, *agent, *server))
            })
            .min();
        let Some((_, database, agent, server)) = next else {
            break;
        };
        loads.take(agent, server, purpose);
        chosen.insert(database);
        choices.push(Choice {
            database: database.clone(),
            server,
            agent: agent.clone(),
        });
    }
    choices
}
