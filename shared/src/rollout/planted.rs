//! Mistakes on purpose, in tests only: the simulation must notice each of them.

use std::cell::Cell;

/// One mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bug {
    /// One more database may fail than the budget says.
    BudgetOffByOne,
    /// Databases of the next wave count as begun.
    WaveTooEarly,
    /// Rollouts do not take turns, and the store grants a lease that exists.
    AssignedTwice,
    /// The store takes writes of a leader whose term is over.
    StaleTerm,
    /// A paused rollout begins databases.
    PauseIgnored,
    /// The limit of a server does not count.
    ServerLimitIgnored,
    /// An undo does not wait for the end of what it takes back.
    UndoneTooEarly,
    /// Nobody asks whether the checks of a wave hold.
    ChecksIgnored,
    /// Work begins at any hour.
    HoursIgnored,
    /// A wave begins with as many as may be at work at all.
    RampUpIgnored,
    /// The limit of an agent does not count.
    AgentLimitIgnored,
    /// A drained agent gets work.
    DrainIgnored,
}

thread_local! {
    static CHOSEN: Cell<Option<Bug>> = const { Cell::new(None) };
}

/// Runs something with a mistake.
pub(super) fn with<T>(bug: Bug, run: impl FnOnce() -> T) -> T {
    CHOSEN.set(Some(bug));
    let result = run();
    CHOSEN.set(None);
    result
}

pub(super) fn chosen(bug: Bug) -> bool {
    CHOSEN.get() == Some(bug)
}
