//! Agents and databases themselves, on the wire.

use crate::v1;
use shared::rollout::Time;
use shared::rollout::drain::{Drain, Running};

/// As sent.
pub fn drain_to_wire(drain: Drain) -> v1::Drain {
    v1::Drain {
        by: drain.by,
        reason: drain.reason,
        at_unix_ms: drain.at.0,
        now: drain.running == Running::Stops,
    }
}

/// As received.
pub fn drain_from_wire(wire: v1::Drain) -> Drain {
    Drain {
        by: wire.by,
        reason: wire.reason,
        at: Time(wire.at_unix_ms),
        running: running_from_wire(wire.now),
    }
}

/// What becomes of work in progress, by a request's `now`.
pub fn running_from_wire(now: bool) -> Running {
    if now { Running::Stops } else { Running::Finishes }
}
