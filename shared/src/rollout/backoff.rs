//! How long to wait before the next attempt.

use crate::id::{DatabaseName, RolloutId};
use std::time::Duration;

/// How long to wait after errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// After the first failure; doubles with each further one.
    pub initial: Duration,
    /// The longest wait.
    pub longest: Duration,
}

impl Backoff {
    /// The wait after this many failures (from 1): 1, 2, 4, .. 30 s by default, each a fifth more or less, so that
    /// databases that failed together (their server restarted) do not all come back together.
    pub fn after(self, failures: u32, seed: u64) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let base = self.initial.saturating_mul(1 << doublings).min(self.longest);
        // The top 32 bits of a well-mixed seed, as a fraction.
        let fraction = f64::from(u32::try_from(mix(seed) >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX);
        base.mul_f64(0.8 + 0.4 * fraction).min(self.longest)
    }
}

/// The seed of one attempt: the same on every coordinator and after every restart.
pub fn seed(rollout: &RolloutId, database: &DatabaseName, failures: u32) -> u64 {
    hash([rollout.as_str(), database.as_str()]) ^ u64::from(failures)
}

/// FNV-1a, 64 bits (<http://www.isthe.com/chongo/tech/comp/fnv/>), of texts with a zero between them.
pub(super) fn hash(texts: [&str; 2]) -> u64 {
    let [one, other] = texts.map(str::bytes);
    one.chain([0])
        .chain(other)
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

/// The finaliser of `SplitMix64` (Steele, Lea, Flood 2014): near seeds give unrelated numbers.
pub(super) fn mix(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Backoff = Backoff {
        initial: Duration::from_secs(1),
        longest: Duration::from_secs(30),
    };

    #[test]
    fn waits_double_up_to_a_bound() {
        for seed in 0..1000 {
            for (failures, base) in [(1, 1.0), (2, 2.0), (3, 4.0), (5, 16.0)] {
                let wait = DEFAULT.after(failures, seed).as_secs_f64();
                assert!((base * 0.8..=base * 1.2).contains(&wait), "{failures} {wait}");
            }
            assert!(DEFAULT.after(u32::MAX, seed) <= DEFAULT.longest);
        }
    }

    #[test]
    fn databases_that_failed_together_come_back_apart() {
        let rollout = RolloutId::from_random(1);
        let waits: std::collections::BTreeSet<_> = (0..100)
            .map(|n| seed(&rollout, &DatabaseName::try_from(format!("db{n}")).unwrap(), 1))
            .map(|seed| DEFAULT.after(1, seed).as_millis() / 40)
            .collect();
        assert!(waits.len() >= 8, "{waits:?}");
    }
}
