//! One database of a rollout, and how it goes from one state to the next.
//!
//! ```text
//!                     up to date
//!          +-------------------------------------------------------+
//!          |                                                       v
//!   -> Waiting --leased--> Leasing --granted--> Running --done--> Done
//!       ^  | |                |                   | | |
//!       |  | |                |  lease lost,      | | |
//!       +--+-|----------------+--stopped,---------+ | |
//!      look  |                   replaced,          | |
//!      failed|                   failed (retry)     | +--failed for good--> Failed   (also from Waiting, by a look)
//!            |                                      |
//!            +--abandoned-----------> Aborted <-----+ any end but done or failed for good, while the rollout aborts
//!
//!   Waiting, Failed --skipped--> Skipped           Failed --retried--> Waiting   (Aborted too, where a failure stopped all)
//! ```
//! `Leasing` is what the store holds while an agent works: the lease's token is the revision of that very write, so it
//! cannot be part of it. Read back, a `Leasing` whose lease exists is granted, and one whose lease is gone has lost it.

use super::Time;
use super::work::{Failure, Progress, Summary};
use crate::id::{AgentId, Holder};
use serde::{Deserialize, Serialize};

/// Where one database of a rollout stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Assignment {
    /// Not begun, or between two attempts.
    Waiting {
        /// Attempts that count and have failed.
        failures: u32,
        /// Not to be tried before.
        not_before: Time,
        /// Why the last attempt came to nothing.
        last: Option<Setback>,
        /// What attempts have done and cost so far.
        #[serde(default)]
        spent: Summary,
    },
    /// The lease is being written; whether it is, is not known yet.
    Leasing(Work),
    /// An agent has the lease and is to work.
    Running {
        /// What was given to whom.
        work: Work,
        /// The lease's token.
        token: i64,
    },
    /// All of the set is there.
    Done {
        /// Who did it, or found it done.
        agent: AgentId,
        /// Which attempt did it; 0 when nothing was to be done.
        attempt: u32,
        /// When that attempt began; `None` when nothing was to be done.
        started_at: Option<Time>,
        /// When it was done, or found done.
        ended_at: Time,
        /// What was done, by all attempts.
        summary: Summary,
    },
    /// It will not be tried again.
    Failed {
        /// Who tried last.
        agent: AgentId,
        /// The last attempt.
        attempt: u32,
        /// When that began; `None` when a look already failed.
        started_at: Option<Time>,
        /// When it ended.
        ended_at: Time,
        /// Why.
        failure: Failure,
        /// Whether someone has said to go on all the same.
        #[serde(default)]
        forgiven: bool,
        /// What attempts have done and cost.
        #[serde(default)]
        spent: Summary,
    },
    /// Left out: the rollout does nothing with it any more, and counts it neither as done nor as failed.
    Skipped {
        /// Why.
        skip: Skip,
        /// Who tried before, if anyone did.
        agent: Option<AgentId>,
        /// Attempts that failed before.
        attempt: u32,
        /// When it was left out.
        ended_at: Time,
        /// How the last attempt ended.
        last: Option<Setback>,
        /// What attempts have done and cost.
        #[serde(default)]
        spent: Summary,
    },
    /// Left undone, or half done, because the rollout was aborted or stopped.
    Aborted {
        /// Who tried, if anyone did.
        agent: Option<AgentId>,
        /// The last attempt; 0 when there was none.
        attempt: u32,
        /// When that began.
        started_at: Option<Time>,
        /// When it was given up.
        ended_at: Time,
        /// How the last attempt ended.
        last: Option<Setback>,
        /// What attempts have done and cost.
        #[serde(default)]
        spent: Summary,
    },
}

/// Why a database is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Skip {
    /// Someone asked.
    Asked {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// No agent serves it, and the policy does not wait for one.
    Unreachable,
    /// What a rollout has applied there is not to be taken back.
    Declined {
        /// Why.
        why: String,
    },
}

impl std::fmt::Display for Skip {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Asked { by, reason } => super::phase::asked(f, "left out", by, reason),
            Self::Unreachable => f.write_str("left out: no agent serves it"),
            Self::Declined { why } => f.write_str(why),
        }
    }
}

/// What was given to an agent with a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// To whom.
    pub agent: AgentId,
    /// The agent's own lease, under which the database's lease is: when it ends, so does the work.
    pub lease: i64,
    /// The server it is on, where that is known: its system identifier.
    #[serde(default)]
    pub server: Option<i64>,
    /// The holder of the fence, minted for this work.
    pub holder: Holder,
    /// Attempts that count and failed before.
    pub failures: u32,
    /// When it was given.
    pub started_at: Time,
    /// Why the attempt before came to nothing.
    pub last: Option<Setback>,
    /// What the attempts before have done and cost.
    #[serde(default)]
    pub spent: Summary,
}

impl Work {
    /// Which attempt it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.failures.saturating_add(1)
    }
}

/// Why an attempt came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Setback {
    /// An error that may pass.
    Failed {
        /// Who met it.
        agent: AgentId,
        /// The error.
        failure: Failure,
    },
    /// Another holder took the fence.
    Replaced {
        /// Whose work was replaced.
        agent: AgentId,
        /// By whom, for people.
        by: String,
    },
    /// The agent stopped at a safe point, because it could not renew its lease or was told to.
    Stopped {
        /// Who stopped.
        agent: AgentId,
        /// How far it was, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reached: Option<Box<Progress>>,
    },
    /// The agent's lease ended: it died, or was cut off.
    LeaseLost {
        /// Whose.
        agent: AgentId,
        /// How far it was, as last heard.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reached: Option<Box<Progress>>,
    },
}

/// Messages of agents are kept up to this size (a statement with megabytes of literals can be part of one), so that
/// a record stays far below the store's limit.
const LONGEST_MESSAGE_BYTES: usize = 16 * 1024;

/// The beginning of a text, with a note where it was cut off.
pub(super) fn clipped(text: String) -> String {
    clipped_to(LONGEST_MESSAGE_BYTES, text)
}

/// The beginning of a text, with a note where it was cut off.
pub(super) fn clipped_to(longest: usize, mut text: String) -> String {
    if text.len() > longest {
        text.truncate(text.floor_char_boundary(longest));
        text.push_str(" .. (cut off)");
    }
    text
}

impl Setback {
    /// Who met it.
    pub fn agent(&self) -> &AgentId {
        match self {
            Self::Failed { agent, .. }
            | Self::Replaced { agent, .. }
            | Self::Stopped { agent, .. }
            | Self::LeaseLost { agent, .. } => agent,
        }
    }

    /// How far the work was, where that is known.
    pub fn reached(&self) -> Option<&Progress> {
        match self {
            Self::Stopped { reached, .. } | Self::LeaseLost { reached, .. } => reached.as_deref(),
            Self::Failed { .. } | Self::Replaced { .. } => None,
        }
    }

    /// The error that was met, if it was one.
    pub fn error(&self) -> Option<&Failure> {
        match self {
            Self::Failed { failure, .. } => Some(failure),
            Self::Replaced { .. } | Self::Stopped { .. } | Self::LeaseLost { .. } => None,
        }
    }
}

impl std::fmt::Display for Setback {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Failed { failure, .. } => f.write_str(&failure.message),
            Self::Replaced { agent, by } => write!(
                f,
                "agent {agent} was replaced by {by} and changed nothing after that"
            ),
            Self::Stopped { agent, .. } => {
                write!(
                    f,
                    "agent {agent} stopped between two batches or steps; it goes on from there"
                )
            }
            Self::LeaseLost { agent, .. } => {
                write!(
                    f,
                    "agent {agent} lost its lease: it died, was cut off or was started again; the work will be continued where its ledger says"
                )
            }
        }
    }
}

impl Assignment {
    /// When its last attempt began, as far as that is kept.
    pub fn began_at(&self) -> Option<Time> {
        match self {
            Self::Leasing(work) | Self::Running { work, .. } => Some(work.started_at),
            Self::Done { started_at, .. }
            | Self::Failed { started_at, .. }
            | Self::Aborted { started_at, .. } => *started_at,
            Self::Waiting { .. } | Self::Skipped { .. } => None,
        }
    }

    /// When it ended for good.
    pub fn ended_at(&self) -> Option<Time> {
        match self {
            Self::Waiting { .. } | Self::Leasing(_) | Self::Running { .. } => None,
            Self::Done { ended_at, .. }
            | Self::Failed { ended_at, .. }
            | Self::Skipped { ended_at, .. }
            | Self::Aborted { ended_at, .. } => Some(*ended_at),
        }
    }

    /// The beginning of all.
    pub fn new() -> Self {
        Self::Waiting {
            failures: 0,
            not_before: Time(0),
            last: None,
            spent: Summary::default(),
        }
    }

    /// What attempts that have ended did and cost.
    pub fn spent(&self) -> Summary {
        match self {
            Self::Waiting { spent, .. }
            | Self::Failed { spent, .. }
            | Self::Skipped { spent, .. }
            | Self::Aborted { spent, .. } => *spent,
            Self::Leasing(work) | Self::Running { work, .. } => work.spent,
            Self::Done { summary, .. } => *summary,
        }
    }

    /// How the last attempt ended that came to nothing, where it may go on from there.
    pub fn last(&self) -> Option<&Setback> {
        match self {
            Self::Waiting { last, .. } | Self::Skipped { last, .. } | Self::Aborted { last, .. } => {
                last.as_ref()
            }
            Self::Leasing(work) | Self::Running { work, .. } => work.last.as_ref(),
            Self::Done { .. } | Self::Failed { .. } => None,
        }
    }

    /// Whether nothing more will happen to it in its rollout.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Waiting { .. } | Self::Leasing(_) | Self::Running { .. } => false,
            Self::Done { .. } | Self::Failed { .. } | Self::Skipped { .. } | Self::Aborted { .. } => true,
        }
    }

    /// Whether later rollouts wait with this database while this one lives: what failed may be tried again.
    pub fn keeps_turn(&self) -> bool {
        match self {
            Self::Done { .. } | Self::Skipped { .. } => false,
            Self::Waiting { .. }
            | Self::Leasing(_)
            | Self::Running { .. }
            | Self::Failed { .. }
            | Self::Aborted { .. } => true,
        }
    }

    /// What an agent has, or is about to have, a lease for.
    pub fn work(&self) -> Option<&Work> {
        match self {
            Self::Leasing(work) | Self::Running { work, .. } => Some(work),
            Self::Waiting { .. }
            | Self::Done { .. }
            | Self::Failed { .. }
            | Self::Skipped { .. }
            | Self::Aborted { .. } => None,
        }
    }

    /// Attempts that count and failed, so far.
    pub fn failures(&self) -> u32 {
        match self {
            Self::Waiting { failures, .. } => *failures,
            Self::Leasing(work) | Self::Running { work, .. } => work.failures,
            Self::Done { .. } | Self::Aborted { .. } => 0,
            Self::Failed { attempt, .. } | Self::Skipped { attempt, .. } => *attempt,
        }
    }

    /// Its state in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting { .. } => "waiting",
            Self::Leasing(_) => "leasing",
            Self::Running { .. } => "running",
            Self::Done { .. } => "done",
            Self::Failed { .. } => "failed",
            Self::Skipped { .. } => "skipped",
            Self::Aborted { .. } => "aborted",
        }
    }
}

impl Default for Assignment {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_off_between_characters() {
        let text = clipped("ä".repeat(LONGEST_MESSAGE_BYTES));
        assert!(text.len() < LONGEST_MESSAGE_BYTES + 20);
        assert!(text.ends_with("ä .. (cut off)"));
        assert_eq!(clipped("short".to_owned()), "short");
    }
}
