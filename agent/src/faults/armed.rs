//! What the environment arms, and how it happens.

use super::Point;
use crate::error::Error;
use shared::settings::duration;
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio_postgres::NoTls;

/// The fault that is armed, if one is.
static FAULT: LazyLock<Option<Fault>> = LazyLock::new(|| {
    let armed = std::env::var("CONFITURE_FAULT").ok()?;
    Some(
        Fault::parse(&armed)
            .expect("CONFITURE_FAULT is POINT:exit, POINT:stall[=TIME] or POINT:error, and @N"),
    )
});

/// How long a holder counts as alive, if a test says so.
static HOLDER_TIME: LazyLock<Option<Duration>> = LazyLock::new(|| {
    let time = std::env::var("CONFITURE_HOLDER_TIME").ok()?;
    Some(seconds(&time).expect("CONFITURE_HOLDER_TIME is a time, such as 2s"))
});

/// One fault at one point.
#[derive(Debug)]
struct Fault {
    point: Point,
    kind: Kind,
    /// Which time the point is reached, from 1.
    nth: u32,
    reached: AtomicU32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Exit,
    /// For a time, or until somebody sends SIGCONT.
    Stall(Option<Duration>),
    Error,
}

/// A run has come to a point: what is armed there happens.
pub(crate) async fn reach(point: Point) -> Result<(), Error> {
    let Some(fault) = FAULT.as_ref().filter(|fault| fault.point == point) else {
        return Ok(());
    };
    if fault.reached.fetch_add(1, Ordering::Relaxed) + 1 != fault.nth {
        return Ok(());
    }
    tracing::warn!(?point, kind = ?fault.kind, "a fault on purpose");
    match fault.kind {
        // No unwinding and no destructors: what is open stays open until the system closes it.
        Kind::Exit => std::process::exit(137),
        Kind::Stall(time) => stand_still(time),
        Kind::Error => return Err(lost_connection().await),
    }
    Ok(())
}

pub(crate) fn holder_time() -> Option<Duration> {
    *HOLDER_TIME
}

/// Stops every thread of this process, and not its clocks. A process that is stopped cannot wake itself: a child does.
fn stand_still(time: Option<Duration>) {
    let wake = time.map_or(String::new(), |time| {
        format!("; sleep {}; kill -CONT $PPID", time.as_secs_f64())
    });
    let waker = Command::new("sh")
        .arg("-c")
        .arg(format!("kill -STOP $PPID{wake}"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    assert!(
        waker.expect("there is a shell").success(),
        "nobody could stop this process"
    );
}

/// An error such as a server brings that is just going away.
async fn lost_connection() -> Error {
    // Nobody listens on port 1.
    let refused = tokio_postgres::connect("host=127.0.0.1 port=1 user=nobody", NoTls).await;
    let source = refused.err().expect("nobody listens on port 1");
    Error::Statement {
        doing: "reaching a fault on purpose",
        source,
    }
}

impl Fault {
    fn parse(text: &str) -> Option<Self> {
        let (point, rest) = text.split_once(':')?;
        let (kind, nth) = rest.split_once('@').unwrap_or((rest, "1"));
        let kind = match kind.split_once('=') {
            None if kind == "exit" => Kind::Exit,
            None if kind == "error" => Kind::Error,
            None if kind == "stall" => Kind::Stall(None),
            Some(("stall", time)) => Kind::Stall(Some(seconds(time)?)),
            _ => return None,
        };
        Some(Self {
            point: Point::named(point)?,
            kind,
            nth: nth.parse().ok().filter(|nth| *nth > 0)?,
            reached: AtomicU32::new(0),
        })
    }
}

impl Point {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "after_takeover" => Self::AfterTakeover,
            "after_fence_lock" => Self::AfterFenceLock,
            "after_change" => Self::AfterChange,
            "before_commit" => Self::BeforeCommit,
            "after_commit" => Self::AfterCommit,
            "before_report" => Self::BeforeReport,
            _ => return None,
        })
    }
}

fn seconds(text: &str) -> Option<Duration> {
    duration::parse(text, Duration::from_secs(1)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_is_read_with_its_point_kind_and_turn() {
        let fault = Fault::parse("before_commit:stall=6s@3").unwrap();
        assert_eq!(fault.point, Point::BeforeCommit);
        assert_eq!(
            (fault.kind, fault.nth),
            (Kind::Stall(Some(Duration::from_secs(6))), 3)
        );
        assert_eq!(Fault::parse("after_change:exit").unwrap().nth, 1);
        for wrong in [
            "after_change",
            "nowhere:exit",
            "after_change:exit@0",
            "after_change:stall=",
        ] {
            assert!(Fault::parse(wrong).is_none(), "{wrong}");
        }
    }
}
