//! Names of indexes that are being built or dropped.
//!
//! They carry a digest of the index and the fence of the run, so that whoever finds one knows whose it is; a statement
//! of a run that was replaced and arrives late meets only names of its own.

use crate::fence::Fence;
use crate::id::Digest;
use crate::name::Ident;

/// What an index under such a name is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// It is being built.
    Build,
    /// It is being dropped.
    Drop,
}

/// What the names of one index begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temporary(String);

/// What all names of ours begin with.
const START: &str = "confiture_";

impl Temporary {
    /// For the index that people know by this name.
    pub fn of(purpose: Purpose, index: &str) -> Self {
        let letter = match purpose {
            Purpose::Build => 'b',
            Purpose::Drop => 'd',
        };
        let digest = Digest::of(index.as_bytes()).short();
        Self(format!("{START}{letter}_{}_", &digest[..8]))
    }

    /// What the names begin with.
    pub fn start(&self) -> &str {
        &self.0
    }

    /// The name for a run with this fence: 62 bytes at most.
    pub fn name(&self, fence: Fence) -> Ident {
        let [epoch, token, local] = [fence.epoch, fence.token, fence.local].map(base36);
        Ident::exact(format!("{}{epoch}_{token}_{local}", self.0))
            .expect("at most 62 ASCII characters are a name")
    }

    /// Reads such a name: what it is there for, and the fence of the run that gave it.
    pub fn read(name: &str) -> Option<(Purpose, Fence)> {
        let mut parts = name.strip_prefix(START)?.split('_');
        let purpose = match parts.next()? {
            "b" => Purpose::Build,
            "d" => Purpose::Drop,
            _ => return None,
        };
        parts.next().filter(|digest| digest.len() == 8)?;
        let mut number = || i64::from_str_radix(parts.next()?, 36).ok();
        let fence = Fence {
            epoch: number()?,
            token: number()?,
            local: number()?,
        };
        parts.next().is_none().then_some((purpose, fence))
    }
}

/// Digits and lower-case letters: the shortest that needs no quotes.
fn base36(number: i64) -> String {
    let mut digits = Vec::new();
    let mut left = number.unsigned_abs();
    loop {
        let digit = u32::try_from(left % 36).unwrap_or(0);
        digits.push(char::from_digit(digit, 36).unwrap_or('0'));
        left /= 36;
        if left == 0 {
            return digits.iter().rev().collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_fence_back_and_fits() {
        for fence in [
            Fence::NONE,
            Fence {
                epoch: 1_790_000_000,
                token: 42,
                local: 3,
            },
            Fence {
                epoch: i64::MAX,
                token: i64::MAX,
                local: i64::MAX,
            },
        ] {
            let name = Temporary::of(Purpose::Drop, "\"public\".\"i\"").name(fence);
            assert_eq!(Temporary::read(name.as_str()), Some((Purpose::Drop, fence)));
            assert!(name.as_str().len() <= 62);
        }
    }

    #[test]
    fn names_of_others_are_not_taken_for_ours() {
        for name in [
            "confiture_b_",
            "confiture_b_12345678_1_2",
            "confiture_x_12345678_1_2_3",
            "orders_idx",
            "confiture_b_12345678_1_2_3_4",
        ] {
            assert_eq!(Temporary::read(name), None, "{name}");
        }
    }
}
