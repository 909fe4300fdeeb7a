//! Who of several databases is next, and by which agent.

use crate::id::{AgentId, DatabaseName};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

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

/// The databases of each server that one agent could take, in order of their names.
#[derive(Default)]
struct Queues<'a> {
    databases: BTreeMap<Option<i64>, VecDeque<&'a DatabaseName>>,
    /// The servers, as they were when last looked at: burdens grow and names go on meanwhile, and never the other way.
    servers: BinaryHeap<Reverse<Front<'a>>>,
}

/// A server's burden, its first database, and which it is.
type Front<'a> = (usize, &'a DatabaseName, Option<i64>);

impl<'a> Queues<'a> {
    fn push(&mut self, server: Option<i64>, database: &'a DatabaseName) {
        let queue = self.databases.entry(server).or_default();
        if queue.is_empty() {
            self.servers.push(Reverse((0, database, server)));
        }
        queue.push_back(database);
    }

    /// The server that has least to do, as `front` says of a server and its databases; those without one are dropped.
    fn least(
        &mut self,
        front: impl Fn(Option<i64>, &mut VecDeque<&'a DatabaseName>) -> Option<Front<'a>>,
    ) -> Option<Front<'a>> {
        loop {
            let Reverse(seen) = *self.servers.peek()?;
            let (_, _, server) = seen;
            let now = self
                .databases
                .get_mut(&server)
                .and_then(|queue| front(server, queue));
            if now == Some(seen) {
                return now;
            }
            self.servers.pop();
            self.servers.extend(now.map(Reverse));
        }
    }
}

/// Chooses up to `limits.all` candidates, which come in order of their names, each with one of its agents: always for
/// the agent that has least to do, of its servers the one that has, and of the databases there the first by name.
///
/// Burdens only grow while it chooses. So what was the least and still is as it was is the least of all now, and the
/// others need not be looked at.
pub(super) fn spread<'a>(
    candidates: &[Candidate<'a>],
    limits: Limits,
    loads: &mut Loads<'a>,
    purpose: Purpose,
) -> Vec<Choice> {
    let mut queues: BTreeMap<&AgentId, Queues<'a>> = BTreeMap::new();
    for candidate in candidates {
        for agent in &candidate.agents {
            let queues = queues.entry(agent).or_default();
            queues.push(candidate.server, candidate.database);
        }
    }
    let mut agents: BinaryHeap<_> = (queues.iter())
        .filter_map(|(agent, queues)| Some((queues.servers.peek()?.0, *agent)))
        .map(|(front, agent)| Reverse((0, front, agent)))
        .collect();
    let mut chosen = BTreeSet::new();
    let mut choices = Vec::new();
    while choices.len() < limits.all {
        let Some(Reverse(seen)) = agents.pop() else {
            break;
        };
        let (_, (_, database, server), agent) = seen;
        let load = loads.agent(agent);
        let front = |server, queue: &mut VecDeque<&'a DatabaseName>| {
            while queue.front().is_some_and(|database| chosen.contains(*database)) {
                queue.pop_front();
            }
            let load = loads.server(server);
            let has_room = load.has_room(limits.per_server, purpose);
            let database = queue.front().filter(|_| has_room)?;
            Some((load.burden(purpose), *database, server))
        };
        let front = queues
            .get_mut(agent)
            .filter(|_| load.has_room(limits.per_agent, purpose))
            .and_then(|queues| queues.least(front));
        let now = front.map(|front| (load.burden(purpose), front, agent));
        if now == Some(seen) {
            loads.take(agent, server, purpose);
            chosen.insert(database);
            choices.push(Choice {
                database: database.clone(),
                server,
                agent: agent.clone(),
            });
        }
        agents.extend(now.map(Reverse));
    }
    choices
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same, as its first sentence says it: all candidates are looked at for each choice.
    fn by_definition<'a>(
        candidates: &[Candidate<'a>],
        limits: Limits,
        loads: &mut Loads<'a>,
        purpose: Purpose,
    ) -> Vec<Choice> {
        let mut choices: Vec<Choice> = Vec::new();
        while choices.len() < limits.all {
            let left = (candidates.iter()).filter(|candidate| {
                choices
                    .iter()
                    .all(|choice| choice.database != *candidate.database)
            });
            let pairs =
                left.flat_map(|candidate| candidate.agents.iter().map(move |agent| (candidate, *agent)));
            let fitting =
                pairs.filter(|(candidate, agent)| loads.have_room(agent, candidate.server, limits, purpose));
            let next = fitting.min_by_key(|(candidate, agent)| {
                let agent_has = loads.agent(agent).burden(purpose);
                let server_has = loads.server(candidate.server).burden(purpose);
                (agent_has, server_has, candidate.database, *agent)
            });
            let Some((candidate, agent)) = next else { break };
            loads.take(agent, candidate.server, purpose);
            choices.push(Choice {
                database: candidate.database.clone(),
                server: candidate.server,
                agent: agent.clone(),
            });
        }
        choices
    }

    /// How many agents and servers there are.
    const AGENTS: usize = 4;
    const SERVERS: i64 = 4;

    fn limit() -> impl Strategy<Value = usize> {
        prop_oneof![1..6_usize, Just(usize::MAX)]
    }

    fn load() -> impl Strategy<Value = Load> {
        (0..4_usize, 0..4_usize).prop_map(|(work, looks)| Load { work, looks })
    }

    proptest! {
        #[test]
        fn who_is_next_is_found_without_looking_at_all(
            databases in prop::collection::vec(
                (prop::option::of(0..SERVERS), prop::sample::subsequence((0..AGENTS).collect::<Vec<_>>(), 1..=AGENTS)),
                0..40,
            ),
            agent_loads in prop::collection::vec(load(), AGENTS),
            server_loads in prop::collection::btree_map(0..SERVERS, load(), 0..4),
            (all, per_server, per_agent) in (0..40_usize, limit(), limit()),
            purpose in prop_oneof![Just(Purpose::Lease), Just(Purpose::Look)],
        ) {
            let agents: Vec<AgentId> = (0..AGENTS).map(|n| AgentId::try_from(format!("agent-{n}")).unwrap()).collect();
            let names: Vec<DatabaseName> =
                (0..databases.len()).map(|n| DatabaseName::try_from(format!("db-{n:02}")).unwrap()).collect();
            let candidates: Vec<Candidate<'_>> = names
                .iter()
                .zip(&databases)
                .map(|(database, (server, serving))| Candidate {
                    database,
                    server: *server,
                    agents: serving.iter().map(|agent| &agents[*agent]).collect(),
                })
                .collect();
            let limits = Limits { all, per_server, per_agent };
            let mut loads = Loads { agents: agents.iter().zip(agent_loads).collect(), servers: server_loads };
            let mut expected_loads = loads.clone();
            let expected = by_definition(&candidates, limits, &mut expected_loads, purpose);
            prop_assert_eq!(spread(&candidates, limits, &mut loads, purpose), expected);
            prop_assert_eq!(loads, expected_loads);
        }
    }
}
