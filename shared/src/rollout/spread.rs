//! Who of several databases is next, and by which agent.

use crate::id::{AgentId, DatabaseName};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What an agent has to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Load {
    /// Databases at work.
    pub(super) work: usize,
    /// Looks on their way, or waiting for a place to become free.
    pub(super) looks: usize,
}

/// What candidates are chosen for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be given work; the candidate has been looked at by its agent.
    Lease,
    /// To be looked at.
    Look,
}

/// Chooses up to `free` candidates, each with one of its agents: always the agent that has least to do, and of its
/// databases the first by name.
pub(super) fn spread<'a>(
    candidates: &[(&'a DatabaseName, Vec<&'a AgentId>)],
    free: usize,
    loads: &mut BTreeMap<&'a AgentId, Load>,
    purpose: Purpose,
) -> Vec<(DatabaseName, AgentId)> {
    let mut queues: BTreeMap<&AgentId, VecDeque<&DatabaseName>> = BTreeMap::new();
    for (database, agents) in candidates {
        for agent in agents {
            queues.entry(agent).or_default().push_back(database);
        }
    }
    let mut chosen = BTreeSet::new();
    let mut pairs = Vec::new();
    while pairs.len() < free {
        for queue in queues.values_mut() {
            while queue.front().is_some_and(|database| chosen.contains(*database)) {
                queue.pop_front();
            }
        }
        let burden = |agent: &AgentId| {
            let load = loads.get(agent).copied().unwrap_or_default();
            match purpose {
                Purpose::Lease => load.work,
                Purpose::Look => load.work + load.looks,
            }
        };
        let next = queues
            .iter()
            .filter_map(|(agent, queue)| Some((burden(agent), *queue.front()?, *agent)))
            .min();
        let Some((_, database, agent)) = next else { break };
        let load = loads.entry(agent).or_default();
        match purpose {
            Purpose::Lease => {
                load.work += 1;
                load.looks = load.looks.saturating_sub(1);
            }
            Purpose::Look => load.looks += 1,
        }
        chosen.insert(database);
        pairs.push((database.clone(), agent.clone()));
    }
    pairs
}
