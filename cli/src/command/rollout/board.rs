//! What a watcher knows of a rollout: everything heard so far, over all its streams. Pure.

use shared::id::DatabaseName;
use shared::rollout::view::{Assignment, Rollout};
use std::collections::BTreeMap;

/// A rollout and its databases.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) rollout: Rollout,
    pub(super) assignments: BTreeMap<DatabaseName, Assignment>,
}

/// One database that changed: what was known of it, and what it is.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) before: Option<Assignment>,
    pub(super) after: Assignment,
}

impl Board {
    pub(super) fn new(rollout: Rollout) -> Self {
        Self {
            rollout,
            assignments: BTreeMap::new(),
        }
    }

    /// Takes an update; returns what it changed. A new stream begins with everything, of which most is known.
    pub(super) fn update(&mut self, rollout: Rollout, assignments: Vec<Assignment>) -> Vec<Change> {
        self.rollout = rollout;
        let changes = assignments.into_iter().filter_map(|after| {
            let before = self.assignments.insert(after.database.clone(), after.clone());
            (before.as_ref() != Some(&after)).then_some(Change { before, after })
        });
        changes.collect()
    }
}
