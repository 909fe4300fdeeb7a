//! What was asked for.

use super::policy::Policy;
use super::selector::Selector;
use super::time::Time;
use super::waves::Wave;
use super::work::Aim;
use crate::id::{DatabaseName, Digest, RequestId, RolloutId, SetName};
use crate::migration::Version;
use crate::trace::Place;
use serde::{Deserialize, Serialize};

/// What was asked for; never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The rollout's id.
    pub id: RolloutId,
    /// The request that founded it: the same request again founds nothing.
    pub request: RequestId,
    /// Grows by one with each rollout: the order in which they take turns on a database they share.
    pub number: u64,
    /// The set it brings.
    pub set: SetName,
    /// The bundle of that set.
    pub bundle: Digest,
    /// The versions in the bundle.
    pub versions: Vec<Version>,
    /// What it is to make of its databases.
    #[serde(default)]
    pub aim: Aim,
    /// How databases were chosen.
    pub selector: Selector,
    /// Its limits.
    pub policy: Policy,
    /// Who asked for it.
    pub created_by: String,
    /// Why; empty where nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When.
    pub created_at: Time,
    /// Under which span of the caller's its own hang, where the caller said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Place>,
    /// The databases chosen, as the fleet was then, in the order they come; never empty.
    pub waves: Vec<Wave>,
}

impl Spec {
    /// The rollout whose migrations it takes back.
    pub fn undoes(&self) -> Option<&RolloutId> {
        match &self.aim {
            Aim::Apply => None,
            Aim::Undo { rollout, .. } => Some(rollout),
        }
    }

    /// The span of the whole rollout.
    pub fn place(&self) -> Place {
        match self.trace {
            Some(caller) => caller.below(&["rollout", self.id.as_str()]),
            None => Place::root(self.id.as_str()),
        }
    }

    /// The span of one of its waves, from 0.
    pub fn place_of_wave(&self, wave: usize) -> Place {
        self.place().below(&["wave", self.id.as_str(), &wave.to_string()])
    }

    /// The span of its work on a database, all attempts together.
    pub fn place_of(&self, database: &DatabaseName) -> Place {
        self.place()
            .below(&["database", self.id.as_str(), database.as_str()])
    }

    /// The databases chosen, wave by wave.
    pub fn databases(&self) -> impl Iterator<Item = &DatabaseName> {
        self.waves.iter().flat_map(|wave| &wave.databases)
    }

    /// How many databases were chosen.
    pub fn size(&self) -> usize {
        self.waves.iter().map(|wave| wave.databases.len()).sum()
    }
}
