//! How many databases of a rollout are where; kept in step with every change, so that nobody counts ten thousand.

use super::assignment::Assignment;
use std::collections::BTreeMap;

/// Counts of one wave, or of several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Not begun, or between two attempts.
    pub waiting: usize,
    /// At work, those whose lease is being written included.
    pub in_flight: usize,
    /// Done.
    pub done: usize,
    /// Failed, and nobody has said to go on all the same.
    pub failed: usize,
    /// Failed, and someone has said to go on all the same.
    pub forgiven: usize,
    /// Left out.
    pub skipped: usize,
    /// Left undone by an abort.
    pub aborted: usize,
}

impl Counts {
    /// All.
    pub fn total(&self) -> usize {
        self.unfinished() + self.done + self.failed + self.forgiven + self.skipped + self.aborted
    }

    /// Those to which something will still happen.
    pub fn unfinished(&self) -> usize {
        self.waiting + self.in_flight
    }

    fn of(&mut self, assignment: &Assignment) -> &mut usize {
        match assignment {
            Assignment::Waiting { .. } => &mut self.waiting,
            Assignment::Leasing(_) | Assignment::Running { .. } => &mut self.in_flight,
            Assignment::Done { .. } => &mut self.done,
            Assignment::Failed { forgiven: false, .. } => &mut self.failed,
            Assignment::Failed { forgiven: true, .. } => &mut self.forgiven,
            Assignment::Skipped { .. } => &mut self.skipped,
            Assignment::Aborted { .. } => &mut self.aborted,
        }
    }
}

/// Counts of a rollout.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally {
    /// By wave.
    waves: Vec<Counts>,
    all: Counts,
    /// Databases at work by server.
    servers: BTreeMap<i64, usize>,
}

impl Tally {
    pub(super) fn new(waves: usize) -> Self {
        Self {
            waves: vec![Counts::default(); waves],
            ..Self::default()
        }
    }

    pub(super) fn add(&mut self, wave: usize, assignment: &Assignment) {
        *self.waves[wave].of(assignment) += 1;
        *self.all.of(assignment) += 1;
        if let Some(server) = assignment.work().and_then(|work| work.server) {
            *self.servers.entry(server).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, wave: usize, assignment: &Assignment) {
        *self.waves[wave].of(assignment) -= 1;
        *self.all.of(assignment) -= 1;
        if let Some(server) = assignment.work().and_then(|work| work.server)
            && let Some(count) = self.servers.get_mut(&server)
        {
            *count -= 1;
            if *count == 0 {
                self.servers.remove(&server);
            }
        }
    }

    pub(super) fn all(&self) -> &Counts {
        &self.all
    }

    pub(super) fn wave(&self, wave: usize) -> &Counts {
        &self.waves[wave]
    }

    /// Databases of these waves, the last included, to which something will still happen.
    pub(super) fn unfinished_up_to(&self, wave: usize) -> usize {
        self.waves.iter().take(wave + 1).map(Counts::unfinished).sum()
    }

    /// Databases at work by server.
    pub(super) fn servers(&self) -> &BTreeMap<i64, usize> {
        &self.servers
    }
}
