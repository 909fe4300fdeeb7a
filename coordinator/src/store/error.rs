//! Why a store could not answer, and whether to ask again.

use super::LeaseId;
use shared::retry::Retryability;

/// A cause, of whichever implementation.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached, or gave no answer in time. A write may or may not have happened: read again.
    #[error("the store {store} does not answer")]
    Unavailable {
        /// Which store, as in the settings, without a password.
        store: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// It refused the request; asking again will not help.
    #[error("the store {store} refused the request")]
    Refused {
        /// Which store.
        store: String,
        /// The cause.
        #[source]
        source: Cause,
    },
    /// It could not be opened.
    #[error("the store {store} cannot be opened: {why}")]
    Open {
        /// Which store.
        store: String,
        /// Why, and what to do.
        why: String,
    },
    /// The lease named in a write does not exist any more. Nothing was written.
    #[error("the lease {} is gone", .0.0)]
    LeaseGone(LeaseId),
    /// A value or transaction beyond the limits. Nothing was written.
    #[error("a write beyond the store's limits: {0}")]
    TooLarge(String),
    /// A request that no store understands: an empty key, a key written twice, a lease without time.
    #[error("a request that makes no sense: {0}")]
    Invalid(String),
    /// An entry that this version cannot read.
    #[error("the store's entry `{key}` cannot be read")]
    Unreadable {
        /// The entry's key.
        key: String,
        /// The cause.
        #[source]
        source: Cause,
    },
}

impl Error {
    /// Whether the same request may succeed later. After [`Error::Unavailable`] read before writing again.
    pub fn retryability(&self) -> Retryability {
        match self {
            Self::Unavailable { .. } => Retryability::Retry,
            Self::Refused { .. }
            | Self::Open { .. }
            | Self::LeaseGone(_)
            | Self::TooLarge(_)
            | Self::Invalid(_)
            | Self::Unreadable { .. } => Retryability::GiveUp,
        }
    }
}
