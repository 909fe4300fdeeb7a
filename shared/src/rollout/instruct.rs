//! What agents have to be told so that they know what the state says: looks, work, stops.

use super::assignment::Assignment;
use super::board::{Found, Glance, Told};
use super::book::Book;
use super::decision::{Decision, Halt};
use super::message::{Holding, ToAgent};
use super::time::Time;
use super::work::Order;
use crate::fence::Fence;
use crate::id::{AgentId, Digest, RolloutId};

/// Something to tell an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Whom.
    pub agent: AgentId,
    /// For which rollout.
    pub rollout: RolloutId,
    /// The bundle it must have first.
    pub needs: Option<Digest>,
    /// What.
    pub message: ToAgent,
}

/// Under which authority instructions are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Office {
    /// The leader's term.
    pub term: i64,
    /// The store's epoch.
    pub epoch: i64,
}

impl Book {
    /// What agents have to be told, given what is written. Each is to be told with [`Self::told`] when it was sent;
    /// one that could not be sent comes again.
    pub fn instructions(&self, office: Office, now: Time) -> Vec<Instruction> {
        let mut looks = self.looks;
        let decisions = self.board(now).decide();
        let decided = decisions
            .into_iter()
            .filter_map(|decision| self.instruction(decision, office, &mut looks));
        decided.chain(self.drain_stops(office)).collect()
    }

    fn instruction(&self, decision: Decision, office: Office, looks: &mut u64) -> Option<Instruction> {
        match decision {
            Decision::Look {
                rollout,
                database,
                agent,
            } => {
                let spec = self.rollouts().get(&rollout)?.spec();
                *looks += 1;
                let (bundle, aim) = (spec.bundle, spec.aim.clone());
                let message = ToAgent::Look {
                    term: office.term,
                    look: *looks,
                    database,
                    bundle,
                    aim,
                };
                Some(Instruction {
                    agent,
                    rollout,
                    needs: Some(bundle),
                    message,
                })
            }
            Decision::Assign { agent, holding } => {
                let order = self.order(&holding, office)?;
                let (rollout, needs) = (holding.rollout, Some(order.bundle));
                Some(Instruction {
                    agent,
                    rollout,
                    needs,
                    message: ToAgent::Assign {
                        term: office.term,
                        order,
                    },
                })
            }
            Decision::Stop { agent, holding, why } => {
                let rollout = holding.rollout.clone();
                let reason = match why {
                    Halt::Aborting(why) => why.to_string(),
                    Halt::Paused(pause) => pause.to_string(),
                    Halt::Hours { until } => {
                        format!("the hours for work are over; they begin again {until}")
                    }
                    Halt::Stale => self.why_stale(&agent, &holding),
                };
                let message = ToAgent::Stop {
                    term: office.term,
                    of: holding,
                    reason,
                };
                Some(Instruction {
                    agent,
                    rollout,
                    needs: None,
                    message,
                })
            }
            Decision::Lease { .. }
            | Decision::Lose { .. }
            | Decision::Abandon { .. }
            | Decision::WaveOver { .. }
            | Decision::BeginWave { .. }
            | Decision::LeaveOut { .. }
            | Decision::End { .. } => None,
        }
    }

    /// Why work is not that agent's any more.
    fn why_stale(&self, agent: &AgentId, holding: &Holding) -> String {
        let assignment = self.rollouts().get(&holding.rollout);
        let assignment = assignment.and_then(|rollout| rollout.assignments().get(&holding.database));
        match assignment {
            Some(Assignment::Leasing(work) | Assignment::Running { work, .. }) if work.agent != *agent => {
                format!(
                    "replaced by agent {}, which works on the database now",
                    work.agent
                )
            }
            Some(Assignment::Done { agent: by, .. }) if by != agent => {
                format!("replaced by agent {by}, which has done the work meanwhile")
            }
            Some(
                Assignment::Waiting { .. }
                | Assignment::Leasing(_)
                | Assignment::Running { .. }
                | Assignment::Done { .. }
                | Assignment::Failed { .. }
                | Assignment::Skipped { .. }
                | Assignment::Aborted { .. },
            )
            | None => "the lease it was given for has ended".to_owned(),
        }
    }

    fn order(&self, holding: &Holding, office: Office) -> Option<Order> {
        let rollout = self.rollouts().get(&holding.rollout)?;
        let work = rollout.assignments().get(&holding.database)?.work()?;
        Some(Order {
            rollout: holding.rollout.clone(),
            database: holding.database.clone(),
            bundle: rollout.spec().bundle,
            aim: rollout.spec().aim.clone(),
            fence: Fence::of_lease(office.epoch, holding.token),
            holder: work.holder,
            attempt: work.attempt(),
            canary: rollout.is_canary(&holding.database),
            strategies: rollout.spec().policy.strategies.clone(),
            trace: Some(rollout.spec().place_of(&holding.database)),
        })
    }

    /// The instruction was sent.
    pub fn told(&mut self, instruction: &Instruction, now: Time) {
        let agent = &instruction.agent;
        let order = match &instruction.message {
            ToAgent::Look { look, database, .. } => {
                self.looks = self.looks.max(*look);
                let (rollout, agent, found) =
                    (instruction.rollout.clone(), agent.clone(), Found::Asked(*look));
                self.glances.insert(
                    database.clone(),
                    Glance {
                        rollout,
                        agent,
                        at: now,
                        found,
                    },
                );
                return;
            }
            ToAgent::Assign { order, .. } => (Holding::of(order), Told::Work),
            ToAgent::Stop { of, .. } => (of.clone(), Told::Stop),
            ToAgent::Welcome(_)
            | ToAgent::Redirect { .. }
            | ToAgent::HeartbeatAnswer { .. }
            | ToAgent::Bundle { .. }
            | ToAgent::Inquire { .. }
            | ToAgent::Acknowledged(_)
            | ToAgent::Goodbye { .. } => return,
        };
        if let Some(link) = self.links.get_mut(agent) {
            link.orders.insert(order.0, order.1);
        }
    }
}
