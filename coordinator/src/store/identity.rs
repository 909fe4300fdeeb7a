//! Which founding of a store this is: an id and an epoch, written by whoever comes first. A store that was put back from
//! a copy gets a later epoch by `confiture coordinator recover`.

use super::{Condition, Error, Outcome, Store, Transaction, Write};
use serde::{Deserialize, Serialize};
use shared::id::StoreId;
use shared::retry::Retryability;

/// Where it is kept.
const KEY: &str = "meta";

/// What is kept there, as JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Meta {
    store_id: StoreId,
    /// Seconds since 1970 when the store was founded, or recovered; larger than any before.
    epoch: i64,
}

/// The store's id and epoch. A store that has none gets the ones given: a random id, and now in seconds since 1970.
///
/// # Errors
/// When the store does not answer, or its entry cannot be read.
pub async fn identity(store: &dyn Store, new: StoreId, now: i64) -> Result<(StoreId, i64), Error> {
    if let Some(found) = read(store).await? {
        return Ok(found);
    }
    let meta = Meta {
        store_id: new,
        epoch: now,
    };
    let value = serde_json::to_vec(&meta).expect("a uuid and a number are always JSON");
    let founding = Transaction {
        conditions: vec![Condition::Absent(KEY.to_owned())],
        writes: vec![Write::Put {
            key: KEY.to_owned(),
            value,
            lease: None,
        }],
    };
    match store.commit(founding).await {
        Ok(Outcome::Committed { .. }) => Ok((meta.store_id, meta.epoch)),
        // Another coordinator founded it meanwhile: its word counts.
        Ok(Outcome::Refused) => read(store)
            .await?
            .ok_or_else(|| unreadable("it vanished while it was read".into())),
        // The answer was lost; whether it was written can be read.
        Err(lost) if lost.retryability() == Retryability::Retry => read(store).await?.ok_or(lost),
        Err(error) => Err(error),
    }
}

/// What makes the store one of a later epoch. To be written by its leader.
pub(crate) fn renewal(store_id: StoreId, epoch: i64) -> Write {
    let meta = Meta { store_id, epoch };
    Write::Put {
        key: KEY.to_owned(),
        value: serde_json::to_vec(&meta).expect("a uuid and a number are always JSON"),
        lease: None,
    }
}

async fn read(store: &dyn Store) -> Result<Option<(StoreId, i64)>, Error> {
    let Some(entry) = store.read(KEY).await? else {
        return Ok(None);
    };
    let meta: Meta = serde_json::from_slice(&entry.value).map_err(|source| unreadable(source.into()))?;
    Ok(Some((meta.store_id, meta.epoch)))
}

fn unreadable(source: super::error::Cause) -> Error {
    Error::Unreadable {
        key: KEY.to_owned(),
        source,
    }
}
