//! May a waiting database go on, and if not, why. The same answer steers the scheduler and is printed by
//! `rollout show`.

use super::fleet::Conflict;
use super::phase::Pause;
use super::time::Time;
use crate::id::{AgentId, RolloutId};
use std::fmt;

/// Whether a waiting database may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gate<'a> {
    /// By one of these agents.
    Open(Vec<&'a AgentId>),
    /// Not now.
    Blocked(Blocked),
}

/// Why a waiting database does not go on; what `rollout show` prints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Blocked {
    /// The rollout aborts.
    Aborting,
    /// The rollout is paused.
    Paused(Pause),
    /// Its wave, of this name, has not begun; why is said of the wave.
    Wave(String),
    /// It is outside the policy's windows.
    Hours {
        /// When the next begins.
        until: Time,
    },
    /// An earlier rollout has this database too and is not finished with it.
    Earlier(RolloutId),
    /// The last attempt failed.
    Backoff {
        /// The next attempt.
        until: Time,
        /// Its number.
        attempt: u32,
        /// The last number.
        of: u32,
    },
    /// What agents say about databases does not fit together.
    Conflict(Conflict),
    /// Nobody who is connected serves it.
    NoAgent {
        /// Who did, or will be back: these have claimed it.
        known: Vec<AgentId>,
        /// When it is left out, where the policy says so.
        left_out: Option<Time>,
    },
    /// Those that are connected and serve it are drained.
    Draining(Vec<AgentId>),
    /// Its agents have not asked yet where it is.
    Unlocated(AgentId),
    /// Someone who is alive and not of this store holds it.
    Held {
        /// Who, for people.
        by: String,
        /// When it is looked at again.
        until: Time,
    },
    /// An agent is looking at it.
    Looking(AgentId),
    /// As many databases as allowed are at work.
    Limit(usize),
    /// The wave has only begun: each database that is done makes room for one more.
    RampUp(usize),
    /// As many databases as allowed are at work on its server, rollouts together.
    ServerLimit {
        /// The server's system identifier.
        server: i64,
        /// How many may be.
        limit: usize,
    },
    /// As many databases as allowed are at work by its agents, rollouts together.
    AgentLimit(usize),
}

impl Blocked {
    /// Its name in metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Aborting => "aborting",
            Self::Paused(_) => "paused",
            Self::Wave(_) => "wave",
            Self::Hours { .. } => "hours",
            Self::Earlier(_) => "earlier_rollout",
            Self::Backoff { .. } => "backoff",
            Self::Conflict(_) => "conflict",
            Self::NoAgent { .. } => "no_agent",
            Self::Draining(_) => "draining",
            Self::Unlocated(_) => "unlocated",
            Self::Held { .. } => "held",
            Self::Looking(_) => "looking",
            Self::Limit(_) => "limit",
            Self::RampUp(_) => "ramp_up",
            Self::ServerLimit { .. } => "server_limit",
            Self::AgentLimit(_) => "agent_limit",
        }
    }
}

fn names(agents: &[AgentId]) -> String {
    agents.iter().map(AgentId::as_str).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Aborting => f.write_str("the rollout is being aborted"),
            Self::Paused(pause) => write!(f, "the rollout is paused ({pause})"),
            Self::Wave(wave) => write!(f, "wave {wave} has not begun"),
            Self::Hours { until } => write!(f, "outside the hours for work; they begin {until}"),
            Self::Earlier(rollout) => write!(f, "waiting for rollout {rollout}, which came first"),
            Self::Backoff { until, attempt, of } => {
                write!(f, "next try at {until} (attempt {attempt} of {of})")
            }
            Self::Conflict(conflict) => conflict.fmt(f),
            Self::NoAgent {
                known,
                left_out: Some(at),
            } => {
                f.write_str("no agent that serves it is connected")?;
                if !known.is_empty() {
                    write!(f, " (known: {})", names(known))?;
                }
                write!(f, ": it will be left out at {at}, as the policy says, unless one is by then")
            }
            Self::NoAgent { known, .. } if known.is_empty() => f.write_str(
                "no agent serves it: name it in an agent's settings, or leave it out with `confiture rollout skip`; one that is gone, forget then with `confiture fleet forget`",
            ),
            Self::NoAgent { known, .. } => {
                write!(
                    f,
                    "no agent that serves it is connected (known: {}): start one, or leave it out with `confiture rollout skip`, or each such one with `unreachable: skip` in the policy; one that is gone, forget then with `confiture fleet forget`",
                    names(known)
                )
            }
            Self::Draining(agents) => {
                write!(
                    f,
                    "only drained agents serve it ({}): `confiture agent undrain` gives them work again",
                    names(agents)
                )
            }
            Self::Unlocated(agent) => write!(f, "agent {agent} has not asked yet where it is"),
            Self::Held { by, until } => write!(f, "held by {by}; next look at {until}"),
            Self::Looking(agent) => write!(f, "agent {agent} is looking at it"),
            Self::Limit(limit) => write!(f, "waiting for its turn (at most {limit} at a time)"),
            Self::RampUp(limit) => write!(
                f,
                "waiting for its turn (the wave ramps up: at most {limit} at a time now)"
            ),
            Self::ServerLimit { server, limit } => write!(
                f,
                "waiting for its turn on server {server} (at most {limit} at a time)"
            ),
            Self::AgentLimit(limit) => write!(f, "waiting for its agent (at most {limit} at a time)"),
        }
    }
}
