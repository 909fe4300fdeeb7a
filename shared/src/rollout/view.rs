//! Rollouts and the fleet as people and programs read them: flat, with every reason as text.
//!
//! Made by the coordinator from its state, carried by `proto`, printed by the command line.

use super::control::Action;
use super::drain::Drain;
use super::policy::Policy;
use super::selector::Selector;
use super::time::Time;
use super::work::{Identity, Progress, Summary};
use crate::id::{AgentId, DatabaseName, Digest, RolloutId, SetName};
use crate::migration::Version;
use serde::Serialize;
use std::collections::BTreeMap;

/// One rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollout {
    /// Its id.
    pub id: RolloutId,
    /// The set it brings.
    pub set: SetName,
    /// The bundle of that set.
    pub bundle: Digest,
    /// The versions in the bundle.
    pub versions: Vec<Version>,
    /// The rollout that it takes back.
    pub undoes: Option<RolloutId>,
    /// Which databases were chosen.
    pub selector: Selector,
    /// Its limits.
    pub policy: Policy,
    /// Who asked for it.
    pub created_by: String,
    /// Why it was asked for; empty where nobody said.
    pub created_reason: String,
    /// When.
    pub created_at: Time,
    /// When it ended; `None` while it has not.
    pub ended_at: Option<Time>,
    /// Where it stands.
    pub state: State,
    /// Why it is paused, aborting, aborted or failed; empty otherwise.
    pub reason: String,
    /// Whether it paused by itself: nothing begins until someone has looked at it.
    pub halted: bool,
    /// How many databases are where.
    pub databases: Counts,
    /// Its waves, in their order.
    pub waves: Vec<Wave>,
    /// What was asked of it and changed it, oldest first.
    pub actions: Vec<Action>,
}

/// One wave of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Wave {
    /// Its name.
    pub name: String,
    /// Whether it has begun.
    pub begun: bool,
    /// Why it has not, where it is the next; empty otherwise.
    pub blocked: String,
    /// Whether someone must approve it first.
    pub approval: Approval,
    /// How many of its databases are where.
    pub databases: Counts,
}

/// Whether a wave needs someone's approval before it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Approval {
    /// It begins by itself.
    NotNeeded,
    /// Nobody has approved it yet.
    Awaited,
    /// Someone has.
    Given,
}

/// Where a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// At work, or waiting for something that its databases name.
    Running,
    /// Nothing begins until someone says so.
    Paused,
    /// Aborted or stopped; databases at work come to a safe point first.
    Aborting,
    /// Every database is done.
    Done,
    /// At least one database failed, and nothing is left to do.
    Failed,
    /// Aborted by someone.
    Aborted,
}

impl State {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Aborting => "aborting",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing will change any more.
    pub fn is_ended(self) -> bool {
        match self {
            Self::Running | Self::Paused | Self::Aborting => false,
            Self::Done | Self::Failed | Self::Aborted => true,
        }
    }
}

/// A stretch of a rollout's time, or a moment of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// When it began.
    pub from: Time,
    /// When it ended; `None` while it has not.
    pub to: Option<Time>,
    /// What it went into.
    #[serde(rename = "what")]
    pub kind: StretchKind,
    /// The name of the wave that it is about; empty where it is about all.
    pub wave: String,
    /// The same, for people.
    pub text: String,
}

/// What the time of a rollout goes into.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StretchKind {
    /// A wave was at work.
    Wave,
    /// It was outside of the hours for work: nothing began.
    Hours,
    /// A wave was over, but not for long enough.
    Soak,
    /// It was asked whether what must hold after a wave does.
    Checks,
    /// A wave waited for someone's approval.
    Approval,
    /// Nothing began until someone said so.
    Paused,
    /// Nothing began any more.
    Aborting,
    /// Someone asked for something.
    Asked,
    /// It ended.
    Ended,
    /// It changed too often for all to be kept.
    LeftOut,
}

impl StretchKind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Wave,
        Self::Hours,
        Self::Soak,
        Self::Checks,
        Self::Approval,
        Self::Paused,
        Self::Aborting,
        Self::Asked,
        Self::Ended,
        Self::LeftOut,
    ];

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Wave => "wave",
            Self::Hours => "hours",
            Self::Soak => "soak",
            Self::Checks => "checks",
            Self::Approval => "approval",
            Self::Paused => "paused",
            Self::Aborting => "aborting",
            Self::Asked => "asked",
            Self::Ended => "ended",
            Self::LeftOut => "left_out",
        }
    }
}

/// Databases of a rollout by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All.
    pub total: u32,
    /// Not begun, or between two attempts.
    pub waiting: u32,
    /// At work.
    pub running: u32,
    /// Done.
    pub done: u32,
    /// Failed for good.
    pub failed: u32,
    /// Left out.
    pub skipped: u32,
    /// Not done because the rollout was aborted or stopped.
    pub aborted: u32,
}

/// One database of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Assignment {
    /// Which.
    pub database: DatabaseName,
    /// The name of its wave.
    pub wave: String,
    /// Where it stands.
    pub state: AssignmentState,
    /// Who works on it, or did last.
    pub agent: Option<AgentId>,
    /// The attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Why it waits, or is left out; empty when it does not.
    pub blocked: String,
    /// The last error, whole; empty when there was none.
    pub error: String,
    /// How the last attempt ended where it met no error: it was stopped, replaced, or lost its lease; else empty.
    pub interrupted: String,
    /// How far the running attempt is, or an attempt that was stopped or lost its lease was; where that is known.
    pub progress: Option<Progress>,
    /// Whether only the leader knows how far it is, and another coordinator answered.
    pub progress_unknown: bool,
    /// Since when the agent that works on it is not connected, where it is not: its lease ends soon.
    pub agent_gone_since: Option<Time>,
    /// When the last attempt began.
    pub started_at: Option<Time>,
    /// When it ended for good.
    pub ended_at: Option<Time>,
    /// What the attempts that have ended did and cost.
    pub summary: Summary,
    /// The fence's token while it runs.
    pub token: Option<i64>,
}

/// Where one database of a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AssignmentState {
    /// Not begun, or between two attempts.
    Waiting,
    /// An agent has the lease.
    Running,
    /// All of the set is there.
    Done,
    /// It will not be tried again by this rollout.
    Failed,
    /// The rollout does nothing with it: it was left out.
    Skipped,
    /// Left undone, or half done, because the rollout was aborted or stopped.
    Aborted,
}

impl AssignmentState {
    /// The word that people read.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Aborted => "aborted",
        }
    }
}

/// One database of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Database {
    /// Its name.
    pub name: DatabaseName,
    /// What selectors choose by.
    pub labels: BTreeMap<String, String>,
    /// The agents that serve it now.
    pub agents: Vec<AgentId>,
    /// Where it is, once an agent could ask.
    pub identity: Option<Identity>,
    /// The rollout at work on it.
    pub rollout: Option<RolloutId>,
    /// Why it cannot be worked on; empty when it can.
    pub problem: String,
}

/// One agent of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Agent {
    /// Its name.
    pub id: AgentId,
    /// The version of its program; empty while it is not connected.
    pub version: String,
    /// Since when it has its lease; `None` when it has none.
    pub connected_at: Option<Time>,
    /// What it serves.
    pub databases: Vec<DatabaseName>,
    /// What it works on.
    pub running: Vec<DatabaseName>,
    /// Whether it gets no new work.
    pub drain: Option<Drain>,
    /// What there is to say about its version; empty when it is the coordinator's.
    pub note: String,
}
