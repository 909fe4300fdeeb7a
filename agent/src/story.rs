//! Writes down what happens to one run, for spans and for the flight recorder of its rollout.
//!
//! A long backfill has millions of batches and rests: as spans are told the first of a step, then one in a hundred, each
//! batch that took long, and each rest that is for something else than the one before; the recorder tells them together
//! while their pace stays the same. Who was in the way is told by its process id alone: what it ran may hold values.

use crate::error::Error;
use opentelemetry::KeyValue;
use runtime::telemetry::span::{self, Past};
use shared::batch::Reading;
use shared::lock::Blocker;
use shared::migration::Version;
use shared::rollout::Time;
use shared::rollout::story::{Moment, Story, What};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// So many of the first batches are told as spans ..
const FIRST: u64 = 16;

/// .. then one in so many ..
const ONE_IN: u64 = 100;

/// .. and each that took so many times what it should.
const SLOW: u32 = 2;

/// Shorter waits and rests are no spans of their own.
const WORTH: Duration = Duration::from_millis(250);

/// What is rested for where the author asks for it, as metrics name it.
pub(crate) const AUTHORS: &str = "pause";

/// The recorder of one run; clones write and read the same.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Arc<Mutex<Recording>>);

#[derive(Debug, Default)]
struct Recording {
    story: Story,
    /// Grows with each change.
    changes: u64,
    version: Option<Version>,
    step: u32,
    /// The step at work: since when (time since 1970), and of what kind.
    at_work: Option<(Duration, &'static str)>,
    /// What workers rested for last, and how many rests there have been in this step.
    rests: (&'static str, u64),
}

/// A batch that was committed.
pub(crate) struct Batch {
    /// How many of its step were before it in this run.
    pub(crate) number: u64,
    pub(crate) took: Duration,
    /// How long its rows took, and how long they should.
    pub(crate) work: Duration,
    pub(crate) target: Duration,
    pub(crate) rows: u64,
    pub(crate) range: i32,
    /// What workers rest for at this pace, and what the pace says.
    pub(crate) reason: &'static str,
    pub(crate) pace: String,
}

/// A rest between two batches.
pub(crate) struct Rest {
    pub(crate) took: Duration,
    /// How long the pace, or the author, wanted it to be.
    pub(crate) asked: Duration,
    /// The share of its time that a worker may spend in batches.
    pub(crate) duty: f64,
    /// What for, as metrics name it, and what the pace said.
    pub(crate) reason: &'static str,
    /// The signal that it is because of, where it is because of one that was read.
    pub(crate) reading: Option<Reading>,
    pub(crate) pace: String,
}

impl Recorder {
    /// The story so far, up to the step at work, and a number that grows with each change of it.
    pub fn story(&self) -> (Story, u64) {
        let recording = self.lock();
        let mut story = recording.story.clone();
        if let Some((since, kind)) = recording.at_work {
            let kind = kind.to_owned();
            story.add(recording.moment(since, runtime::unix_now(), What::AtWork { kind }));
        }
        (story, recording.changes)
    }

    /// Whether a step is at work, whose time goes on.
    pub fn is_at_work(&self) -> bool {
        self.lock().at_work.is_some()
    }

    /// A number that grows with each change of the story.
    pub fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// From now on all belongs to this step, from 1.
    pub(crate) fn step_begins(&self, version: &Version, step: u32, kind: &'static str) {
        let mut recording = self.lock();
        recording.version = Some(version.clone());
        recording.step = step;
        recording.rests = ("", 0);
        recording.at_work = Some((runtime::unix_now(), kind));
    }

    /// It ended.
    pub(crate) fn step_ended(&self, kind: &'static str, took: Duration, how: Result<(), &Error>) {
        self.lock().at_work = None;
        let what = What::Step {
            kind: kind.to_owned(),
            done: how.is_ok(),
            error: how.err().map(ToString::to_string).unwrap_or_default(),
        };
        self.note(took, what);
    }

    /// Something failed and is tried again.
    pub(crate) fn troubled(&self, error: String) {
        self.note(Duration::ZERO, What::Trouble { error });
    }

    /// A transaction, or a statement alone, asked for its locks.
    pub(crate) fn tried(&self, took: Duration, granted: bool) {
        let outcome = if granted { "granted" } else { "missed" };
        tell("try", took, || vec![KeyValue::new("outcome", outcome)]);
        self.note(took, What::Tries { tries: 1, granted });
    }

    /// Time was spent outside the queue for a lock.
    pub(crate) fn waited(&self, took: Duration, blockers: &[Blocker]) {
        let blocked_by: Vec<i32> = blockers.iter().filter_map(|blocker| blocker.pid).collect();
        if took >= WORTH {
            tell("wait", took, || {
                let pids: Vec<String> = blocked_by.iter().map(ToString::to_string).collect();
                vec![
                    KeyValue::new("for", "lock"),
                    KeyValue::new("blocked_by", pids.join(",")),
                ]
            });
        }
        self.note(took, What::Wait { blocked_by });
    }

    /// A batch was committed.
    pub(crate) fn batch(&self, batch: Batch) {
        let Batch { number, took, .. } = batch;
        if number < FIRST || number.is_multiple_of(ONE_IN) || batch.work > batch.target * SLOW {
            tell("batch", took, || {
                vec![
                    KeyValue::new("number", whole(number)),
                    KeyValue::new("rows", whole(batch.rows)),
                    KeyValue::new("range", i64::from(batch.range)),
                ]
            });
        }
        let what = What::Batches {
            batches: 1,
            rows: batch.rows,
            slowest_ms: milliseconds(took),
            rested_ms: 0,
            reason: batch.reason.to_owned(),
            pace: batch.pace,
        };
        self.note(took, what);
    }

    /// A worker rested between two batches.
    pub(crate) fn rested(&self, rest: Rest) {
        if rest.took >= WORTH && self.lock().tells_rest(rest.reason) {
            tell("throttle", rest.took, || rest.about());
        }
        let Rest {
            took, reason, pace, ..
        } = rest;
        let what = What::Batches {
            batches: 0,
            rows: 0,
            slowest_ms: 0,
            rested_ms: milliseconds(took),
            reason: reason.to_owned(),
            pace,
        };
        self.note(took, what);
    }

    /// Rows were looked at again after the last batch.
    pub(crate) fn verified(&self, took: Duration, rows: u64, differing: u64) {
        tell("verification", took, || {
            vec![
                KeyValue::new("rows", whole(rows)),
                KeyValue::new("differing", whole(differing)),
            ]
        });
        self.note(took, What::Verified { rows, differing });
    }

    /// A table was vacuumed between batches; `ended` says why it was not done, and is empty where it was.
    pub(crate) fn vacuumed(&self, took: Duration, ended: String) {
        tell("vacuum", took, || vec![KeyValue::new("ended", ended.clone())]);
        self.note(took, What::Vacuum { ended });
    }

    /// Something that ended now.
    fn note(&self, took: Duration, what: What) {
        let now = runtime::unix_now();
        let mut recording = self.lock();
        let moment = recording.moment(now.saturating_sub(took), now, what);
        recording.story.add(moment);
        recording.changes += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        // No code that can panic runs while it is locked, save for a lack of memory.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rest {
    /// For its span: the decision in numbers, and in words.
    fn about(&self) -> Vec<KeyValue> {
        // The pace says nothing of a pause that its author asked for.
        let says = if self.reason == AUTHORS {
            "as long as the step's `pause` asks for".to_owned()
        } else {
            self.pace.clone()
        };
        let mut about = vec![
            KeyValue::new("reason", self.reason),
            KeyValue::new("pace", says),
            KeyValue::new("duty", self.duty),
            KeyValue::new("pause_ms", whole(milliseconds(self.asked))),
            KeyValue::new("rested_ms", whole(milliseconds(self.took))),
        ];
        if let Some(Reading { signal, value, limit }) = self.reading {
            about.extend([
                KeyValue::new("signal", signal.word()),
                KeyValue::new("value", value),
                KeyValue::new("limit", limit),
                KeyValue::new("unit", signal.unit()),
            ]);
        }
        about
    }
}

impl Recording {
    /// Whether a rest is told as a span: as batches are, and each that is for something else than the one before.
    fn tells_rest(&mut self, reason: &'static str) -> bool {
        let (before, number) = self.rests;
        self.rests = (reason, number + 1);
        before != reason || number < FIRST || number.is_multiple_of(ONE_IN)
    }

    /// Of the step at work; times since 1970.
    fn moment(&self, from: Duration, to: Duration, what: What) -> Moment {
        Moment {
            from: Time::since_1970(from),
            to: Time::since_1970(to),
            version: self.version.clone(),
            step: self.step,
            what,
        }
    }
}

fn tell(name: &'static str, took: Duration, about: impl FnOnce() -> Vec<KeyValue>) {
    if span::told() {
        Past::just_now(name, took, about()).tell();
    }
}

/// A number as spans have them.
fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::batch::Signal;

    #[test]
    fn of_many_rests_some_are_told_and_each_for_something_else() {
        let mut recording = Recording::default();
        let told =
            |recording: &mut Recording, reason| (0..1_000).filter(|_| recording.tells_rest(reason)).count();
        assert_eq!(told(&mut recording, "duty"), 16 + 9);
        assert!(recording.tells_rest("replica_lag"));
        assert!(!recording.tells_rest("replica_lag"));
        assert!(recording.tells_rest("duty"));
    }

    #[test]
    fn a_rest_because_of_a_signal_is_told_in_numbers() {
        let mut rest = Rest {
            took: Duration::from_millis(900),
            asked: Duration::from_secs(1),
            duty: 0.25,
            reason: "replica_lag",
            reading: Some(Reading {
                signal: Signal::ReplicaLag,
                value: 4.2,
                limit: 2.0,
            }),
            pace: "slowed to 25 %: replica lag 4.2 s, limit 2 s".to_owned(),
        };
        let numbers = [
            KeyValue::new("signal", "replica_lag"),
            KeyValue::new("value", 4.2),
            KeyValue::new("limit", 2.0),
            KeyValue::new("unit", "s"),
        ];
        let about = rest.about();
        assert!(numbers.iter().all(|number| about.contains(number)), "{about:?}");
        rest.reading = None;
        let keys: Vec<_> = rest.about().into_iter().map(|of| of.key.to_string()).collect();
        assert_eq!(keys, ["reason", "pace", "duty", "pause_ms", "rested_ms"]);
    }

    #[test]
    fn a_step_is_told_of_while_it_is_at_work() {
        let recorder = Recorder::default();
        assert!(!recorder.is_at_work());
        recorder.step_begins(&"0001".parse().unwrap(), 2, "sql");
        recorder.tried(Duration::from_millis(5), true);
        let whats = || {
            let moments = recorder.story().0.moments;
            moments.into_iter().map(|moment| (moment.step, moment.what))
        };
        let kind = || "sql".to_owned();
        assert_eq!(whats().next_back(), Some((2, What::AtWork { kind: kind() })));
        recorder.step_ended("sql", Duration::from_millis(7), Err(&Error::Stopped));
        let ended = What::Step {
            kind: kind(),
            done: false,
            error: Error::Stopped.to_string(),
        };
        assert_eq!(whats().next_back(), Some((2, ended)));
        assert_eq!(whats().len(), 2);
    }
}
