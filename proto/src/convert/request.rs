//! What operators ask for.

use super::policy::{policy_from_wire, policy_to_wire};
use super::work::data_loss;
use super::{Error, name};
use crate::v1;
use shared::id::{RequestId, SetName};
use shared::ledger::DataLoss;
use shared::migration::File;
use shared::rollout::undo::{Hours, Wish};
use shared::rollout::{Bundle, Policy, Selector, selector};

/// A request for a new rollout, checked as far as it can be without knowing the fleet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Create {
    /// Makes repeating the request harmless.
    pub request: RequestId,
    /// The files.
    pub bundle: Bundle,
    /// Which databases.
    pub selector: Selector,
    /// What it keeps to.
    pub policy: Policy,
    /// Who asks.
    pub created_by: String,
}

impl Create {
    /// As sent.
    pub fn to_wire(self) -> v1::CreateRolloutRequest {
        v1::CreateRolloutRequest {
            request_id: self.request.into(),
            bundle: Some(bundle_to_wire(self.bundle)),
            selector: Some(selector_to_wire(self.selector)),
            policy: Some(policy_to_wire(self.policy)),
            created_by: self.created_by,
        }
    }

    /// As received.
    pub fn from_wire(wire: v1::CreateRolloutRequest) -> Result<Self, Error> {
        Ok(Self {
            request: name("request_id", wire.request_id)?,
            bundle: bundle_from_wire(super::required("bundle", wire.bundle)?)?,
            selector: selector_from_wire(wire.selector.unwrap_or_default())?,
            policy: policy_from_wire(wire.policy.unwrap_or_default())?,
            created_by: wire.created_by,
        })
    }
}

/// A request to say what a rollout would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The files.
    pub bundle: Bundle,
    /// Which databases.
    pub selector: Selector,
    /// What it would keep to.
    pub policy: Policy,
}

impl Plan {
    /// As sent.
    pub fn to_wire(self) -> v1::PlanRolloutRequest {
        v1::PlanRolloutRequest {
            bundle: Some(bundle_to_wire(self.bundle)),
            selector: Some(selector_to_wire(self.selector)),
            policy: Some(policy_to_wire(self.policy)),
        }
    }

    /// As received.
    pub fn from_wire(wire: v1::PlanRolloutRequest) -> Result<Self, Error> {
        Ok(Self {
            bundle: bundle_from_wire(super::required("bundle", wire.bundle)?)?,
            selector: selector_from_wire(wire.selector.unwrap_or_default())?,
            policy: policy_from_wire(wire.policy.unwrap_or_default())?,
        })
    }
}

/// A request to take a rollout back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undo {
    /// The id of the rollout, or the beginning of it.
    pub id: String,
    /// How.
    pub wish: Wish,
}

impl Undo {
    /// As sent.
    pub fn to_wire(self) -> v1::UndoRolloutRequest {
        v1::UndoRolloutRequest {
            id: self.id,
            reason: self.wish.reason,
            requested_by: self.wish.by,
            request_id: self.wish.request.into(),
            allow_data_loss: self.wish.data_loss == DataLoss::Allowed,
            ignore_windows: self.wish.hours == Hours::Ignored,
        }
    }

    /// As received.
    pub fn from_wire(wire: v1::UndoRolloutRequest) -> Result<Self, Error> {
        Ok(Self {
            id: wire.id,
            wish: Wish {
                request: name("request_id", wire.request_id)?,
                data_loss: data_loss(wire.allow_data_loss),
                hours: if wire.ignore_windows {
                    Hours::Ignored
                } else {
                    Hours::Kept
                },
                by: wire.requested_by,
                reason: wire.reason,
                // It comes beside the message.
                trace: None,
            },
        })
    }
}

/// The files of a set.
pub fn bundle_to_wire(bundle: Bundle) -> v1::Bundle {
    let files = bundle.files.into_iter().map(|file| v1::File {
        path: file.path,
        content: file.content,
    });
    v1::Bundle {
        set: bundle.set.into(),
        files: files.collect(),
    }
}

/// The files of a set; one without a name is the default set.
pub fn bundle_from_wire(wire: v1::Bundle) -> Result<Bundle, Error> {
    let set = super::name_or_none("bundle.set", wire.set)?.unwrap_or_else(SetName::default_set);
    let files = wire.files.into_iter().map(|file| File {
        path: file.path,
        content: file.content,
    });
    Ok(Bundle {
        set,
        files: files.collect(),
    })
}

/// Which databases.
pub fn selector_to_wire(selector: Selector) -> v1::Selector {
    match selector {
        Selector::All => v1::Selector {
            labels: std::collections::HashMap::new(),
            all: true,
        },
        Selector::Labels(labels) => v1::Selector {
            labels: labels.into_iter().collect(),
            all: false,
        },
    }
}

/// Which databases: exactly one of labels and all.
pub fn selector_from_wire(wire: v1::Selector) -> Result<Selector, Error> {
    let selector = match (wire.all, wire.labels.is_empty()) {
        (true, true) => Ok(Selector::All),
        (true, false) => Err(selector::Error::Both),
        (false, _) => Selector::of_labels(wire.labels.into_iter().collect()),
    };
    selector.map_err(|source| Error::Invalid {
        field: "selector",
        source: Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create() -> Create {
        Create {
            request: RequestId::try_from("ci-17").unwrap(),
            bundle: Bundle {
                set: SetName::try_from("audit").unwrap(),
                files: vec![File {
                    path: "001_a.up.sql".to_owned(),
                    content: b"SELECT 1".to_vec(),
                }],
            },
            selector: Selector::parse("env=prod").unwrap(),
            policy: Policy {
                max_in_flight: 3,
                ..Policy::default()
            },
            created_by: "ada".to_owned(),
        }
    }

    #[test]
    fn a_request_survives_the_wire() {
        assert_eq!(Create::from_wire(create().to_wire()).unwrap(), create());
    }

    #[test]
    fn a_request_without_selector_is_told_to_give_one() {
        let wire = v1::CreateRolloutRequest {
            selector: None,
            ..create().to_wire()
        };
        let text = Create::from_wire(wire).unwrap_err().chain();
        assert!(text.contains("--all"), "{text}");
    }

    #[test]
    fn labels_and_all_together_are_refused() {
        let wire = v1::Selector {
            all: true,
            ..selector_to_wire(create().selector)
        };
        assert!(selector_from_wire(wire).is_err());
    }

    #[test]
    fn a_request_id_that_would_break_a_key_is_refused() {
        let wire = v1::CreateRolloutRequest {
            request_id: "a/b".to_owned(),
            ..create().to_wire()
        };
        assert!(
            Create::from_wire(wire)
                .unwrap_err()
                .chain()
                .contains("request_id")
        );
    }
}
