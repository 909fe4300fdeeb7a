//! Pools of connections on the wire.

use super::{Error, required};
use crate::v1;
use shared::pool::{Places, Pools, Stats};
use std::time::Duration;

/// The pools of a database, as sent.
pub fn pools_to_wire(pools: &Pools) -> v1::Pools {
    v1::Pools {
        transactions: Some(stats_to_wire(&pools.transactions)),
        outside: Some(stats_to_wire(&pools.outside)),
        places: pools.places.map(|places| v1::Places {
            most: places.most as u64,
            free: places.free as u64,
        }),
    }
}

/// The pools of a database, as received.
///
/// # Errors
/// When one of them is missing.
pub fn pools_from_wire(wire: v1::Pools) -> Result<Pools, Error> {
    Ok(Pools {
        transactions: stats_from_wire(&required("pools.transactions", wire.transactions)?),
        outside: stats_from_wire(&required("pools.outside", wire.outside)?),
        places: wire.places.map(|places| Places {
            most: number(places.most),
            free: number(places.free),
        }),
    })
}

fn stats_to_wire(stats: &Stats) -> v1::Pool {
    v1::Pool {
        active: stats.active as u64,
        idle: stats.idle as u64,
        waiting: stats.waiting as u64,
        max: stats.max as u64,
        created: stats.created,
        recycled: stats.recycled,
        given_up: stats.given_up,
        longest_wait_us: u64::try_from(stats.longest_wait.as_micros()).unwrap_or(u64::MAX),
    }
}

fn stats_from_wire(wire: &v1::Pool) -> Stats {
    Stats {
        active: number(wire.active),
        idle: number(wire.idle),
        waiting: number(wire.waiting),
        max: number(wire.max),
        created: wire.created,
        recycled: wire.recycled,
        given_up: wire.given_up,
        longest_wait: Duration::from_micros(wire.longest_wait_us),
    }
}

fn number(wire: u64) -> usize {
    usize::try_from(wire).unwrap_or(usize::MAX)
}

#[cfg(test)]
pub(in crate::convert) mod tests {
    use super::*;

    pub(in crate::convert) fn pools() -> Pools {
        let stats = |first: usize| Stats {
            active: first,
            idle: first + 1,
            waiting: first + 2,
            max: first + 3,
            created: 5,
            recycled: 6,
            given_up: 7,
            longest_wait: Duration::from_micros(8),
        };
        Pools {
            transactions: stats(1),
            outside: stats(10),
            places: Some(Places { most: 20, free: 9 }),
        }
    }

    #[test]
    fn pools_survive_the_wire_and_half_of_them_are_refused() {
        for places in [None, pools().places] {
            let pools = Pools { places, ..pools() };
            assert_eq!(pools_from_wire(pools_to_wire(&pools)).unwrap(), pools);
        }
        let half = v1::Pools {
            outside: None,
            ..pools_to_wire(&pools())
        };
        let error = pools_from_wire(half).unwrap_err();
        assert!(error.chain().contains("pools.outside"), "{}", error.chain());
    }
}
