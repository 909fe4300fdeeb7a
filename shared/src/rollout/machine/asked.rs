//! What operators ask of a rollout. Asking for what is so already changes nothing, and is not recorded.

use super::Rollout;
use crate::id::DatabaseName;
use crate::rollout::assignment::{Assignment, Setback, Skip};
use crate::rollout::control::{Action, Verb};
use crate::rollout::event::{Effect, Error};
use crate::rollout::phase::{Pause, Phase, Why};
use crate::rollout::time::Time;
use std::collections::BTreeSet;

impl Rollout {
    pub(super) fn asked(&mut self, mut action: Action) -> Result<Vec<Effect>, Error> {
        let Action { by, reason, at, .. } = action.clone();
        let mut effects = match &mut action.verb {
            Verb::Pause => self.pause(by, reason)?,
            Verb::Resume => self.resume()?,
            Verb::IgnoreChecks => self.ignore_checks()?,
            Verb::Abort => self.abort(Why::Asked { by, reason }),
            Verb::Retry { databases } => self.retry(databases)?,
            Verb::Skip { databases } => self.skip(databases, &Skip::Asked { by, reason }, at)?,
            Verb::Approve { wave } => {
                let place = self.wave_to_approve(wave.as_deref())?;
                *wave = Some(self.spec.waves[place].name.clone());
                self.approve(place)?
            }
            Verb::Undo { .. } => Vec::new(),
        };
        // An undo is only written down: what is to be aborted was asked to be.
        let noted = matches!(action.verb, Verb::Undo { .. })
            && !self.actions.iter().any(|earlier| earlier.verb == action.verb);
        if noted || !effects.is_empty() {
            effects.push(Effect::Acted(self.actions.len(), action.clone()));
            self.actions.push(action);
        }
        Ok(effects)
    }

    fn pause(&mut self, by: String, reason: String) -> Result<Vec<Effect>, Error> {
        match &self.course.phase {
            Phase::Paused {
                pause: Pause::Asked { .. },
            } => Ok(Vec::new()),
            // Running -> Paused: someone asked. What paused by itself lets its work go on; now that stops too.
            Phase::Running
            | Phase::Paused {
                pause: Pause::Budget { .. } | Pause::Check { .. },
            } => Ok(self.go(Phase::Paused {
                pause: Pause::Asked { by, reason },
            })),
            other => Err(Error::Phase(other.word())),
        }
    }

    fn resume(&mut self) -> Result<Vec<Effect>, Error> {
        match &self.course.phase {
            Phase::Running => Ok(Vec::new()),
            Phase::Paused { .. } => {
                let mut effects = self.forgive();
                // Paused -> Running: someone has looked at it.
                effects.extend(self.go(Phase::Running));
                Ok(effects)
            }
            other => Err(Error::Phase(other.word())),
        }
    }

    /// Resumes, and asks the checks of the present wave no more.
    fn ignore_checks(&mut self) -> Result<Vec<Effect>, Error> {
        let (Phase::Running | Phase::Paused { .. }) = self.course.phase else {
            return Err(Error::Phase(self.course.phase.word()));
        };
        let ignores = self.needs_checks() && self.tally.unfinished_up_to(self.course.wave) == 0;
        self.course.checked |= ignores;
        let effects = self.resume()?;
        if ignores && effects.is_empty() {
            return Ok(vec![Effect::Course(self.course.clone())]);
        }
        Ok(effects)
    }

    /// Someone has seen what failed so far, and it counts no more.
    fn forgive(&mut self) -> Vec<Effect> {
        let forgiven = |(database, assignment): (&DatabaseName, &Assignment)| match assignment {
            Assignment::Failed { forgiven: false, .. } => {
                let mut assignment = assignment.clone();
                if let Assignment::Failed { forgiven, .. } = &mut assignment {
                    *forgiven = true;
                }
                Some((database.clone(), assignment))
            }
            _ => None,
        };
        let all: Vec<_> = self.assignments.iter().filter_map(forgiven).collect();
        all.into_iter()
            .flat_map(|(database, assignment)| self.record(database, assignment, []))
            .collect()
    }

    fn retry(&mut self, databases: &BTreeSet<DatabaseName>) -> Result<Vec<Effect>, Error> {
        // Where a failure stopped everything, what it left undone is taken up again with it.
        let stopped = match &self.course.phase {
            Phase::Running | Phase::Paused { .. } => false,
            Phase::Failed { why, .. } => why.is_some(),
            other => return Err(Error::Phase(other.word())),
        };
        let may = |assignment: &Assignment| match assignment {
            Assignment::Failed { .. } => true,
            Assignment::Aborted { .. } => stopped,
            _ => false,
        };
        for database in databases {
            match self.assignments.get(database) {
                None => return Err(Error::NotIncluded(database.clone())),
                // It was asked for before.
                Some(Assignment::Waiting { .. } | Assignment::Leasing(_) | Assignment::Running { .. }) => {}
                Some(assignment) if may(assignment) => {}
                Some(other) => return Err(super::state(database, other, "failed")),
            }
        }
        let chosen: Vec<_> = self
            .assignments
            .iter()
            .filter(|(database, assignment)| {
                may(assignment)
                    && (databases.is_empty()
                        || databases.contains(*database)
                        || matches!(assignment, Assignment::Aborted { .. }))
            })
            .map(|(database, assignment)| (database.clone(), again(assignment)))
            .collect();
        if chosen.is_empty() {
            return Ok(Vec::new());
        }
        let mut effects = Vec::new();
        for (database, waiting) in chosen {
            // Failed, Aborted -> Waiting: someone has mended what was wrong.
            effects.extend(self.record(database, waiting, []));
        }
        self.course.over_since = None;
        self.course.checked = false;
        effects.extend(self.go_on());
        Ok(effects)
    }

    fn skip(
        &mut self,
        databases: &BTreeSet<DatabaseName>,
        skip: &Skip,
        now: Time,
    ) -> Result<Vec<Effect>, Error> {
        match &self.course.phase {
            Phase::Running | Phase::Paused { .. } => {}
            other => return Err(Error::Phase(other.word())),
        }
        let mut skipped = Vec::new();
        for database in databases {
            let spent = self.spent_on(database);
            let (agent, attempt, last) = match self.assignments.get(database) {
                None => return Err(Error::NotIncluded(database.clone())),
                Some(Assignment::Skipped { .. }) => continue,
                Some(Assignment::Waiting { failures, last, .. }) => (
                    last.as_ref().map(Setback::agent).cloned(),
                    *failures,
                    last.clone(),
                ),
                Some(Assignment::Failed {
                    agent,
                    attempt,
                    failure,
                    ..
                }) => {
                    let (agent, failure) = (agent.clone(), failure.clone());
                    (
                        Some(agent.clone()),
                        *attempt,
                        Some(Setback::Failed { agent, failure }),
                    )
                }
                Some(other) => return Err(super::state(database, other, "waiting or failed")),
            };
            let skip = skip.clone();
            let assignment = Assignment::Skipped {
                skip,
                agent,
                attempt,
                ended_at: now,
                last,
                spent,
            };
            skipped.push((database.clone(), assignment));
        }
        if skipped.is_empty() {
            return Ok(Vec::new());
        }
        let mut effects = Vec::new();
        for (database, assignment) in skipped {
            // Waiting, Failed -> Skipped: someone asked. A rollout that is paused stays so until it is resumed.
            effects.extend(self.record(database, assignment, []));
        }
        Ok(effects)
    }

    /// After a retry: goes on, unless someone paused it, or as many others failed as may.
    fn go_on(&mut self) -> Vec<Effect> {
        let paused_by_budget = matches!(
            self.course.phase,
            Phase::Paused {
                pause: Pause::Budget { .. }
            }
        );
        let ended = self.course.phase.is_ended();
        let runs = matches!(self.course.phase, Phase::Running);
        match self.spent() {
            // Failed, Paused -> Running: what failed is tried again.
            None if ended || paused_by_budget => self.go(Phase::Running),
            // Failed, Running, Paused -> Paused: as many others failed as may, and they count until someone resumes.
            Some(pause) if ended || runs || paused_by_budget => self.go(Phase::Paused { pause }),
            None | Some(_) => vec![Effect::Course(self.course.clone())],
        }
    }

    /// The wave that is meant; by default the next that waits for approval.
    fn wave_to_approve(&self, named: Option<&str>) -> Result<usize, Error> {
        let waves = &self.spec.waves;
        let none = |why: String| Err(Error::Approval(why));
        let Some(named) = named else {
            // Asked again, it must not approve the one after that too.
            let ahead = (self.course.wave + 1..waves.len()).find(|place| waves[*place].approval);
            return match ahead.or_else(|| self.course.approved.last().copied()) {
                Some(place) => Ok(place),
                None => none("no wave waits for approval".to_owned()),
            };
        };
        let known = || {
            waves
                .iter()
                .map(|wave| wave.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        match waves.iter().position(|wave| wave.name == named) {
            None => none(format!("there is no wave `{named}`: the waves are {}", known())),
            Some(place) if !waves[place].approval => {
                none(format!("wave {named} needs no approval: it begins by itself"))
            }
            Some(place) => Ok(place),
        }
    }

    fn approve(&mut self, wave: usize) -> Result<Vec<Effect>, Error> {
        match &self.course.phase {
            Phase::Running | Phase::Paused { .. } => {}
            other => return Err(Error::Phase(other.word())),
        }
        if wave <= self.course.wave || !self.course.approved.insert(wave) {
            return Ok(Vec::new());
        }
        Ok(vec![Effect::Course(self.course.clone())])
    }
}

/// As before its first attempt, but for the memory of the last.
fn again(assignment: &Assignment) -> Assignment {
    let last = match assignment {
        Assignment::Failed { agent, failure, .. } => {
            let (agent, failure) = (agent.clone(), failure.clone());
            Some(Setback::Failed { agent, failure })
        }
        Assignment::Aborted { last, .. } => last.clone(),
        _ => None,
    };
    Assignment::Waiting {
        failures: 0,
        not_before: Time(0),
        last,
        spent: assignment.spent(),
    }
}
