//! Agents that get no new work until they are undrained, like a drained node of Kubernetes.
//!
//! A drain outlives the agent's process and the leader's; looks and leases go to other agents that serve the same
//! databases, and a database that only drained agents serve says so. What is at work goes on to its end, or stops at its
//! next safe point so that another agent continues it.

use super::board::Told;
use super::book::{Book, Change};
use super::instruct::{Instruction, Office};
use super::message::ToAgent;
use super::time::Time;
use crate::id::AgentId;
use crate::yaml;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// How many names a message lists.
const LISTED: usize = 10;

/// No new work for an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Who asked for it first.
    pub by: String,
    /// Why, in their words; may be empty.
    pub reason: String,
    /// When.
    pub at: Time,
    /// What becomes of work in progress.
    pub running: Running,
}

/// What becomes of the work of a drained agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Running {
    /// It goes on to its end.
    Finishes,
    /// It stops at its next safe point, between two batches or steps; another agent goes on from there.
    Stops,
}

/// Whether there was something to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is changed.
    Changed,
    /// It was so already.
    AlreadySo,
}

/// Nobody knows an agent of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no agent `{given}`: {advice}")]
pub struct Unknown {
    /// What was given.
    pub given: AgentId,
    /// The name it was probably meant to be, or those there are.
    pub advice: String,
}

impl Book {
    /// Drains an agent. One that is drained stays as it was, unless its work is to stop now and was not before.
    ///
    /// # Errors
    /// When no such agent was ever heard of.
    pub fn drain(&mut self, agent: &AgentId, drain: Drain) -> Result<(Outcome, Vec<Change>), Unknown> {
        self.check_known(agent)?;
        let before = self.fleet().drains().get(agent).map(|drain| drain.running);
        match (before, drain.running) {
            (Some(Running::Finishes), Running::Finishes) | (Some(Running::Stops), _) => {
                Ok((Outcome::AlreadySo, Vec::new()))
            }
            (None, _) | (Some(Running::Finishes), Running::Stops) => {
                // Nothing is leased on what a drained agent has seen.
                self.forget_looks(agent);
                Ok((Outcome::Changed, self.set_drain(agent, Some(drain))))
            }
        }
    }

    /// Gives an agent work again.
    ///
    /// # Errors
    /// When no such agent was ever heard of.
    pub fn undrain(&mut self, agent: &AgentId) -> Result<(Outcome, Vec<Change>), Unknown> {
        self.check_known(agent)?;
        if self.fleet().drains().contains_key(agent) {
            Ok((Outcome::Changed, self.set_drain(agent, None)))
        } else {
            Ok((Outcome::AlreadySo, Vec::new()))
        }
    }

    fn set_drain(&mut self, agent: &AgentId, drain: Option<Drain>) -> Vec<Change> {
        Arc::make_mut(&mut self.fleet).set_drain(agent.clone(), drain);
        vec![Change::Drain(agent.clone())]
    }

    fn check_known(&self, agent: &AgentId) -> Result<(), Unknown> {
        let known = self.fleet().known_agents();
        if known.contains(agent) {
            return Ok(());
        }
        let names = || known.iter().map(|known| known.as_str());
        let advice = if known.is_empty() {
            "no agent has connected yet".to_owned()
        } else if let Some(near) = yaml::nearest(agent.as_str(), names()) {
            format!("did you mean `{near}`?")
        } else {
            let more = if known.len() > LISTED { ", .." } else { "" };
            let listed: Vec<_> = names().take(LISTED).collect();
            format!("known are {}{more}", listed.join(", "))
        };
        Err(Unknown {
            given: agent.clone(),
            advice,
        })
    }

    /// Stops for agents whose work is not to go on, and that do not know it yet.
    pub(super) fn drain_stops(&self, office: Office) -> Vec<Instruction> {
        let mut stops = Vec::new();
        for (agent, drain) in self.fleet().drains() {
            let orders = match drain.running {
                Running::Finishes => continue,
                Running::Stops => self.links.get(agent).into_iter().flat_map(|link| &link.orders),
            };
            for (holding, told) in orders {
                // What is not its work any more is stopped anyway.
                if *told == Told::Work && self.is_at_work(agent, holding) {
                    stops.push(Instruction {
                        agent: agent.clone(),
                        rollout: holding.rollout.clone(),
                        needs: None,
                        message: ToAgent::Stop {
                            term: office.term,
                            of: holding.clone(),
                            reason: format!("the agent is drained by {}: {}", drain.by, drain.reason),
                        },
                    });
                }
            }
        }
        stops
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::fleet::Fleet;
    use crate::rollout::sample::{agent, hello};
    use std::collections::BTreeMap;

    fn book(agents: &[&str]) -> Book {
        let mut book = Book::default();
        for (name, lease) in agents.iter().zip(1..) {
            book.attach(&hello(name, ["a"]), lease, Time(0));
        }
        book
    }

    fn drain(by: &str, running: Running) -> Drain {
        Drain {
            by: by.to_owned(),
            reason: "a new host".to_owned(),
            at: Time(1),
            running,
        }
    }

    fn drained_by(book: &Book, name: &str) -> Option<String> {
        book.fleet()
            .drains()
            .get(&agent(name))
            .map(|drain| drain.by.clone())
    }

    #[test]
    fn draining_again_keeps_the_first_record_unless_work_is_to_stop_now() {
        let mut book = book(&["x"]);
        let mut ask = |by, running| book.drain(&agent("x"), drain(by, running)).unwrap().0;
        assert_eq!(ask("ada", Running::Finishes), Outcome::Changed);
        assert_eq!(ask("bob", Running::Finishes), Outcome::AlreadySo);
        assert_eq!(ask("cy", Running::Stops), Outcome::Changed);
        assert_eq!(ask("dee", Running::Finishes), Outcome::AlreadySo);
        assert_eq!(drained_by(&book, "x").as_deref(), Some("cy"));
    }

    #[test]
    fn an_agent_that_is_away_can_be_drained_and_undrained() {
        let mut book = book(&["x"]);
        book.detach(&agent("x"), Time(0));
        book.leases(&BTreeMap::new());
        assert_eq!(
            book.drain(&agent("x"), drain("ada", Running::Finishes))
                .unwrap()
                .1,
            [Change::Drain(agent("x"))]
        );
        assert_eq!(
            book.undrain(&agent("x")).unwrap(),
            (Outcome::Changed, vec![Change::Drain(agent("x"))])
        );
        assert_eq!(
            book.undrain(&agent("x")).unwrap(),
            (Outcome::AlreadySo, Vec::new())
        );
        assert_eq!(drained_by(&book, "x"), None);
    }

    #[test]
    fn an_unknown_agent_is_answered_with_the_name_that_was_meant() {
        let mut book = book(&["agent-a", "agent-b"]);
        let unknown = book.undrain(&agent("agent-aa")).unwrap_err();
        assert!(
            unknown.to_string().ends_with("did you mean `agent-a`?"),
            "{unknown}"
        );
        let unknown = book
            .drain(&agent("zebra"), drain("ada", Running::Stops))
            .unwrap_err();
        assert!(
            unknown.to_string().ends_with("known are agent-a, agent-b"),
            "{unknown}"
        );
    }

    #[test]
    fn a_drain_is_there_after_a_restart_though_the_agent_is_not() {
        let drains = BTreeMap::from([(agent("x"), drain("ada", Running::Finishes))]);
        let fleet = Fleet::restored(BTreeMap::new(), BTreeMap::new()).with_drains(drains);
        let mut book = Book::restored([], fleet);
        assert_eq!(book.show_agents().len(), 1);
        assert_eq!(book.undrain(&agent("x")).unwrap().0, Outcome::Changed);
    }
}
