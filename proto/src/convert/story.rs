//! What happened to an attempt, on the wire.

use super::{Error, name, required};
use crate::v1::{self, moment::What as Wire};
use shared::rollout::Time;
use shared::rollout::story::{Moment, Story, What};

/// As sent.
pub fn to_wire(story: Story) -> v1::Story {
    v1::Story {
        moments: story.moments.into_iter().map(moment_to_wire).collect(),
        left_out: story.left_out,
    }
}

/// As received.
///
/// # Errors
/// When a moment is not one that this version knows.
pub fn from_wire(wire: v1::Story) -> Result<Story, Error> {
    let moments = wire.moments.into_iter().map(moment_from_wire);
    Ok(Story {
        moments: moments.collect::<Result<_, _>>()?,
        left_out: wire.left_out,
    })
}

fn moment_to_wire(moment: Moment) -> v1::Moment {
    let what = match moment.what {
        What::Step { kind, done, error } => Wire::StepEnd(v1::moment::StepEnd { kind, done, error }),
        What::AtWork { kind } => Wire::AtWork(v1::moment::AtWork { kind }),
        What::Lost => Wire::Lost(v1::moment::Lost {}),
        What::Wait { blocked_by } => Wire::Wait(v1::moment::Wait { blocked_by }),
        What::Tries { tries, granted } => Wire::Tries(v1::moment::Tries { tries, granted }),
        What::Batches {
            batches,
            rows,
            slowest_ms,
            rested_ms,
            reason,
            pace,
        } => Wire::Batches(v1::moment::Batches {
            batches,
            rows,
            slowest_ms,
            rested_ms,
            reason,
            pace,
        }),
        What::Verified { rows, differing } => Wire::Verified(v1::moment::Verified { rows, differing }),
        What::Vacuum { ended } => Wire::Vacuum(v1::moment::Vacuum { ended }),
        What::Trouble { error } => Wire::Trouble(v1::moment::Trouble { error }),
    };
    let unix_ms = |time: Time| i64::try_from(time.0).unwrap_or(i64::MAX);
    v1::Moment {
        from_unix_ms: unix_ms(moment.from),
        to_unix_ms: unix_ms(moment.to),
        version: moment
            .version
            .map(|version| version.to_string())
            .unwrap_or_default(),
        step: moment.step,
        what: Some(what),
    }
}

fn moment_from_wire(wire: v1::Moment) -> Result<Moment, Error> {
    let what = match required("moment.what", wire.what)? {
        Wire::StepEnd(v1::moment::StepEnd { kind, done, error }) => What::Step { kind, done, error },
        Wire::AtWork(v1::moment::AtWork { kind }) => What::AtWork { kind },
        Wire::Lost(v1::moment::Lost {}) => What::Lost,
        Wire::Wait(v1::moment::Wait { blocked_by }) => What::Wait { blocked_by },
        Wire::Tries(v1::moment::Tries { tries, granted }) => What::Tries { tries, granted },
        Wire::Batches(v1::moment::Batches {
            batches,
            rows,
            slowest_ms,
            rested_ms,
            reason,
            pace,
        }) => What::Batches {
            batches,
            rows,
            slowest_ms,
            rested_ms,
            reason,
            pace,
        },
        Wire::Verified(v1::moment::Verified { rows, differing }) => What::Verified { rows, differing },
        Wire::Vacuum(v1::moment::Vacuum { ended }) => What::Vacuum { ended },
        Wire::Trouble(v1::moment::Trouble { error }) => What::Trouble { error },
    };
    let time = |unix_ms: i64| Time(u64::try_from(unix_ms).unwrap_or(0));
    Ok(Moment {
        from: time(wire.from_unix_ms),
        to: time(wire.to_unix_ms),
        version: if wire.version.is_empty() {
            None
        } else {
            Some(name("moment.version", wire.version)?)
        },
        step: wire.step,
        what,
    })
}

/// One of each.
#[cfg(test)]
pub(super) fn sample() -> Story {
    let whats = [
        What::Wait {
            blocked_by: vec![17, 18],
        },
        What::Tries {
            tries: 3,
            granted: true,
        },
        What::Batches {
            batches: 2,
            rows: 5,
            slowest_ms: 7,
            rested_ms: 11,
            reason: "duty".to_owned(),
            pace: "at full speed".to_owned(),
        },
        What::Verified {
            rows: 9,
            differing: 1,
        },
        What::Vacuum {
            ended: "the pace stopped".to_owned(),
        },
        What::Trouble {
            error: "deadlock".to_owned(),
        },
        What::Step {
            kind: "backfill".to_owned(),
            done: false,
            error: "stopped".to_owned(),
        },
        What::AtWork {
            kind: "sql".to_owned(),
        },
        What::Lost,
    ];
    let moments = whats.into_iter().zip(1..).map(|(what, at)| Moment {
        from: Time(at),
        to: Time(at * 10),
        version: (at > 1).then(|| "0001".parse().unwrap()),
        step: 1,
        what,
    });
    Story {
        moments: moments.collect(),
        left_out: 4,
    }
}
