//! Taking a rollout back: by another rollout, over the databases it may have changed, in reverse order.
//!
//! The first is aborted, and nothing of the second begins before the first has ended; which migrations are to be undone
//! on a database, and whether that may be, its ledger says ([`crate::ledger::Goal::UndoRollout`]).

use super::assignment::{Assignment, clipped_to};
use super::book::Book;
use super::machine::Rollout;
use super::phase::Phase;
use super::spec::Spec;
use super::time::Time;
use super::waves::Wave;
use super::work::Aim;
use crate::id::{RequestId, RolloutId};
use crate::ledger::DataLoss;
use crate::trace::Place;
use std::time::Duration;

/// A reason is kept up to this size.
const LONGEST_REASON_BYTES: usize = 1024;

/// What someone asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The same request again founds nothing.
    pub request: RequestId,
    /// Whether values and rows may be lost with it.
    pub data_loss: DataLoss,
    /// Whether it keeps to the hours of the rollout it takes back.
    pub hours: Hours,
    /// Who asks.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Under which span of theirs.
    pub trace: Option<Place>,
}

/// Whether an undo keeps to the hours of the rollout it takes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hours {
    /// It does, as to all its limits.
    Kept,
    /// It is too urgent.
    Ignored,
}

/// Why a rollout is not taken back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is one that takes another back.
    #[error("it takes rollout {0} back itself: start a rollout of the same migrations to apply them again")]
    Undo(RolloutId),
    /// It has changed nothing.
    #[error("it has not come to any database: nothing is to be undone")]
    Untouched,
}

/// The most migrations that a rollout has completed on one of its databases; 1 where it is at work, and may have.
pub fn most_migrations(rollout: &Rollout) -> usize {
    let completed = |assignment: &Assignment| match assignment {
        Assignment::Done { summary, .. } => summary.migrations,
        Assignment::Leasing(_) | Assignment::Running { .. } => 1,
        // Not up to the last.
        Assignment::Waiting { .. }
        | Assignment::Failed { .. }
        | Assignment::Skipped { .. }
        | Assignment::Aborted { .. } => 0,
    };
    let most = rollout.assignments().values().map(completed).max();
    usize::try_from(most.unwrap_or(0)).unwrap_or(usize::MAX)
}

impl Book {
    /// A rollout that takes another back; that must have been aborted, or have ended.
    ///
    /// # Errors
    /// When there is nothing to be taken back.
    pub fn undo(&self, of: &Rollout, wish: Wish, id: RolloutId, now: Time) -> Result<Spec, Error> {
        let undone = of.spec();
        if let Some(first) = undone.undoes() {
            return Err(Error::Undo(first.clone()));
        }
        let mut waves: Vec<Wave> = (undone.waves.iter().rev())
            .map(|wave| Wave {
                name: wave.name.clone(),
                databases: (wave.databases.iter())
                    .filter(|database| of.assignments().get(database).is_some_and(is_touched))
                    .cloned()
                    .collect(),
                soak: Duration::ZERO,
                approval: false,
                failure_budget: None,
                checks: Vec::new(),
            })
            .collect();
        waves.retain(|wave| !wave.databases.is_empty());
        if waves.is_empty() {
            return Err(Error::Untouched);
        }
        let mut policy = undone.policy.clone();
        policy.waves.clear();
        policy.checks.clear();
        if wish.hours == Hours::Ignored {
            policy.windows.clear();
        }
        Ok(Spec {
            id,
            request: wish.request,
            number: self.next_number(),
            aim: Aim::Undo {
                rollout: undone.id.clone(),
                data_loss: wish.data_loss,
            },
            policy,
            created_by: wish.by,
            reason: clipped_to(LONGEST_REASON_BYTES, wish.reason),
            created_at: now,
            trace: wish.trace,
            waves,
            ..undone.clone()
        })
    }

    /// The rollout that takes another back now.
    pub fn undo_under_way(&self, rollout: &RolloutId) -> Option<&Rollout> {
        self.undos_of(rollout).find(|undo| !undo.phase().is_ended())
    }

    /// The rollout that has taken another back wherever it came, so that nothing of it is left.
    pub fn undone_by(&self, rollout: &RolloutId) -> Option<&Rollout> {
        self.undos_of(rollout).find(|undo| {
            matches!(undo.phase(), Phase::Done { .. }) && undo.counts().done == undo.assignments().len()
        })
    }

    /// A rollout that takes another back, or has done so on a database at least.
    pub(super) fn taken_back_by(&self, rollout: &RolloutId) -> Option<&Rollout> {
        self.undos_of(rollout)
            .find(|undo| !undo.phase().is_ended() || undo.counts().done > 0)
    }

    fn undos_of<'a>(&'a self, rollout: &RolloutId) -> impl Iterator<Item = &'a Rollout> {
        let undos = self.rollouts().values().map(AsRef::as_ref);
        undos.filter(move |other: &&Rollout| other.spec().undoes() == Some(rollout))
    }
}

/// Whether a rollout may have changed a database: it was begun there, or a look found it done already, maybe by an attempt
/// whose end nobody heard of.
fn is_touched(assignment: &Assignment) -> bool {
    match assignment {
        Assignment::Waiting { last, .. }
        | Assignment::Skipped { last, .. }
        | Assignment::Aborted { last, .. } => last.is_some(),
        Assignment::Leasing(_)
        | Assignment::Running { .. }
        | Assignment::Done { .. }
        | Assignment::Failed { .. } => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::DatabaseName;
    use crate::rollout::control::Verb;
    use crate::rollout::work::{Finish, Summary};
    use crate::rollout::{Policy, sample};

    fn wish() -> Wish {
        Wish {
            request: RequestId::try_from("undo").unwrap(),
            data_loss: DataLoss::Refused,
            hours: Hours::Kept,
            by: "ada".to_owned(),
            reason: "too slow".to_owned(),
            trace: None,
        }
    }

    fn id() -> RolloutId {
        RolloutId::try_from("u").unwrap()
    }

    /// A canary is done, one of the rest is at work, another waits.
    fn half_way() -> Rollout {
        let mut spec = sample::spec(1, &["b", "c"], Policy::default());
        spec.waves.insert(0, sample::wave("canary", &["a"]));
        let mut rollout = Rollout::new(spec);
        rollout.apply(sample::leased("a", "x"), Time(1)).unwrap();
        rollout.apply(sample::granted("a", 1), Time(1)).unwrap();
        let done = Finish::Done(Summary::default());
        rollout.apply(sample::finished("a", 1, done), Time(2)).unwrap();
        rollout.apply(crate::rollout::Event::WaveOver, Time(2)).unwrap();
        rollout.apply(crate::rollout::Event::WaveBegun, Time(2)).unwrap();
        rollout.apply(sample::leased("b", "x"), Time(3)).unwrap();
        rollout.apply(sample::granted("b", 2), Time(3)).unwrap();
        rollout
    }

    #[test]
    fn what_was_begun_is_taken_back_the_last_wave_first() {
        let rollout = half_way();
        let spec = Book::default().undo(&rollout, wish(), id(), Time(9)).unwrap();
        assert_eq!(spec.undoes(), Some(&rollout.spec().id));
        assert_eq!(spec.bundle, rollout.spec().bundle);
        let waves: Vec<_> = (spec.waves.iter())
            .map(|wave| {
                (
                    wave.name.as_str(),
                    wave.databases
                        .iter()
                        .map(DatabaseName::as_str)
                        .collect::<Vec<_>>(),
                )
            })
            .collect();
        assert_eq!(waves, [("rest", vec!["b"]), ("canary", vec!["a"])]);
    }

    #[test]
    fn an_urgent_undo_is_not_bound_to_the_hours() {
        let mut spec = sample::spec(1, &["a"], Policy::default());
        spec.policy.windows =
            serde_json::from_str(r#"[{ "from": "01:00", "to": "02:00", "zone": "UTC" }]"#).unwrap();
        let mut rollout = Rollout::new(spec);
        rollout.apply(sample::look_failed("a"), Time(1)).unwrap();
        let undo = |hours| {
            Book::default()
                .undo(&rollout, Wish { hours, ..wish() }, id(), Time(2))
                .unwrap()
        };
        assert_eq!(undo(Hours::Kept).policy.windows.len(), 1);
        assert_eq!(undo(Hours::Ignored).policy.windows.len(), 0);
    }

    #[test]
    fn what_changed_nothing_and_what_takes_back_is_refused() {
        let mut rollout = sample::rollout(1, &["a"], Policy::default());
        let book = Book::default();
        assert_eq!(book.undo(&rollout, wish(), id(), Time(1)), Err(Error::Untouched));
        rollout.apply(sample::up_to_date("a"), Time(1)).unwrap();
        let undo = Rollout::new(book.undo(&rollout, wish(), id(), Time(1)).unwrap());
        let again = book.undo(&undo, wish(), id(), Time(1));
        assert_eq!(again, Err(Error::Undo(rollout.spec().id.clone())));
    }

    #[test]
    fn what_is_taken_back_is_not_tried_again() {
        let mut book = Book::default();
        book.found(sample::spec(1, &["a"], Policy::default()));
        let first = book.rollouts().keys().next().unwrap().clone();
        let retry = Verb::Retry {
            databases: std::collections::BTreeSet::new(),
        };
        let ask = |book: &mut Book, verb| book.ask(&first, verb, String::new(), String::new(), Time(1));
        ask(&mut book, Verb::Abort).unwrap();
        book.found(Spec {
            id: id(),
            number: 2,
            aim: Aim::Undo {
                rollout: first.clone(),
                data_loss: DataLoss::Refused,
            },
            ..sample::spec(2, &["a"], Policy::default())
        });
        let refused = ask(&mut book, retry).unwrap_err().to_string();
        assert!(refused.contains("rollout u takes it back"), "{refused}");
    }
}
