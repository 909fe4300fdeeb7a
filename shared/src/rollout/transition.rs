//! What changed where a rollout stands, and when. It is stored with its course, so that the time it took can be told
//! afterwards. Only phases and waves write here, never databases; and of many transitions the middle is left out.

use super::course::Course;
use super::phase::Phase;
use super::time::Time;
use serde::{Deserialize, Serialize};

/// Transitions kept of the beginning ..
const FIRST: usize = 16;

/// .. and all together: with the longest reasons they stay well below what one value of a store may hold.
const MOST: usize = 96;

/// The longest reason.
const REASON_BYTES: usize = 200;

/// The transitions of one rollout, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transitions {
    kept: Vec<Transition>,
    /// How many were left out after the first ones.
    #[serde(default)]
    left_out: u64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transition {
    /// When.
    pub at: Time,
    /// To what.
    #[serde(flatten)]
    pub to: To,
}

/// Where the rollout stands from then on. Waves are counted from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "to", rename_all = "snake_case")]
pub enum To {
    /// A wave has begun; the first begins with the rollout.
    Begun {
        /// Which.
        wave: usize,
    },
    /// Everything of the wave is over.
    Over,
    /// Databases of the wave are to be tried again.
    Reopened,
    /// The checks of the wave hold, or someone goes on without them.
    Checked,
    /// It goes on.
    Running,
    /// Nothing begins until someone says so.
    Paused {
        /// Why.
        why: String,
    },
    /// Nothing begins any more.
    Aborting {
        /// Why.
        why: String,
    },
    /// It has ended.
    Ended {
        /// How, in the phase's word.
        how: String,
    },
}

/// What a course is compared by.
pub(super) struct Before {
    phase: Phase,
    wave: usize,
    over: bool,
    checked: bool,
}

impl Before {
    pub(super) fn of(course: &Course) -> Self {
        Self {
            phase: course.phase.clone(),
            wave: course.wave,
            over: course.over_since.is_some(),
            checked: course.checked,
        }
    }
}

impl Transitions {
    /// Those that are known, and after how many of them some were left out.
    pub fn kept(&self) -> (&[Transition], Option<usize>) {
        (&self.kept, (self.left_out > 0).then_some(FIRST))
    }

    /// How many were left out.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn add(&mut self, at: Time, to: To) {
        if self.kept.len() >= MOST {
            self.kept.remove(FIRST);
            self.left_out += 1;
        }
        self.kept.push(Transition { at, to });
    }
}

impl Course {
    /// Writes down how it differs from what it was before. Whether it does.
    pub(super) fn note(&mut self, before: &Before, at: Time) -> bool {
        let mut new = Vec::new();
        let over = self.over_since.is_some();
        if self.wave != before.wave {
            new.push(To::Begun { wave: self.wave });
        } else if over != before.over {
            new.push(if over { To::Over } else { To::Reopened });
        }
        if self.checked && !before.checked {
            new.push(To::Checked);
        }
        if self.phase != before.phase {
            new.push(match &self.phase {
                Phase::Running => To::Running,
                Phase::Paused { pause } => To::Paused {
                    why: reason(&pause.to_string()),
                },
                Phase::Aborting { why } => To::Aborting {
                    why: reason(&why.to_string()),
                },
                ended @ (Phase::Done { .. } | Phase::Failed { .. } | Phase::Aborted { .. }) => To::Ended {
                    how: ended.word().to_owned(),
                },
            });
        }
        let differs = !new.is_empty();
        for to in new {
            self.transitions.add(at, to);
        }
        differs
    }
}

/// In one line, of a bounded size.
fn reason(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    super::assignment::clipped_to(REASON_BYTES, text.chars().map(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::phase::Pause;

    #[test]
    fn many_transitions_lose_their_middle_and_fit_into_a_value_of_a_store() {
        let mut course = Course::new();
        for n in 0..1_000 {
            let before = Before::of(&course);
            course.phase = match course.phase {
                Phase::Running => Phase::Paused {
                    pause: Pause::Asked {
                        by: "ada".to_owned(),
                        reason: "\"\\\u{1}".repeat(1_000),
                    },
                },
                _ => Phase::Running,
            };
            assert!(course.note(&before, Time(n)));
        }
        let (kept, gap) = course.transitions.kept();
        assert_eq!((kept.len(), gap), (MOST, Some(FIRST)));
        assert_eq!(course.transitions.left_out(), 1_000 - MOST as u64);
        assert_eq!(kept[FIRST - 1].at, Time(FIRST as u64 - 1));
        assert_eq!(kept[MOST - 1].at, Time(999));
        course.phase = Phase::Running;
        assert!(serde_json::to_vec(&course).unwrap().len() < 60 * 1024);
    }

    #[test]
    fn what_stays_as_it_is_is_no_transition() {
        let mut course = Course::new();
        let before = Before::of(&course);
        course.approved.insert(1);
        assert!(!course.note(&before, Time(1)));
        assert_eq!(course.transitions.kept(), (&[][..], None));
    }

    #[test]
    fn a_course_that_was_stored_without_transitions_is_read() {
        let old = r#"{"phase":"running","wave":2,"over_since":null,"approved":[]}"#;
        let course: Course = serde_json::from_str(old).unwrap();
        assert_eq!(course.transitions, Transitions::default());
        let text = serde_json::to_string(&course).unwrap();
        assert_eq!(serde_json::from_str::<Course>(&text).unwrap(), course);
    }
}
