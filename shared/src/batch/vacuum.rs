//! When a relation at work is vacuumed between two batches, and how gently.
//!
//! A batch leaves the old version of each row behind. A VACUUM makes their room free for the versions that the next
//! batches write, so that the relation grows by a share of its rows and not by all of them; but each reads all indexes
//! once, so it must not come for every batch.
//!
//! ```text
//!            a share of the rows changed, and no snapshot from before that
//!   counting ------------------------------------------------------------> running
//!            <--------- done (and as long at rest), or failed -------------
//! ```

use std::time::Duration;

/// The share of a relation's rows where the author asks for no other: in a table of 300,000 rows, vacuumed this often, a
/// backfill left 5 MB of dead room instead of 26 MB, and took less time.
pub const VACUUM_SHARE: f64 = 0.1;

/// Fewer rows than these are not worth a VACUUM, whatever their share.
const LEAST_ROWS: u64 = 1_000;

/// After a VACUUM that failed: who was in its way may stay for a while.
const RETRY: Duration = Duration::from_secs(30);

/// The pause of a gentle VACUUM after so much work, at full duty; it is the default of autovacuum. It grows as the duty
/// falls, up to ten times.
const COST_DELAY: Duration = Duration::from_millis(2);
const LOWEST_DUTY: f64 = 0.1;

/// A session that waits this long for a lock of ours makes a VACUUM give way, as an autovacuum does: `deadlock_timeout`'s
/// default.
const GIVES_WAY: Duration = Duration::from_secs(1);

/// The vacuums of one relation. Times are those since any start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vacuum {
    /// So many rows are to be changed between two.
    every: u64,
    /// Rows changed since the last one began.
    changed: u64,
    /// When the first of them may have been changed.
    since: Duration,
    /// None begins before.
    not_before: Duration,
    running: Option<Running>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    /// Rows changed before it.
    changed: u64,
    began: Duration,
}

/// Whether a relation is to be vacuumed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Not yet, or somebody is at it.
    None,
    /// It would be, but a snapshot that is older than the changes keeps all their old versions: it could remove none.
    Useless,
    /// Yes.
    Now,
}

impl Vacuum {
    /// Of a relation of so many rows, whenever this share of them was changed.
    pub fn new(share: f64, rows: u64, now: Duration) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of an estimate; out of bounds it becomes the nearest bound"
        )]
        let every = (rows as f64 * share) as u64;
        Self {
            every: every.max(LEAST_ROWS),
            changed: 0,
            since: now,
            not_before: Duration::ZERO,
            running: None,
        }
    }

    /// So many rows more were changed.
    pub fn changed(&mut self, rows: u64) {
        self.changed = self.changed.saturating_add(rows);
    }

    /// Whether one is to begin. `oldest` is when the oldest snapshot of others began; `None` where there is none or nobody
    /// knows.
    pub fn need(&self, oldest: Option<Duration>, now: Duration) -> Need {
        if self.running.is_some() || self.changed < self.every || now < self.not_before {
            return Need::None;
        }
        match oldest {
            Some(oldest) if oldest <= self.since => Need::Useless,
            Some(_) | None => Need::Now,
        }
    }

    /// One begins.
    pub fn begin(&mut self, now: Duration) {
        self.running = Some(Running {
            changed: std::mem::take(&mut self.changed),
            began: now,
        });
    }

    /// It is done. Before the next one as much time passes as it took: also where an estimate was wrong vacuums take no more
    /// than half of the time.
    pub fn done(&mut self, now: Duration) {
        if let Some(running) = self.running.take() {
            self.since = running.began;
            self.not_before = now + now.saturating_sub(running.began);
        }
    }

    /// It failed, or was ended: what it was for is still to be done.
    pub fn failed(&mut self, now: Duration) {
        if let Some(running) = self.running.take() {
            self.changed(running.changed);
            self.not_before = now + RETRY;
        }
    }
}

/// `vacuum_cost_delay` for a VACUUM beside work at this duty. Zero, full speed, only where the author asks for all of a
/// worker's time.
pub fn vacuum_delay(max_duty: Option<f64>, duty: f64) -> Duration {
    if max_duty.is_some_and(|most| most >= 1.0) {
        return Duration::ZERO;
    }
    COST_DELAY.div_f64(duty.clamp(LOWEST_DUTY, 1.0))
}

/// Whether a VACUUM gives way to a session that has waited for so long for a lock of ours.
pub fn vacuum_gives_way(lock_wait: Option<Duration>) -> bool {
    lock_wait.is_some_and(|wait| wait >= GIVES_WAY)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Of 100,000 rows a tenth; counting begins at 10 s.
    fn vacuum() -> Vacuum {
        Vacuum::new(VACUUM_SHARE, 100_000, at(10))
    }

    #[test]
    fn a_share_of_the_rows_makes_it_due() {
        let mut vacuum = vacuum();
        vacuum.changed(9_999);
        assert_eq!(vacuum.need(None, at(20)), Need::None);
        vacuum.changed(1);
        assert_eq!(vacuum.need(None, at(20)), Need::Now);
    }

    #[test]
    fn a_small_relation_is_not_vacuumed_for_a_few_rows() {
        for rows in [0, 10, 5_000] {
            let mut vacuum = Vacuum::new(VACUUM_SHARE, rows, at(0));
            vacuum.changed(LEAST_ROWS - 1);
            assert_eq!(vacuum.need(None, at(1)), Need::None, "{rows}");
            vacuum.changed(1);
            assert_eq!(vacuum.need(None, at(1)), Need::Now, "{rows}");
        }
    }

    #[test]
    fn there_is_one_at_a_time_and_what_changes_meanwhile_counts_for_the_next() {
        let mut vacuum = vacuum();
        vacuum.changed(12_000);
        vacuum.begin(at(20));
        vacuum.changed(10_000);
        assert_eq!(vacuum.need(None, at(21)), Need::None);
        vacuum.done(at(25));
        assert_eq!(
            vacuum.need(None, at(29)),
            Need::None,
            "it rests as long as it took"
        );
        assert_eq!(vacuum.need(None, at(30)), Need::Now);
    }

    #[test]
    fn one_that_failed_is_tried_again_later() {
        let mut vacuum = vacuum();
        vacuum.changed(10_000);
        vacuum.begin(at(20));
        vacuum.failed(at(21));
        assert_eq!(vacuum.need(None, at(50)), Need::None);
        assert_eq!(vacuum.need(None, at(51)), Need::Now);
    }

    #[test]
    fn a_snapshot_from_before_the_changes_makes_it_useless() {
        let mut vacuum = vacuum();
        vacuum.changed(10_000);
        assert_eq!(vacuum.need(Some(at(9)), at(20)), Need::Useless);
        assert_eq!(vacuum.need(Some(at(11)), at(20)), Need::Now);
        vacuum.begin(at(20));
        vacuum.done(at(21));
        vacuum.changed(10_000);
        // What changed since is younger than the last one.
        assert_eq!(vacuum.need(Some(at(11)), at(30)), Need::Useless);
        assert_eq!(vacuum.need(Some(at(22)), at(30)), Need::Now);
    }

    #[test]
    fn it_is_gentle_unless_all_of_the_time_is_asked_for() {
        assert_eq!(vacuum_delay(Some(1.0), 0.5), Duration::ZERO);
        assert_eq!(vacuum_delay(None, 1.0), COST_DELAY);
        assert_eq!(vacuum_delay(Some(0.5), 0.5), COST_DELAY * 2);
        for duty in [0.02, 0.0] {
            assert_eq!(vacuum_delay(None, duty), COST_DELAY * 10, "{duty}");
        }
    }

    #[test]
    fn it_gives_way_as_an_autovacuum_does() {
        assert!(!vacuum_gives_way(None) && !vacuum_gives_way(Some(Duration::from_millis(999))));
        assert!(vacuum_gives_way(Some(Duration::from_secs(1))));
    }
}
