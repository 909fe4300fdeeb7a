//! The spans of rollouts, told by the leader when it has written that they are over: the rollout, its waves, what they
//! waited for, and its work on each database. What agents tell hangs below the last.

use opentelemetry::KeyValue;
use runtime::telemetry::span::{self, Past};
use shared::id::{DatabaseName, RolloutId};
use shared::rollout::book::Change;
use shared::rollout::timeline::timeline;
use shared::rollout::view::StretchKind;
use shared::rollout::{Assignment, Book, Effect, Phase, Rollout, Time};
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What changes end, to be told once they are written.
#[derive(Default)]
pub(crate) struct Ends {
    rollouts: BTreeSet<RolloutId>,
    waves: BTreeSet<RolloutId>,
    databases: Vec<(RolloutId, DatabaseName)>,
}

impl Ends {
    /// Those of the changes of this moment; none where nobody is told.
    pub(crate) fn of(changes: &[Change], now: Time) -> Self {
        let mut ends = Self::default();
        if !span::told() {
            return ends;
        }
        for change in changes {
            let Change::Rollout { rollout, effects } = change else {
                continue;
            };
            for effect in effects {
                match effect {
                    Effect::Course(course) => {
                        if course.phase.is_ended() {
                            ends.rollouts.insert(rollout.clone());
                        }
                        // The last wave is over with its rollout. A course may change while a wave soaks.
                        let at_the_end = course.phase.is_ended() && course.over_since.is_none();
                        if at_the_end || course.over_since == Some(now) {
                            ends.waves.insert(rollout.clone());
                        }
                    }
                    Effect::Record(database, assignment) if assignment.ended_at().is_some() => {
                        ends.databases.push((rollout.clone(), database.clone()));
                    }
                    Effect::Record(..)
                    | Effect::Acted(..)
                    | Effect::Grant(..)
                    | Effect::Release { .. }
                    | Effect::Drop(_) => {}
                }
            }
        }
        ends
    }

    /// Tells them.
    pub(crate) fn tell(self, book: &Book) {
        let rollout = |id| book.rollouts().get(id);
        for (id, database) in &self.databases {
            if let Some(rollout) = rollout(id) {
                tell_database(rollout, database);
            }
        }
        for rollout in self.waves.iter().filter_map(rollout) {
            tell_wave(rollout);
        }
        for rollout in self.rollouts.iter().filter_map(rollout) {
            tell_rollout(rollout);
        }
    }
}

fn tell_rollout(rollout: &Rollout) {
    let spec = rollout.spec();
    let (at, error) = match rollout.phase() {
        Phase::Done { at } => (*at, None),
        Phase::Failed { at, .. } => (*at, Some("databases failed".to_owned())),
        Phase::Aborted { at, .. } => (*at, Some("aborted".to_owned())),
        Phase::Running | Phase::Paused { .. } | Phase::Aborting { .. } => return,
    };
    let past = Past {
        name: "rollout",
        from: clock(spec.created_at),
        to: clock(at),
        about: vec![
            KeyValue::new("rollout", spec.id.to_string()),
            KeyValue::new("set", spec.set.to_string()),
            count("databases", rollout.counts().total()),
            count("done", rollout.counts().done),
            count("failed", rollout.counts().failed + rollout.counts().forgiven),
            KeyValue::new("outcome", rollout.phase().word()),
        ],
        error,
    };
    past.tell_as(spec.place(), spec.trace);
    tell_gates(rollout, at);
}

/// What its waves waited for.
fn tell_gates(rollout: &Rollout, until: Time) {
    let spec = rollout.spec();
    for (number, stretch) in timeline(rollout, until).into_iter().enumerate() {
        match stretch.kind {
            StretchKind::Hours
            | StretchKind::Soak
            | StretchKind::Checks
            | StretchKind::Approval
            | StretchKind::Paused => {}
            StretchKind::Wave
            | StretchKind::Aborting
            | StretchKind::Asked
            | StretchKind::Ended
            | StretchKind::LeftOut => continue,
        }
        let past = Past {
            name: "gate",
            from: clock(stretch.from),
            to: clock(stretch.to.unwrap_or(until)),
            about: vec![
                KeyValue::new("for", stretch.kind.word()),
                KeyValue::new("wave", stretch.wave),
                KeyValue::new("text", stretch.text),
            ],
            error: None,
        };
        let own = spec
            .place()
            .below(&["gate", spec.id.as_str(), &number.to_string()]);
        past.tell_as(own, Some(spec.place()));
    }
}

/// The last one that has begun: it is over.
fn tell_wave(rollout: &Rollout) {
    let (spec, place) = (rollout.spec(), rollout.course().wave);
    let ends = rollout.assignments().values().filter_map(Assignment::ended_at);
    let over = rollout.course().over_since.or_else(|| ends.max());
    let (Some(wave), Some(over)) = (spec.waves.get(place), over) else {
        return;
    };
    let of_wave = |(database, _): &(&DatabaseName, &Assignment)| wave.databases.contains(*database);
    let began = rollout
        .assignments()
        .iter()
        .filter(of_wave)
        .filter_map(|(_, assignment)| assignment.began_at())
        .min();
    let past = Past {
        name: "wave",
        from: clock(began.unwrap_or(over)),
        to: clock(over),
        about: vec![
            KeyValue::new("wave", wave.name.clone()),
            count("databases", wave.databases.len()),
        ],
        error: None,
    };
    past.tell_as(spec.place_of_wave(place), Some(spec.place()));
}

fn tell_database(rollout: &Rollout, database: &DatabaseName) {
    let spec = rollout.spec();
    let Some((assignment, wave)) = rollout.assignments().get(database).zip(
        spec.waves
            .iter()
            .position(|wave| wave.databases.contains(database)),
    ) else {
        return;
    };
    let Some(to) = assignment.ended_at() else {
        return;
    };
    let (agent, attempt, outcome, error) = match assignment {
        Assignment::Done { agent, attempt, .. } => (Some(agent), *attempt, "done", None),
        Assignment::Failed {
            agent,
            attempt,
            failure,
            ..
        } => (Some(agent), *attempt, "failed", Some(failure.message.clone())),
        Assignment::Skipped { agent, attempt, .. } => (agent.as_ref(), *attempt, "skipped", None),
        Assignment::Aborted { agent, attempt, .. } => (agent.as_ref(), *attempt, "aborted", None),
        Assignment::Waiting { .. } | Assignment::Leasing(_) | Assignment::Running { .. } => return,
    };
    let past = Past {
        name: "database",
        from: clock(assignment.began_at().unwrap_or(to)),
        to: clock(to),
        about: vec![
            KeyValue::new("database", database.to_string()),
            KeyValue::new("agent", agent.map(ToString::to_string).unwrap_or_default()),
            KeyValue::new("attempt", i64::from(attempt)),
            KeyValue::new("outcome", outcome),
        ],
        error,
    };
    past.tell_as(spec.place_of(database), Some(spec.place_of_wave(wave)));
}

fn clock(time: Time) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(time.0)
}

fn count(name: &'static str, count: usize) -> KeyValue {
    KeyValue::new(name, i64::try_from(count).unwrap_or(i64::MAX))
}
