//! The databases and agents there are, as the agents tell it, and where what they tell does not fit together.
//!
//! Every agent claims the databases it serves: their labels and, once it could ask, where they are. A claim counts
//! while its agent's lease lives. Two claims conflict when one name stands for two databases, or two names for one;
//! then neither is worked on, since "each database once" could not be kept.

use super::drain::Drain;
use super::forget::Forgotten;
use super::message::{Hello, Located};
use super::time::Time;
use super::work::Identity;
use crate::id::{AgentId, DatabaseName, Instance};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Claims of agents without a lease that a database keeps: who served it last is worth showing, but agents whose names
/// are made anew with each start must not pile up in its record.
const KEPT_CLAIMS: usize = 4;

/// The most agents that can serve one database, so that its record stays within the store's limits.
pub const MOST_CLAIMS: usize = 12;

/// Problems of a claim are kept up to this size.
const PROBLEM_BYTES: usize = 1024;

/// The longest labels of one claim, all names and values together.
pub const MOST_LABEL_BYTES: usize = 3 * 1024;

/// All agents with a lease, and all databases that any agent ever claimed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fleet {
    agents: BTreeMap<AgentId, Agent>,
    databases: BTreeMap<DatabaseName, Database>,
    /// Agents that get no new work, with a lease or without.
    drains: BTreeMap<AgentId, Drain>,
    /// Agents that have said goodbye and not come back.
    goodbyes: BTreeSet<AgentId>,
    /// Databases that were taken out of the inventory, and have not come back.
    forgotten: BTreeMap<DatabaseName, Forgotten>,
    /// Derived from the other two, on every change of them.
    conflicts: BTreeMap<DatabaseName, Conflict>,
}

/// An agent with a living lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// One life of its process.
    pub instance: Instance,
    /// Its lease.
    pub lease: i64,
    /// The version of its program.
    pub version: String,
    /// Since when it has this lease.
    pub connected_at: Time,
}

/// What is known of one database.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Who serves it, and what each says about it.
    pub claims: BTreeMap<AgentId, Claim>,
}

/// What one agent says about a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The labels in the agent's settings.
    pub labels: BTreeMap<String, String>,
    /// Where it is.
    pub place: Place,
    /// Epoch of the fence in force there, when it could be asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
}

/// Where a database is, as far as an agent knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The agent has not asked yet.
    Unasked,
    /// There.
    Known(Identity),
    /// It could not be asked.
    Unreachable {
        /// Why, for people.
        problem: String,
        /// Where it was when it could be asked last.
        last: Option<Identity>,
    },
}

/// Why a database must not be worked on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Conflict {
    /// Two names for one database.
    Names {
        /// The other name.
        other: DatabaseName,
        /// Who serves it under the other name.
        other_agent: AgentId,
        /// Who serves it under this name.
        agent: AgentId,
        /// Where it is.
        identity: Identity,
    },
    /// One name for two databases.
    Identities {
        /// One agent and where it sees the database.
        one: (AgentId, Identity),
        /// Another agent, which sees it elsewhere.
        other: (AgentId, Identity),
    },
}

impl fmt::Display for Conflict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names {
                other,
                other_agent,
                agent,
                identity,
            } => write!(
                f,
                "agent {agent} serves under this name the database that agent {other_agent} serves as {other} \
                 ({identity}): give one database one name in the agents' settings"
            ),
            Self::Identities { one, other } => write!(
                f,
                "agents {} and {} serve different databases under this name ({} and {}): \
                 give each database a name of its own in the agents' settings",
                one.0, other.0, one.1, other.1
            ),
        }
    }
}

impl Claim {
    /// Where the database is, or was when it could be asked last.
    pub fn identity(&self) -> Option<Identity> {
        match &self.place {
            Place::Unasked => None,
            Place::Known(identity) => Some(*identity),
            Place::Unreachable { last, .. } => *last,
        }
    }
}

impl Database {
    /// The labels selectors choose by: those of all claims together; where two agents give one label different
    /// values, that of the agent whose name sorts first counts, so that the answer never depends on who came last.
    pub fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        for claim in self.claims.values() {
            for (label, value) in &claim.labels {
                labels.entry(label.clone()).or_insert_with(|| value.clone());
            }
        }
        labels
    }
}

impl Fleet {
    /// The fleet as it was stored.
    pub fn restored(agents: BTreeMap<AgentId, Agent>, databases: BTreeMap<DatabaseName, Database>) -> Self {
        let mut fleet = Self {
            agents,
            databases,
            drains: BTreeMap::new(),
            goodbyes: BTreeSet::new(),
            forgotten: BTreeMap::new(),
            conflicts: BTreeMap::new(),
        };
        fleet.find_conflicts();
        fleet
    }

    /// With the drains as they were stored.
    #[must_use]
    pub fn with_drains(self, drains: BTreeMap<AgentId, Drain>) -> Self {
        Self { drains, ..self }
    }

    /// With the goodbyes as they were stored.
    #[must_use]
    pub fn with_goodbyes(self, goodbyes: BTreeSet<AgentId>) -> Self {
        Self { goodbyes, ..self }
    }

    /// With the databases that were taken out of the inventory, as stored.
    #[must_use]
    pub fn with_forgotten(self, forgotten: BTreeMap<DatabaseName, Forgotten>) -> Self {
        Self { forgotten, ..self }
    }

    /// Agents with a living lease.
    pub fn agents(&self) -> &BTreeMap<AgentId, Agent> {
        &self.agents
    }

    /// Agents that get no new work; also such as have no lease now.
    pub fn drains(&self) -> &BTreeMap<AgentId, Drain> {
        &self.drains
    }

    /// Databases that were taken out of the inventory, and have not come back.
    pub fn forgotten(&self) -> &BTreeMap<DatabaseName, Forgotten> {
        &self.forgotten
    }

    /// Takes a database out of the inventory.
    pub(super) fn forget(&mut self, database: &DatabaseName, forgotten: Forgotten) {
        if self.databases.remove(database).is_some() {
            self.forgotten.insert(database.clone(), forgotten);
            self.find_conflicts();
        }
    }

    /// Forgotten databases that an agent serves again are as any other. Which.
    pub(super) fn remember(&mut self, hello: &Hello) -> Vec<DatabaseName> {
        let back = self
            .forgotten
            .extract_if(.., |name, _| hello.databases.contains_key(name));
        back.map(|(name, _)| name).collect()
    }

    /// Drains an agent, or ends that.
    pub(super) fn set_drain(&mut self, agent: AgentId, drain: Option<Drain>) {
        match drain {
            Some(drain) => self.drains.insert(agent, drain),
            None => self.drains.remove(&agent),
        };
    }

    /// Agents that have said goodbye and not come back.
    pub fn goodbyes(&self) -> &BTreeSet<AgentId> {
        &self.goodbyes
    }

    /// An agent says goodbye. Whose goodbye is another than before: its own, and those of agents that nobody knows any
    /// more.
    pub(super) fn say_goodbye(&mut self, agent: &AgentId) -> Vec<AgentId> {
        let known = self.known_agents();
        let forgotten = |said: &&AgentId| !known.contains(*said);
        let mut changed: Vec<AgentId> = self.goodbyes.iter().filter(forgotten).cloned().collect();
        let is_known = known.contains(agent);
        for forgotten in &changed {
            self.goodbyes.remove(forgotten);
        }
        if is_known && self.goodbyes.insert(agent.clone()) {
            changed.push(agent.clone());
        }
        changed
    }

    /// It is back. Whether it had said goodbye.
    pub(super) fn take_back_goodbye(&mut self, agent: &AgentId) -> bool {
        self.goodbyes.remove(agent)
    }

    /// All agents with a lease, with a claim, or drained.
    pub fn known_agents(&self) -> BTreeSet<&AgentId> {
        let claimed = self
            .databases
            .values()
            .flat_map(|database| database.claims.keys());
        self.agents
            .keys()
            .chain(self.drains.keys())
            .chain(claimed)
            .collect()
    }

    /// Databases that are or were claimed.
    pub fn databases(&self) -> &BTreeMap<DatabaseName, Database> {
        &self.databases
    }

    /// Why a database must not be worked on.
    pub fn conflict(&self, database: &DatabaseName) -> Option<&Conflict> {
        self.conflicts.get(database)
    }

    /// Agents with a living lease that serve a database, with what they say about it.
    pub fn claims<'a>(&'a self, database: &DatabaseName) -> impl Iterator<Item = (&'a AgentId, &'a Claim)> {
        let claims = self.databases.get(database).map(|database| &database.claims);
        claims
            .into_iter()
            .flatten()
            .filter(|(agent, _)| self.agents.contains_key(*agent))
    }

    /// The server a database is on, or was when it could be asked last: its system identifier.
    pub fn server(&self, database: &DatabaseName) -> Option<i64> {
        let claims = &self.databases.get(database)?.claims;
        let living = claims
            .iter()
            .filter(|(agent, _)| self.agents.contains_key(*agent));
        living
            .chain(claims)
            .find_map(|(_, claim)| claim.identity())
            .map(|identity| identity.system)
    }

    /// The largest epoch of a fence that any agent ever reported, and the databases of which none is known because they
    /// could not be asked.
    pub fn epochs(&self) -> (Option<i64>, Vec<DatabaseName>) {
        let claims = || {
            self.databases
                .values()
                .flat_map(|database| database.claims.values())
        };
        let unasked = self.databases.iter().filter(|(_, database)| {
            let known = |claim: &Claim| matches!(claim.place, Place::Known(_)) || claim.epoch.is_some();
            !database.claims.values().any(known)
        });
        (
            claims().filter_map(|claim| claim.epoch).max(),
            unasked.map(|(name, _)| name.clone()).collect(),
        )
    }

    /// An agent said Hello and has a lease. The databases whose record changed.
    pub fn welcome(&mut self, hello: &Hello, lease: i64, now: Time) -> BTreeSet<DatabaseName> {
        let connected_at = match self.agents.get(&hello.agent) {
            Some(agent) if agent.lease == lease => agent.connected_at,
            Some(_) | None => now,
        };
        let agent = Agent {
            instance: hello.instance,
            lease,
            version: hello.version.clone(),
            connected_at,
        };
        self.agents.insert(hello.agent.clone(), agent);

        let mut changed = BTreeSet::new();
        for (name, database) in &mut self.databases {
            if !hello.databases.contains_key(name) && database.claims.remove(&hello.agent).is_some() {
                changed.insert(name.clone());
            }
        }
        for (name, labels) in &hello.databases {
            let claims = &mut self.databases.entry(name.clone()).or_default().claims;
            let before = claims.get(&hello.agent);
            if before.is_some_and(|claim| claim.labels == *labels) {
                continue;
            }
            // What an earlier life of the agent knew is taken for true until this one has asked.
            let place = before.map_or(Place::Unasked, |claim| claim.place.clone());
            let epoch = before.and_then(|claim| claim.epoch);
            if before.is_none() && !make_room(claims, &self.agents) {
                continue;
            }
            claims.insert(
                hello.agent.clone(),
                Claim {
                    labels: labels.clone(),
                    place,
                    epoch,
                },
            );
            changed.insert(name.clone());
        }
        self.find_conflicts();
        changed
    }

    /// An agent has asked its databases. Those whose record changed.
    pub fn locate(&mut self, agent: &AgentId, located: Vec<Located>) -> BTreeSet<DatabaseName> {
        let mut changed = BTreeSet::new();
        for Located {
            database,
            identity,
            epoch,
        } in located
        {
            let Some(claim) = self
                .databases
                .get_mut(&database)
                .and_then(|d| d.claims.get_mut(agent))
            else {
                continue;
            };
            let place = match identity {
                Ok(identity) => Place::Known(identity),
                Err(problem) => {
                    let problem = super::assignment::clipped_to(PROBLEM_BYTES, problem);
                    Place::Unreachable {
                        problem,
                        last: claim.identity(),
                    }
                }
            };
            let epoch = epoch.or(claim.epoch);
            if (&claim.place, claim.epoch) != (&place, epoch) {
                (claim.place, claim.epoch) = (place, epoch);
                changed.insert(database);
            }
        }
        if !changed.is_empty() {
            self.find_conflicts();
        }
        changed
    }

    /// Only these agents have a lease, and this one.
    pub fn retain(&mut self, leases: &BTreeMap<AgentId, i64>) {
        let before = self.agents.len();
        self.agents
            .retain(|id, agent| leases.get(id) == Some(&agent.lease));
        if self.agents.len() != before {
            self.find_conflicts();
        }
    }

    fn find_conflicts(&mut self) {
        let mut conflicts = BTreeMap::new();
        let mut seen: BTreeMap<Identity, (&DatabaseName, &AgentId)> = BTreeMap::new();
        for name in self.databases.keys() {
            let mut first: Option<(&AgentId, Identity)> = None;
            for (agent, claim) in self.claims(name) {
                let Some(identity) = claim.identity() else {
                    continue;
                };
                match first {
                    Some(one) if one.1 != identity => {
                        let one = (one.0.clone(), one.1);
                        let conflict = Conflict::Identities {
                            one,
                            other: (agent.clone(), identity),
                        };
                        conflicts.insert(name.clone(), conflict);
                    }
                    Some(_) => {}
                    None => first = Some((agent, identity)),
                }
                match seen.get(&identity) {
                    Some((other, other_agent)) if *other != name => {
                        let conflict =
                            |agent: &AgentId, other: &DatabaseName, other_agent: &AgentId| Conflict::Names {
                                other: other.clone(),
                                other_agent: other_agent.clone(),
                                agent: agent.clone(),
                                identity,
                            };
                        conflicts
                            .entry(name.clone())
                            .or_insert_with(|| conflict(agent, other, other_agent));
                        conflicts
                            .entry((*other).clone())
                            .or_insert_with(|| conflict(other_agent, name, agent));
                    }
                    Some(_) => {}
                    None => {
                        seen.insert(identity, (name, agent));
                    }
                }
            }
        }
        self.conflicts = conflicts;
    }
}

/// Drops claims of agents without a lease that are too many; whether there is room for one more then.
fn make_room(claims: &mut BTreeMap<AgentId, Claim>, agents: &BTreeMap<AgentId, Agent>) -> bool {
    let gone: Vec<_> = claims
        .keys()
        .filter(|agent| !agents.contains_key(*agent))
        .cloned()
        .collect();
    let keep = KEPT_CLAIMS.min(MOST_CLAIMS.saturating_sub(claims.len() - gone.len() + 1));
    for agent in gone.iter().take(gone.len().saturating_sub(keep)) {
        claims.remove(agent);
    }
    claims.len() < MOST_CLAIMS
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn agent(name: &str) -> AgentId {
        AgentId::try_from(name).unwrap()
    }

    fn database(name: &str) -> DatabaseName {
        DatabaseName::try_from(name).unwrap()
    }

    fn hello(name: &str, databases: &[&str]) -> Hello {
        let labels = BTreeMap::from([("agent".to_owned(), name.to_owned())]);
        Hello {
            agent: agent(name),
            instance: Instance(Uuid::from_u128(1)),
            version: String::new(),
            databases: databases
                .iter()
                .map(|name| (database(name), labels.clone()))
                .collect(),
            lease: None,
            held: Vec::new(),
        }
    }

    fn at(name: &str, oid: u32) -> Located {
        Located {
            database: database(name),
            identity: Ok(Identity {
                system: 1,
                database: oid,
            }),
            epoch: None,
        }
    }

    #[test]
    fn two_names_for_one_database_block_both() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["orders"]), 1, Time(0));
        fleet.welcome(&hello("b", &["sales"]), 2, Time(0));
        fleet.locate(&agent("a"), vec![at("orders", 5)]);
        assert_eq!(fleet.conflict(&database("orders")), None);
        fleet.locate(&agent("b"), vec![at("sales", 5)]);
        let text = fleet.conflict(&database("orders")).unwrap().to_string();
        assert!(
            text.contains("agent a") && text.contains("agent b") && text.contains("sales"),
            "{text}"
        );
        let text = fleet.conflict(&database("sales")).unwrap().to_string();
        assert!(
            text.contains("agent a") && text.contains("agent b") && text.contains("orders"),
            "{text}"
        );
    }

    #[test]
    fn one_name_for_two_databases_is_blocked_while_both_agents_live() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["orders"]), 1, Time(0));
        fleet.welcome(&hello("b", &["orders"]), 2, Time(0));
        fleet.locate(&agent("a"), vec![at("orders", 5)]);
        fleet.locate(&agent("b"), vec![at("orders", 6)]);
        assert!(matches!(
            fleet.conflict(&database("orders")),
            Some(Conflict::Identities { .. })
        ));
        fleet.retain(&BTreeMap::from([(agent("a"), 1)]));
        assert_eq!(fleet.conflict(&database("orders")), None);
    }

    #[test]
    fn two_agents_of_one_database_agree() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["orders"]), 1, Time(0));
        fleet.welcome(&hello("b", &["orders"]), 2, Time(0));
        fleet.locate(&agent("a"), vec![at("orders", 5)]);
        fleet.locate(&agent("b"), vec![at("orders", 5)]);
        assert_eq!(fleet.conflict(&database("orders")), None);
        assert_eq!(fleet.claims(&database("orders")).count(), 2);
        let labels = fleet.databases()[&database("orders")].labels();
        assert_eq!(labels["agent"], "a", "the first agent by name decides");
    }

    #[test]
    fn only_what_changed_is_to_be_written() {
        let mut fleet = Fleet::default();
        assert_eq!(fleet.welcome(&hello("a", &["x", "y"]), 1, Time(0)).len(), 2);
        assert!(fleet.welcome(&hello("a", &["x", "y"]), 2, Time(0)).is_empty());
        assert_eq!(
            fleet.locate(&agent("a"), vec![at("x", 5)]),
            BTreeSet::from([database("x")])
        );
        assert!(fleet.locate(&agent("a"), vec![at("x", 5)]).is_empty());
        assert_eq!(
            fleet.welcome(&hello("a", &["x"]), 2, Time(0)),
            BTreeSet::from([database("y")])
        );
    }

    #[test]
    fn a_database_that_is_down_keeps_the_place_it_had() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["x"]), 1, Time(0));
        fleet.locate(&agent("a"), vec![at("x", 5)]);
        fleet.locate(
            &agent("a"),
            vec![Located {
                database: database("x"),
                identity: Err("down".to_owned()),
                epoch: None,
            }],
        );
        let (_, claim) = fleet.claims(&database("x")).next().unwrap();
        assert_eq!(
            claim.identity(),
            Some(Identity {
                system: 1,
                database: 5
            })
        );
    }

    #[test]
    fn what_an_agent_says_of_a_database_that_it_does_not_serve_is_ignored() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["x"]), 1, Time(0));
        assert!(fleet.locate(&agent("b"), vec![at("x", 5), at("z", 6)]).is_empty());
    }

    #[test]
    fn an_earlier_lease_of_the_same_agent_does_not_count() {
        let mut fleet = Fleet::default();
        fleet.welcome(&hello("a", &["x"]), 2, Time(0));
        fleet.retain(&BTreeMap::from([(agent("a"), 1)]));
        assert!(fleet.agents().is_empty());
    }

    #[test]
    fn agents_with_ever_new_names_do_not_pile_up() {
        let mut fleet = Fleet::default();
        for n in 0..100 {
            fleet.welcome(&hello(&format!("pod-{n}"), &["x"]), n, Time(0));
            fleet.retain(&BTreeMap::new());
        }
        assert!(fleet.databases()[&database("x")].claims.len() <= KEPT_CLAIMS + 1);
        let mut alive = Fleet::default();
        for n in 0..100 {
            alive.welcome(&hello(&format!("pod-{n}"), &["x"]), n, Time(0));
        }
        assert_eq!(alive.databases()[&database("x")].claims.len(), MOST_CLAIMS);
    }
}
