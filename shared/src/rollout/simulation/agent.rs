//! Agents and the databases they serve: what they are told, what they do, and what they say of it.

use super::clock::Clock;
use super::{World, clock};
use crate::id::{AgentId, Digest, Instance};
use crate::retry::Retryability;
use crate::rollout::message::{FromAgent, Hello, Holding, Located, ToAgent};
use crate::rollout::work::{Aim, Finish, Identity, Look, Newer, Order, Summary};
use crate::rollout::{Time, release, sample};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A target database: its fence, and which bundles it has.
#[derive(Default)]
pub(super) struct Target {
    /// The token, and runs without a coordinator since.
    pub(super) fence: (i64, i64),
    pub(super) applied: BTreeSet<Digest>,
    /// Bundles that were taken back.
    pub(super) undone: BTreeSet<Digest>,
    pub(super) held: bool,
}

impl Target {
    pub(super) fn look(&self, bundle: &Digest, aim: &Aim) -> Look {
        let pending = Look::Pending { versions: Vec::new() };
        let up_to_date = Look::UpToDate { ahead: Vec::new() };
        match aim {
            Aim::Apply if self.applied.contains(bundle) => up_to_date,
            Aim::Apply => pending,
            Aim::Undo { .. } if self.applied.contains(bundle) => pending,
            Aim::Undo { .. } if self.undone.contains(bundle) => up_to_date,
            Aim::Undo { .. } => Look::Declined {
                why: "not applied".to_owned(),
            },
        }
    }

    pub(super) fn carry_out(&mut self, order: &Order) {
        match order.aim {
            Aim::Apply => self.applied.insert(order.bundle),
            Aim::Undo { .. } => {
                self.applied.remove(&order.bundle);
                self.undone.insert(order.bundle)
            }
        };
    }
}

/// An agent's process.
pub(super) struct Process {
    pub(super) instance: u128,
    pub(super) lease: Option<i64>,
    /// The stream it has, if any; messages of earlier streams are lost.
    pub(super) stream: Option<u64>,
    pub(super) frozen: bool,
    pub(super) inbox: Vec<ToAgent>,
    pub(super) work: BTreeMap<Holding, Job>,
    pub(super) clock: Clock,
    /// When its lease was renewed last, by its own clock and in truth.
    pub(super) renewed: (Time, Time),
}

impl Process {
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            clock,
            renewed: (Time(0), Time(0)),
            instance: 0,
            lease: None,
            stream: None,
            frozen: false,
            inbox: Vec::new(),
            work: BTreeMap::new(),
        }
    }
}

/// An assignment in an agent.
pub(super) enum Job {
    Working { order: Order, stop: bool },
    Finished(Finish),
}

impl World {
    /// By its own clock an agent knows how long its lease is valid, whoever it can reach; where that clock is slow, the
    /// lease may have ended before.
    pub(super) fn heed_clock(&mut self, id: &AgentId, lives: bool) {
        let agent = self.agents.get_mut(id).unwrap();
        let now = agent.clock.at(self.time);
        let valid = agent.renewed.0.until(now) < clock::VALID;
        if agent.stream.is_some() && lives {
            agent.renewed = (now, self.time);
        }
        for job in agent.work.values_mut() {
            match job {
                Job::Working {
                    stop: stop @ false, ..
                } if !valid => {
                    *stop = true;
                    self.seen.insert("stopped by its own clock");
                }
                Job::Working { stop: false, .. } if !lives => {
                    self.seen.insert("worked beyond its lease");
                }
                Job::Working { .. } | Job::Finished(_) => {}
            }
        }
    }

    /// What an agent does when it gets some time.
    pub(super) fn live(&mut self, id: &AgentId) {
        if self.leader.is_some() && self.agents[id].stream.is_none() && self.random.percent(50) {
            self.greet(id);
        }
        let lease = self.agents[id].lease;
        let lives = self
            .store
            .agents
            .get(id)
            .is_some_and(|agent| Some(agent.lease) == lease);
        self.heed_clock(id, lives);
        let agent = self.agents.get_mut(id).unwrap();
        if agent.stream.is_some() && !lives {
            // The answer to its heartbeat: the lease is gone. It stops and says Hello again.
            agent.lease = None;
            agent.stream = None;
            for job in agent.work.values_mut() {
                if let Job::Working { stop, .. } = job {
                    *stop = true;
                }
            }
        }
        for message in std::mem::take(&mut agent.inbox) {
            self.obey(id, message);
        }
        self.labour(id);
    }

    pub(super) fn greet(&mut self, id: &AgentId) {
        self.streams += 1;
        let stream = self.streams;
        let agent = &self.agents[id];
        let known = self.store.agents.get(id).map(|stored| stored.lease);
        let lease = match agent.lease {
            Some(lease) if known == Some(lease) => lease,
            Some(_) | None => {
                self.store.revision += 1;
                self.store.revision
            }
        };
        let hello = Hello {
            agent: id.clone(),
            instance: Instance(Uuid::from_u128(agent.instance)),
            version: if stream.is_multiple_of(4) {
                "0.0.1"
            } else {
                release::OURS
            }
            .to_owned(),
            databases: self.served[id]
                .iter()
                .map(|name| (name.clone(), BTreeMap::new()))
                .collect(),
            lease: agent.lease,
            held: agent.work.keys().cloned().collect(),
        };
        let changes = self.leader.as_mut().unwrap().attach(&hello, lease, self.now);
        if !self.commit(changes) {
            return;
        }
        let agent = self.agents.get_mut(id).unwrap();
        agent.lease = Some(lease);
        agent.renewed = (agent.clock.at(self.time), self.time);
        agent.stream = Some(stream);
        agent.inbox.clear();
        let located = self.served[id].iter().map(|name| {
            let oid = u32::try_from(self.targets.keys().position(|other| other == name).unwrap()).unwrap();
            Located {
                database: name.clone(),
                identity: Ok(Identity {
                    system: i64::from(oid % 2),
                    database: oid,
                }),
                epoch: None,
            }
        });
        self.posted
            .push((id.clone(), stream, FromAgent::Inventory(located.collect())));
        let finished = agent.work.iter().filter_map(|(of, job)| match job {
            Job::Finished(finish) => Some(FromAgent::Finished {
                of: of.clone(),
                finish: finish.clone(),
            }),
            Job::Working { .. } => None,
        });
        self.posted
            .extend(finished.map(|message| (id.clone(), stream, message)));
    }

    pub(super) fn obey(&mut self, id: &AgentId, message: ToAgent) {
        let agent = self.agents.get_mut(id).unwrap();
        let Some(stream) = agent.stream else { return };
        let answer = match message {
            ToAgent::Look {
                look,
                database,
                bundle,
                aim,
                ..
            } => {
                let target = &self.targets[&database];
                let result = match self.random.below(10) {
                    0 if self.faults => Look::Failed(sample::failure(Retryability::Retry)),
                    _ if target.held && self.faults => Look::Held {
                        by: "someone".to_owned(),
                    },
                    _ => target.look(&bundle, &aim),
                };
                FromAgent::Looked {
                    look,
                    database,
                    result,
                }
            }
            ToAgent::Assign { order, .. } => {
                let of = Holding::of(&order);
                if self.granted_in[&of.token] != self.elections {
                    self.seen.insert("work given by a later leader");
                }
                agent
                    .work
                    .entry(of)
                    .or_insert(Job::Working { order, stop: false });
                return;
            }
            ToAgent::Stop { of, .. } => match agent.work.get_mut(&of) {
                Some(Job::Working { stop, .. }) => {
                    *stop = true;
                    return;
                }
                Some(Job::Finished(finish)) => FromAgent::Finished {
                    of,
                    finish: finish.clone(),
                },
                None => FromAgent::Finished {
                    of,
                    finish: Finish::Stopped(Summary::default()),
                },
            },
            ToAgent::Acknowledged(of) => {
                agent.work.remove(&of);
                return;
            }
            other => panic!("{other:?}"),
        };
        self.posted.push((id.clone(), stream, answer));
    }

    /// Each job takes the fence and, some time, ends.
    pub(super) fn labour(&mut self, id: &AgentId) {
        let agent = self.agents.get_mut(id).unwrap();
        for (of, job) in &mut agent.work {
            let Job::Working { order, stop } = job else {
                continue;
            };
            let target = self.targets.get_mut(&of.database).unwrap();
            let finish = if target.fence > (of.token, 0) {
                Finish::Replaced {
                    by: "a later one".to_owned(),
                    newer: if target.fence.0 > of.token {
                        Newer::Lease
                    } else {
                        Newer::Local
                    },
                    spent: Summary::default(),
                }
            } else {
                target.fence = (of.token, 0);
                match self.random.below(12) {
                    _ if *stop || self.faults && self.random.percent(1) => {
                        Finish::Stopped(Summary::default())
                    }
                    0 if self.faults => {
                        Finish::Failed(sample::failure(Retryability::Retry), Summary::default())
                    }
                    1 if self.faults && self.random.percent(10) => {
                        Finish::Failed(sample::failure(Retryability::GiveUp), Summary::default())
                    }
                    2 if self.faults && self.random.percent(3) => {
                        Finish::Failed(sample::failure(Retryability::StopRollout), Summary::default())
                    }
                    3..=6 => {
                        target.carry_out(order);
                        Finish::Done(Summary::default())
                    }
                    _ => continue,
                }
            };
            *job = Job::Finished(finish.clone());
            if let Some(stream) = agent.stream {
                self.posted.push((
                    id.clone(),
                    stream,
                    FromAgent::Finished {
                        of: of.clone(),
                        finish,
                    },
                ));
            }
        }
    }
}
