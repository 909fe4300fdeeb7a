//! What the scheduler decides, as values.

use super::message::Holding;
use super::phase::{Pause, Why};
use super::time::Time;
use crate::id::{AgentId, DatabaseName, RolloutId};

/// What is to be done next. The first seven change the state, the others only tell agents what the state is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Give the database to the agent.
    Lease {
        /// For which rollout.
        rollout: RolloutId,
        /// Which database.
        database: DatabaseName,
        /// The server it is on, where that is known.
        server: Option<i64>,
        /// To whom.
        agent: AgentId,
    },
    /// Take note that the lease is gone.
    Lose {
        /// Of which rollout.
        rollout: RolloutId,
        /// Which database.
        database: DatabaseName,
    },
    /// Do not begin the database any more.
    Abandon {
        /// Of which rollout.
        rollout: RolloutId,
        /// Which database.
        database: DatabaseName,
    },
    /// Everything of the waves that have begun is over.
    WaveOver {
        /// Of which rollout.
        rollout: RolloutId,
    },
    /// Begin the next wave.
    BeginWave {
        /// Of which rollout.
        rollout: RolloutId,
    },
    /// No agent serves the database, and the policy does not wait for one.
    LeaveOut {
        /// Of which rollout.
        rollout: RolloutId,
        /// Which database.
        database: DatabaseName,
    },
    /// Nothing is left to do.
    End {
        /// Which rollout.
        rollout: RolloutId,
    },
    /// Ask the agent what the database needs.
    Look {
        /// For which rollout.
        rollout: RolloutId,
        /// Which database.
        database: DatabaseName,
        /// Whom.
        agent: AgentId,
    },
    /// Tell the agent of work that it does not know of.
    Assign {
        /// To whom.
        agent: AgentId,
        /// Which work.
        holding: Holding,
    },
    /// Tell the agent to stop at the next safe point.
    Stop {
        /// Whom.
        agent: AgentId,
        /// Which work.
        holding: Holding,
        /// Why.
        why: Halt,
    },
}

/// Why an agent is to stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Halt {
    /// The rollout aborts.
    Aborting(Why),
    /// Someone paused it.
    Paused(Pause),
    /// The hours for work are over.
    Hours {
        /// When they begin again.
        until: Time,
    },
    /// The work is not its own any more.
    Stale,
}
