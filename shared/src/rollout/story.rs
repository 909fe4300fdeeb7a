//! What happened to the work on one database, moment by moment: a flight recorder. Kept with the rollout, so that why it was
//! slow at 03:12 can be read without any tracing.
//!
//! It is bounded: what is like the moment before is told with it, and of a long story the middle is left out.

use super::time::Time;
use crate::migration::Version;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Moments kept of the beginning ..
const FIRST: usize = 16;

/// .. and all together; a story takes some kilobytes at most.
const MOST: usize = 64;

/// The longest text of one moment.
const TEXT_BYTES: usize = 300;

/// Shorter waits are no moments of their own.
const WORTH: Duration = Duration::from_millis(250);

/// A story that is told by its steps alone and took less time is not kept.
const QUICK: Duration = Duration::from_secs(1);

/// What happened, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// The moments.
    pub moments: Vec<Moment>,
    /// How many were left out after the first ones.
    #[serde(default)]
    pub left_out: u64,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// When it began.
    pub from: Time,
    /// When it ended.
    pub to: Time,
    /// In which migration; none between migrations.
    pub version: Option<Version>,
    /// In which step, from 1; 0 outside of steps.
    pub step: u32,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// A step ended.
    Step {
        /// What kind of step.
        kind: String,
        /// Whether it is done; else it failed, or was stopped.
        done: bool,
        /// Why it is not, for people; else empty.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        error: String,
    },
    /// A step was at work when this was told.
    AtWork {
        /// What kind of step.
        kind: String,
    },
    /// Nothing was heard any more: the agent's lease ended with its work unfinished.
    Lost,
    /// It was waited for a lock, outside its queue.
    Wait {
        /// The processes that had it.
        blocked_by: Vec<i32>,
    },
    /// Locks were asked for.
    Tries {
        /// How often.
        tries: u64,
        /// Whether the last got them.
        granted: bool,
    },
    /// Batches ran, at one pace.
    Batches {
        /// How many.
        batches: u64,
        /// Rows they changed.
        rows: u64,
        /// The longest of them (ms).
        slowest_ms: u64,
        /// How long workers rested between them, added up (ms).
        rested_ms: u64,
        /// What they rested for, as metrics name it.
        reason: String,
        /// What the pace said last.
        pace: String,
    },
    /// Rows were looked at again after the last batch.
    Verified {
        /// How many.
        rows: u64,
        /// How many of them are not as the step would leave them.
        differing: u64,
    },
    /// A table was vacuumed between batches.
    Vacuum {
        /// Why it ended early or failed, for people; empty where it was done.
        ended: String,
    },
    /// Something failed and was tried again.
    Trouble {
        /// What, for people.
        error: String,
    },
}

impl Story {
    /// Adds what happened last.
    pub fn add(&mut self, mut moment: Moment) {
        moment.what.clip();
        if let Some(last) = self.moments.last_mut()
            && (&last.version, last.step) == (&moment.version, moment.step)
            && last.what.takes(&moment.what)
        {
            last.to = last.to.max(moment.to);
            return;
        }
        if let What::Wait { .. } = moment.what
            && moment.from.until(moment.to) < WORTH
        {
            return;
        }
        if self.moments.len() >= MOST {
            self.moments.remove(FIRST);
            self.left_out += 1;
        }
        self.moments.push(moment);
    }

    /// Its teller was given up at `now`, of work that began then.
    pub fn lose(&mut self, began: Time, now: Time) {
        let last = self.moments.last();
        let moment = Moment {
            from: last.map_or(began, |last| last.to).min(now),
            to: now,
            version: last.and_then(|last| last.version.clone()),
            step: last.map_or(0, |last| last.step),
            what: What::Lost,
        };
        self.add(moment);
    }

    /// Whether it tells more than that its steps were done at once.
    pub fn is_worth_keeping(&self) -> bool {
        let (Some(first), Some(last)) = (self.moments.first(), self.moments.last()) else {
            return false;
        };
        let plain = |moment: &Moment| match &moment.what {
            What::Step { done, .. } => *done,
            What::Tries { tries, granted } => *granted && *tries == 1,
            What::AtWork { .. } => true,
            What::Lost
            | What::Wait { .. }
            | What::Batches { .. }
            | What::Verified { .. }
            | What::Vacuum { .. }
            | What::Trouble { .. } => false,
        };
        !self.moments.iter().all(plain) || first.from.until(last.to) >= QUICK
    }
}

impl What {
    /// Whether the next is told with this one; if so, this one tells it.
    fn takes(&mut self, next: &Self) -> bool {
        match (self, next) {
            (
                Self::Tries { tries, granted },
                Self::Tries {
                    tries: more,
                    granted: now,
                },
            ) if !*granted => {
                *tries += more;
                *granted = *now;
                true
            }
            (
                Self::Batches {
                    batches,
                    rows,
                    slowest_ms,
                    rested_ms,
                    reason,
                    pace,
                },
                Self::Batches {
                    batches: more,
                    rows: more_rows,
                    slowest_ms: slow,
                    rested_ms: rested,
                    reason: why,
                    pace: says,
                },
            ) if reason == why => {
                *batches += more;
                *rows += more_rows;
                *slowest_ms = (*slowest_ms).max(*slow);
                *rested_ms += rested;
                pace.clone_from(says);
                true
            }
            (Self::Wait { blocked_by }, Self::Wait { blocked_by: by }) => {
                for pid in by {
                    if !blocked_by.contains(pid) {
                        blocked_by.push(*pid);
                    }
                }
                true
            }
            // Another pace, or something else altogether.
            (
                Self::Step { .. }
                | Self::AtWork { .. }
                | Self::Lost
                | Self::Wait { .. }
                | Self::Tries { .. }
                | Self::Batches { .. }
                | Self::Verified { .. }
                | Self::Vacuum { .. }
                | Self::Trouble { .. },
                Self::Step { .. }
                | Self::AtWork { .. }
                | Self::Lost
                | Self::Wait { .. }
                | Self::Tries { .. }
                | Self::Batches { .. }
                | Self::Verified { .. }
                | Self::Vacuum { .. }
                | Self::Trouble { .. },
            ) => false,
        }
    }

    fn clip(&mut self) {
        let clip = |text: &mut String| text.truncate(text.floor_char_boundary(TEXT_BYTES));
        match self {
            Self::Batches { pace, .. } => clip(pace),
            Self::Trouble { error } | Self::Step { error, .. } | Self::Vacuum { ended: error } => clip(error),
            Self::Wait { blocked_by } => blocked_by.truncate(MOST),
            Self::AtWork { .. } | Self::Lost | Self::Tries { .. } | Self::Verified { .. } => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(from: u64, to: u64, what: What) -> Moment {
        Moment {
            from: Time(from),
            to: Time(to),
            version: None,
            step: 1,
            what,
        }
    }

    fn batches(from: u64, reason: &str, rows: u64) -> Moment {
        let what = What::Batches {
            batches: 1,
            rows,
            slowest_ms: rows,
            rested_ms: 5,
            reason: reason.to_owned(),
            pace: format!("{reason} {rows}"),
        };
        moment(from, from + 10, what)
    }

    fn step(from: u64, to: u64) -> Moment {
        let kind = "add_column".to_owned();
        let what = What::Step {
            kind,
            done: true,
            error: String::new(),
        };
        moment(from, to, what)
    }

    #[test]
    fn batches_of_one_pace_are_one_moment() {
        let mut story = Story::default();
        for (from, reason) in [(0, "duty"), (20, "duty"), (40, "replica_lag"), (60, "duty")] {
            story.add(batches(from, reason, 100 + from));
        }
        assert_eq!(story.moments.len(), 3);
        let first = &story.moments[0];
        assert_eq!((first.from, first.to), (Time(0), Time(30)));
        assert_eq!(
            first.what,
            What::Batches {
                batches: 2,
                rows: 220,
                slowest_ms: 120,
                rested_ms: 10,
                reason: "duty".to_owned(),
                pace: "duty 120".to_owned(),
            }
        );
    }

    #[test]
    fn tries_are_told_until_one_gets_its_locks() {
        let mut story = Story::default();
        for granted in [false, false, true, true] {
            story.add(moment(0, 50, What::Tries { tries: 1, granted }));
        }
        let told: Vec<_> = story.moments.iter().map(|moment| moment.what.clone()).collect();
        let tries = |tries, granted| What::Tries { tries, granted };
        assert_eq!(told, [tries(3, true), tries(1, true)]);
    }

    #[test]
    fn a_long_story_loses_its_middle() {
        let mut story = Story::default();
        for n in 0..1_000 {
            story.add(step(n, n + 1));
        }
        assert_eq!((story.moments.len(), story.left_out), (MOST, 1_000 - MOST as u64));
        assert_eq!(story.moments[FIRST - 1].from, Time(FIRST as u64 - 1));
        assert_eq!(story.moments[FIRST].from, Time(1_000 - (MOST - FIRST) as u64));
        assert_eq!(story.moments[MOST - 1].from, Time(999));
    }

    #[test]
    fn only_what_was_slow_or_troubled_is_kept() {
        let mut story = Story::default();
        assert!(!story.is_worth_keeping());
        story.add(moment(
            0,
            5,
            What::Tries {
                tries: 1,
                granted: true,
            },
        ));
        story.add(step(0, 20));
        assert!(!story.is_worth_keeping());
        let mut slow = story.clone();
        slow.add(step(20, 2_000));
        assert!(slow.is_worth_keeping());
        story.add(moment(
            20,
            30,
            What::Trouble {
                error: "deadlock".to_owned(),
            },
        ));
        assert!(story.is_worth_keeping());
    }

    #[test]
    fn short_waits_are_no_moments() {
        let mut story = Story::default();
        let wait = |to| moment(0, to, What::Wait { blocked_by: vec![7] });
        story.add(wait(100));
        story.add(wait(300));
        assert_eq!(story.moments.len(), 1);
    }

    #[test]
    fn a_story_survives_its_text() {
        let mut story = Story::default();
        story.add(step(1, 2));
        story.add(batches(3, "duty", 7));
        let text = serde_json::to_string(&story).unwrap();
        assert_eq!(serde_json::from_str::<Story>(&text).unwrap(), story);
    }
}
