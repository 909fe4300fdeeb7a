//! What operators ask of a rollout, on the wire.

use super::{Error, name, required};
use crate::v1;
use crate::v1::verb::Verb as Wire;
use shared::id::DatabaseName;
use shared::rollout::control::Action;
use shared::rollout::{Time, Verb};
use std::collections::BTreeSet;

/// A verb, as sent.
pub fn verb_to_wire(verb: Verb) -> v1::Verb {
    let names = |databases: BTreeSet<DatabaseName>| databases.into_iter().map(String::from).collect();
    let verb = match verb {
        Verb::Pause => Wire::Pause(v1::verb::Pause {}),
        Verb::Resume => Wire::Resume(v1::verb::Resume {}),
        Verb::IgnoreChecks => Wire::IgnoreChecks(v1::verb::IgnoreChecks {}),
        Verb::Abort => Wire::Abort(v1::verb::Abort {}),
        Verb::Retry { databases } => Wire::Retry(v1::verb::Retry {
            databases: names(databases),
        }),
        Verb::Skip { databases } => Wire::Skip(v1::verb::Skip {
            databases: names(databases),
        }),
        Verb::Approve { wave } => Wire::Approve(v1::verb::Approve {
            wave: wave.unwrap_or_default(),
        }),
        Verb::Undo { rollout } => Wire::Undo(v1::verb::Undo {
            rollout: rollout.into(),
        }),
    };
    v1::Verb { verb: Some(verb) }
}

/// A verb, as received.
pub fn verb_from_wire(wire: v1::Verb) -> Result<Verb, Error> {
    Ok(match required("verb", wire.verb)? {
        Wire::Pause(_) => Verb::Pause,
        Wire::Resume(_) => Verb::Resume,
        Wire::IgnoreChecks(_) => Verb::IgnoreChecks,
        Wire::Abort(_) => Verb::Abort,
        Wire::Retry(retry) => Verb::Retry {
            databases: names(retry.databases)?,
        },
        Wire::Skip(skip) if skip.databases.is_empty() => return Err(Error::Missing("verb.skip.databases")),
        Wire::Skip(skip) => Verb::Skip {
            databases: names(skip.databases)?,
        },
        Wire::Approve(approve) => Verb::Approve {
            wave: Some(approve.wave).filter(|wave| !wave.is_empty()),
        },
        Wire::Undo(undo) => Verb::Undo {
            rollout: name("verb.undo.rollout", undo.rollout)?,
        },
    })
}

fn names(wire: Vec<String>) -> Result<BTreeSet<DatabaseName>, Error> {
    let read = |given| name("verb.databases", given);
    wire.into_iter().map(read).collect()
}

/// A recorded action, as sent.
pub fn action_to_wire(action: Action) -> v1::Action {
    v1::Action {
        verb: Some(verb_to_wire(action.verb)),
        requested_by: action.by,
        reason: action.reason,
        at_unix_ms: action.at.0,
    }
}

/// A recorded action, as received.
pub fn action_from_wire(wire: v1::Action) -> Result<Action, Error> {
    Ok(Action {
        verb: verb_from_wire(required("action.verb", wire.verb)?)?,
        by: wire.requested_by,
        reason: wire.reason,
        at: Time(wire.at_unix_ms),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_survives_the_wire() {
        let databases = || BTreeSet::from([DatabaseName::try_from("orders").unwrap()]);
        let verbs = [
            Verb::Pause,
            Verb::Resume,
            Verb::IgnoreChecks,
            Verb::Abort,
            Verb::Retry {
                databases: BTreeSet::new(),
            },
            Verb::Retry {
                databases: databases(),
            },
            Verb::Skip {
                databases: databases(),
            },
            Verb::Approve { wave: None },
            Verb::Approve {
                wave: Some("gold".to_owned()),
            },
            Verb::Undo {
                rollout: shared::id::RolloutId::try_from("r").unwrap(),
            },
        ];
        for verb in verbs {
            let action = Action {
                verb,
                by: "ada".to_owned(),
                reason: "why not".to_owned(),
                at: Time(7),
            };
            assert_eq!(action_from_wire(action_to_wire(action.clone())).unwrap(), action);
        }
    }

    #[test]
    fn to_skip_nothing_is_refused() {
        let skip = v1::Verb {
            verb: Some(Wire::Skip(v1::verb::Skip::default())),
        };
        assert!(verb_from_wire(skip).is_err());
    }
}
