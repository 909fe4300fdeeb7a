//! `vacuum: true | false | SHARE`: whether a relation is vacuumed between batches, and how often.

use crate::batch::VACUUM_SHARE;
use serde::de::{Deserialize, Deserializer, Visitor};
use std::fmt;

/// Whether a relation is vacuumed between batches.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Vacuuming {
    /// It is not: autovacuum does what it does.
    #[default]
    Never,
    /// Whenever [`VACUUM_SHARE`] of its rows was changed.
    Usual,
    /// Whenever this share of its rows was changed.
    After(f64),
}

impl Vacuuming {
    /// The share of rows after whose change it is; `None` is never.
    pub fn share(self) -> Option<f64> {
        match self {
            Self::Never => None,
            Self::Usual => Some(VACUUM_SHARE),
            Self::After(share) => Some(share),
        }
    }
}

struct Written;

impl Visitor<'_> for Written {
    type Value = Vacuuming;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("true, false or a share of the rows such as 0.1")
    }

    fn visit_bool<E: serde::de::Error>(self, yes: bool) -> Result<Vacuuming, E> {
        Ok(if yes { Vacuuming::Usual } else { Vacuuming::Never })
    }

    fn visit_f64<E: serde::de::Error>(self, share: f64) -> Result<Vacuuming, E> {
        Ok(Vacuuming::After(share))
    }

    fn visit_u64<E: serde::de::Error>(self, share: u64) -> Result<Vacuuming, E> {
        #[expect(clippy::cast_precision_loss, reason = "whatever is above 1 is refused")]
        self.visit_f64(share as f64)
    }

    fn visit_i64<E: serde::de::Error>(self, share: i64) -> Result<Vacuuming, E> {
        #[expect(clippy::cast_precision_loss, reason = "whatever is below 0.01 is refused")]
        self.visit_f64(share as f64)
    }
}

impl<'de> Deserialize<'de> for Vacuuming {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Written)
    }
}
