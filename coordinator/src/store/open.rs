//! From the settings to a store.

use super::embedded::Embedded;
use super::etcd::Etcd;
use super::{Error, Store};
use shared::settings::StoreUrl;
use std::sync::Arc;

/// What to do when there is no store at the place named. Starting in the wrong directory must not found a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// Found a new one (`--init`).
    Create,
    /// Refuse, and tell how to found one.
    Refuse,
}

/// Opens the store of the settings. `missing` is about files; a store in memory and a prefix in etcd need no founding.
///
/// # Errors
/// [`Error::Open`] when the place or a file of the settings is wrong; [`Error::Unavailable`] when etcd does not answer,
/// which may be worth another try.
pub async fn open(url: &StoreUrl, missing: Missing) -> Result<Arc<dyn Store>, Error> {
    Ok(match url {
        StoreUrl::Memory => Arc::new(Embedded::in_memory().await?),
        StoreUrl::File(path) => Arc::new(Embedded::open(path, missing).await?),
        StoreUrl::Etcd(settings) => Arc::new(Etcd::open(settings).await?),
    })
}
