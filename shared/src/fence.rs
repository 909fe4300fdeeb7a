//! The fence: a token that only grows, checked by the target database itself in every write.

use crate::id::{Holder, StoreId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// `(epoch, token, local)`, compared in that order.
///
/// - `epoch`: seconds since 1970 when the store was founded;
/// - `token`: the store's revision at which the lease was granted;
/// - `local`: 0 for the fleet; a run without a coordinator takes one more than it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    /// The store's epoch, in seconds since 1970.
    pub epoch: i64,
    /// The lease's revision in that store.
    pub token: i64,
    /// Runs without a coordinator since that lease.
    pub local: i64,
}

impl Fence {
    /// The fence of a database that nobody has held yet. Smaller than every fence of a lease.
    pub const NONE: Self = Self {
        epoch: 0,
        token: 0,
        local: 0,
    };

    /// The fence of a fleet's lease.
    pub fn of_lease(epoch: i64, token: i64) -> Self {
        Self {
            epoch,
            token,
            local: 0,
        }
    }

    /// The fence that a run without a coordinator takes after it read this one.
    #[must_use]
    pub fn next_local(self) -> Self {
        Self {
            local: self.local + 1,
            ..self
        }
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.token, self.local)
    }
}

/// The text was not `epoch.token.local`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a fence (epoch.token.local)")]
pub struct ParseError(String);

impl std::str::FromStr for Fence {
    type Err = ParseError;
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let mut parts = text.split('.').map(str::parse);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Ok(epoch)), Some(Ok(token)), Some(Ok(local)), None) => Ok(Self { epoch, token, local }),
            _ => Err(ParseError(text.to_owned())),
        }
    }
}

/// The row `confiture.fence` as read from a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The fence in force.
    pub fence: Fence,
    /// Who has it.
    pub holder: Holder,
    /// The store that issued it; `None` for a run without a coordinator on a database no fleet has seen.
    pub store: Option<StoreId>,
}

/// What a fence that is in force means to one who wants to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It is ours.
    Ours,
    /// It is smaller: it can be taken over.
    Older,
    /// It is larger, of the same store: someone else has been given the database.
    Replaced,
    /// It is larger, and another store issued it: another or a restored store.
    Foreign,
}

impl Held {
    /// How `self`, the fence in force, stands to a claim. Equal counts as ours only if the holder is ours.
    pub fn standing(&self, claim: Fence, holder: Holder, store: Option<StoreId>) -> Standing {
        if self.fence == claim && self.holder == holder {
            return Standing::Ours;
        }
        if self.fence < claim {
            return Standing::Older;
        }
        if store.is_some() && self.store.is_some() && self.store != store {
            return Standing::Foreign;
        }
        Standing::Replaced
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn held(fence: Fence, holder: u128, store: u128) -> Held {
        Held {
            fence,
            holder: Holder(Uuid::from_u128(holder)),
            store: Some(StoreId(Uuid::from_u128(store))),
        }
    }

    #[test]
    fn epoch_counts_before_token_and_token_before_local() {
        let small = Fence {
            epoch: 1,
            token: 9,
            local: 9,
        };
        let large = Fence {
            epoch: 2,
            token: 1,
            local: 0,
        };
        assert!(small < large);
        assert!(large < large.next_local());
        assert!(large.next_local() < Fence::of_lease(2, 2));
    }

    #[test]
    fn an_equal_fence_of_another_holder_is_not_ours() {
        let fence = Fence::of_lease(1, 5);
        let store = Some(StoreId(Uuid::from_u128(1)));
        assert_eq!(
            held(fence, 7, 1).standing(fence, Holder(Uuid::from_u128(7)), store),
            Standing::Ours
        );
        assert_eq!(
            held(fence, 7, 1).standing(fence, Holder(Uuid::from_u128(8)), store),
            Standing::Replaced
        );
    }

    #[test]
    fn a_larger_fence_of_another_store_is_foreign() {
        let store = Some(StoreId(Uuid::from_u128(1)));
        let mine = Fence::of_lease(1, 5);
        assert_eq!(
            held(Fence::of_lease(2, 1), 7, 2).standing(mine, Holder(Uuid::from_u128(8)), store),
            Standing::Foreign
        );
        assert_eq!(
            held(Fence::of_lease(1, 1), 7, 2).standing(mine, Holder(Uuid::from_u128(8)), store),
            Standing::Older
        );
    }

    #[test]
    fn a_fence_survives_its_text() {
        let fence = Fence {
            epoch: 1_790_000_000,
            token: 42,
            local: 3,
        };
        assert_eq!(fence.to_string().parse::<Fence>().unwrap(), fence);
        assert!("1.2".parse::<Fence>().is_err());
    }
}
