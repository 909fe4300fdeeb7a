//! The spans of a run below its steps: tries at locks, waits, batches, rests. Told once they are over, under the span of
//! their step, which is that of the task.
//!
//! A long backfill has millions of batches: told are the first of a run, then one in a hundred, and each that took long.
//! Who was in the way is told by its process id alone: what it ran may hold values.

use opentelemetry::KeyValue;
use runtime::telemetry::span::{self, Past};
use shared::lock::Blocker;
use std::time::Duration;

/// So many of the first batches are told ..
const FIRST: u64 = 16;

/// .. then one in so many ..
const ONE_IN: u64 = 100;

/// .. and each that took so many times what it should.
const SLOW: u32 = 2;

/// Shorter waits and rests are part of what surrounds them.
const WORTH: Duration = Duration::from_millis(250);

/// A transaction, or a statement alone, that asked for its locks.
pub(crate) fn tried(took: Duration, outcome: &'static str) {
    if span::told() {
        Past::just_now("try", took, vec![KeyValue::new("outcome", outcome)]).tell();
    }
}

/// Time spent outside the queue for a lock.
pub(crate) fn waited(took: Duration, blockers: &[Blocker]) {
    if span::told() && took >= WORTH {
        let pids = blockers.iter().filter_map(|blocker| blocker.pid);
        let pids: Vec<String> = pids.map(|pid| pid.to_string()).collect();
        let about = vec![
            KeyValue::new("for", "lock"),
            KeyValue::new("blocked_by", pids.join(",")),
        ];
        Past::just_now("wait", took, about).tell();
    }
}

/// A batch that was committed, the `number`th of its step in this run, from 0.
pub(crate) fn batch(number: u64, took: Duration, target: Duration, rows: u64, shard: i32) {
    let sampled = number < FIRST || number.is_multiple_of(ONE_IN) || took > target * SLOW;
    if span::told() && sampled {
        let about = vec![
            KeyValue::new("number", i64::try_from(number).unwrap_or(i64::MAX)),
            KeyValue::new("rows", i64::try_from(rows).unwrap_or(i64::MAX)),
            KeyValue::new("range", i64::from(shard)),
        ];
        Past::just_now("batch", took, about).tell();
    }
}

/// A rest between two batches, with what the pace said then.
pub(crate) fn rested(took: Duration, reason: &'static str, says: impl FnOnce() -> String) {
    if span::told() && took >= WORTH {
        let about = vec![KeyValue::new("reason", reason), KeyValue::new("pace", says())];
        Past::just_now("throttle", took, about).tell();
    }
}
