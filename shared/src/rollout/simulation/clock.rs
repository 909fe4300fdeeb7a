//! Clocks of agents: each is ahead or behind, and runs too fast or too slow.

use super::Random;
use crate::id::AgentId;
use crate::rollout::Time;
use crate::rollout::backoff;
use std::time::Duration;

/// How long a lease lives without being renewed.
pub(super) const LEASE: Duration = Duration::from_secs(30);

/// How long an agent takes its own lease for valid after it was renewed: some seconds less.
pub(super) const VALID: Duration = Duration::from_secs(25);

/// An agent's clock.
pub(super) struct Clock {
    /// What it says at the beginning of all.
    start: Duration,
    /// How far it goes while 100 s pass; far more than any real clock is off, so that it is seen.
    seconds_in_100: u32,
}

impl Clock {
    /// The clock of an agent, drawn for itself so that nothing else is drawn differently.
    pub(super) fn draw(seed: u64, agent: &AgentId) -> Self {
        let mut random = Random(seed ^ backoff::hash(["clock", agent.as_str()]));
        Self {
            start: Duration::from_millis(random.next() % 3_600_000),
            seconds_in_100: 50 + u32::try_from(random.next() % 150).unwrap(),
        }
    }

    /// What it says when that much time has passed.
    pub(super) fn at(&self, time: Time) -> Time {
        let passed = Duration::from_millis(time.0);
        Time(0).after(self.start + passed * self.seconds_in_100 / 100)
    }
}
