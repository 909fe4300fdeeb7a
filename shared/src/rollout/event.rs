//! What can happen to a rollout, what follows from it, and why it may be impossible.

use super::assignment::{Assignment, Work};
use super::control::{Action, Verb};
use super::course::{Course, NextWave};
use super::work::{Failure, Finish, Progress};
use crate::id::{AgentId, DatabaseName, Holder};

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Someone asked for something.
    Asked {
        /// For what.
        verb: Verb,
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Everything of the waves that have begun is over.
    WaveOver,
    /// The checks of a wave, from 0, were asked.
    Checked {
        /// Which wave.
        wave: usize,
        /// What came of it.
        verdict: Verdict,
    },
    /// The next wave begins.
    WaveBegun,
    /// No agent serves it, and the policy does not wait for one.
    LeftOut {
        /// Which database.
        database: DatabaseName,
    },
    /// A look found that the database has all of it.
    FoundUpToDate {
        /// Which database.
        database: DatabaseName,
        /// Who looked.
        agent: AgentId,
    },
    /// A look found that it is to stay as it is.
    Declined {
        /// Which database.
        database: DatabaseName,
        /// Who looked.
        agent: AgentId,
        /// Why.
        why: String,
    },
    /// A look failed.
    LookFailed {
        /// Which database.
        database: DatabaseName,
        /// Who looked.
        agent: AgentId,
        /// Why.
        failure: Failure,
    },
    /// It was decided to give the database to an agent; the lease is to be written.
    Leased {
        /// Which database.
        database: DatabaseName,
        /// To whom.
        agent: AgentId,
        /// That agent's own lease.
        lease: i64,
        /// The server it is on, where that is known: its system identifier.
        server: Option<i64>,
        /// Minted at random.
        holder: Holder,
    },
    /// The lease is written.
    Granted {
        /// Which database.
        database: DatabaseName,
        /// The revision of that write.
        token: i64,
    },
    /// The agent says how its work ended.
    Finished {
        /// Which database.
        database: DatabaseName,
        /// Of the lease it worked under.
        token: i64,
        /// How.
        finish: Finish,
        /// How far it was, as last heard.
        progress: Option<Progress>,
    },
    /// The agent's lease is gone, and with it the lease of the database.
    LeaseLost {
        /// Which database.
        database: DatabaseName,
        /// The last that was heard of the work.
        progress: Option<Progress>,
    },
    /// The rollout aborts, so a waiting database is not begun any more.
    Abandoned {
        /// Which database.
        database: DatabaseName,
    },
    /// Nothing is left to do.
    Ended,
}

/// What came of the checks of a wave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// All hold.
    Passed,
    /// One does not, or has no answer: which, where, and what came of it.
    NotPassed(String),
}

/// What must be written because of an event; all effects of one event in one transaction, those of several events in
/// their order. Each carries the value of its own moment: a later one must not be written before what led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Where the rollout stands.
    Course(Course),
    /// What someone asked for, and its number from 0.
    Acted(usize, Action),
    /// Where a database stands.
    Record(DatabaseName, Assignment),
    /// A new lease for the database, under its agent's.
    Grant(DatabaseName, Work),
    /// The end of a lease that must still exist: if it does not, nothing of this may be written.
    Release {
        /// Which database.
        database: DatabaseName,
        /// The lease's token.
        token: i64,
    },
    /// The end of a lease that may have ended by itself.
    Drop(DatabaseName),
}

impl Effect {
    /// The database whose state changes.
    pub fn recorded(&self) -> Option<&DatabaseName> {
        match self {
            Self::Record(database, _) => Some(database),
            Self::Course(_) | Self::Acted(..) | Self::Grant(..) | Self::Release { .. } | Self::Drop(_) => {
                None
            }
        }
    }
}

/// Why an event does not fit; nothing was changed. Most are late or repeated messages, which are no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The rollout has no such database.
    #[error("the rollout does not include database {0}")]
    NotIncluded(DatabaseName),
    /// The database is in another state than the event needs.
    #[error("database {database} is {state}, where {needed} is needed")]
    State {
        /// Which database.
        database: DatabaseName,
        /// Its state.
        state: &'static str,
        /// The state in which the event can happen.
        needed: &'static str,
    },
    /// The message is about an earlier lease.
    #[error("token {given} is not that of the present lease of database {database}, {present}")]
    Token {
        /// Which database.
        database: DatabaseName,
        /// Of the message.
        given: i64,
        /// Of the lease.
        present: i64,
    },
    /// The rollout's phase does not allow it.
    #[error("the rollout is {0}")]
    Phase(&'static str),
    /// As many databases as allowed are at work.
    #[error("{0} databases are at work, which is the limit")]
    Limit(usize),
    /// As many databases as allowed are at work on one server.
    #[error("{0} databases are at work on that server, which is the limit")]
    ServerLimit(usize),
    /// The database's turn has not come.
    #[error("wave {0} has not begun")]
    Wave(String),
    /// The next wave may not begin.
    #[error("the next wave cannot begin: {0}")]
    NotYet(NextWave),
    /// The policy's windows do not allow it.
    #[error("it is outside the hours in which work may go on")]
    Hours,
    /// It was about checks that are not asked any more.
    #[error("its checks are not asked")]
    NotChecking,
    /// There is no such wave, or nothing to approve.
    #[error("{0}")]
    Approval(String),
    /// Databases are still waiting or at work.
    #[error("{0} databases are not finished")]
    Unfinished(usize),
}
