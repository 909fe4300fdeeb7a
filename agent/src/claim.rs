//! Who wants to write, with which fence.

use shared::fence::Fence;
use shared::id::{Holder, RolloutId, SetName, StoreId};
use shared::migration::Version;
use shared::sql::Tag;
use tokio_postgres::types::{ToSql, Type};

/// A fence and who holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) fence: Fence,
    pub(crate) holder: Holder,
    /// The store that issued the lease; none for a run without a coordinator.
    pub(crate) store: Option<StoreId>,
    /// The rollout it works for.
    pub(crate) rollout: Option<RolloutId>,
    /// Who it is, for people.
    pub(crate) description: String,
}

impl Claim {
    /// The tag of statements that belong to no step.
    pub(crate) fn tag(&self) -> Tag {
        Tag {
            place: None,
            fence: self.fence,
        }
    }

    /// The tag of a step's statements; steps count from 1.
    pub(crate) fn tag_at(&self, set: &SetName, version: &Version, step: u32) -> Tag {
        Tag {
            place: Some((set.clone(), version.clone(), step)),
            fence: self.fence,
        }
    }

    /// Epoch, token, local and holder as parameters.
    pub(crate) fn params(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        [
            (&self.fence.epoch, Type::INT8),
            (&self.fence.token, Type::INT8),
            (&self.fence.local, Type::INT8),
            (&self.holder.0, Type::UUID),
        ]
    }
}
