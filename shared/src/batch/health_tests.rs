use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);
const MIB: u64 = 1 << 20;

fn of(now: &Sample) -> Health {
    Health::of(None, now, &Limits::default())
}

/// What people read about it.
fn told(health: &Health) -> String {
    health.worst.as_ref().map_or(String::new(), ToString::to_string)
}

/// A server at rest: everything is known and nothing is wrong.
fn calm() -> Sample {
    Sample {
        took: Some(Duration::ZERO),
        replica_lag: Some(Duration::ZERO),
        replica_bytes: Some(0),
        slot_bytes: Some(0),
        lock_wait: Some(Duration::ZERO),
        active: Some(0),
        company: Some(0),
        commit_waiters: Some(0),
        commit_latency: Some(Duration::ZERO),
        wal_bytes: Some(0),
        wal_recent_bytes: Some(0),
        max_wal_bytes: Some(1024 * MIB),
        checkpoints: Some(0),
        archive_failing: Some(false),
        archive_files: Some(0),
        vacuums: Some(0),
        oldest_snapshot: Some(Duration::ZERO),
        pool_waiters: Some(0),
        operator: Some(0.0),
    }
}

#[test]
fn what_is_not_known_is_not_judged() {
    let health = of(&Sample::default());
    assert_eq!((health.level(), health.critical), (0.0, false));
    assert_eq!(health.worst, None);
}

type Change = fn(&mut Sample);

/// One change of a calm server for each signal that one probe shows, with its level, whether it is reason to stop, and
/// how it is told.
const CHANGES: [(Change, f64, bool, &str); 15] = [
    (
        |s| s.took = Some(SECOND * 3 / 2),
        1.5,
        false,
        "the probe took 1.5 s, limit 1 s",
    ),
    (
        |s| s.replica_lag = Some(Duration::from_millis(3_200)),
        1.6,
        false,
        "replica lag 3.2 s, limit 2 s",
    ),
    (
        |s| s.replica_bytes = Some(6 * 1024 * MIB),
        6.0,
        true,
        "replica behind by 6 GiB, limit 1 GiB",
    ),
    (
        |s| s.slot_bytes = Some(7 * 1024 * MIB),
        1.4,
        false,
        "WAL kept for a replication slot 7 GiB, limit 5 GiB",
    ),
    (
        |s| s.lock_wait = Some(SECOND * 2),
        2.0,
        false,
        "lock wait behind us 2 s, limit 1 s",
    ),
    (
        |s| s.active = Some(3),
        0.75,
        false,
        "active sessions 1.5 of 2 cores",
    ),
    (
        |s| s.commit_waiters = Some(9),
        1.5,
        false,
        "sessions waiting for WAL 4.5, limit 3",
    ),
    (
        |s| s.commit_latency = Some(Duration::from_millis(150)),
        1.5,
        false,
        "commit latency 150 ms, limit 100 ms",
    ),
    (
        |s| s.wal_recent_bytes = Some(128 * 30 * MIB),
        7.5,
        false,
        "WAL 128 MiB/s, limit 17.1 MiB/s",
    ),
    (|s| s.checkpoints = Some(1), 2.0, false, "a checkpoint was forced"),
    (
        |s| s.archive_failing = Some(true),
        2.0,
        true,
        "WAL archiving fails",
    ),
    (
        |s| s.archive_files = Some(63),
        1.5,
        false,
        "WAL files to archive 63, limit 42",
    ),
    (
        |s| s.vacuums = Some(1),
        2.0,
        false,
        "a vacuum of the table is running",
    ),
    (
        |s| s.oldest_snapshot = Some(Duration::from_mins(30)),
        2.0,
        false,
        "oldest snapshot 30 min, limit 15 min",
    ),
    (
        |s| s.operator = Some(1.0),
        2.0,
        true,
        "the operator's query says 1",
    ),
];

#[test]
fn each_signal_is_seen_and_told() {
    let limits = Limits {
        cores: Some(2),
        ..Limits::default()
    };
    for (change, level, critical, expected) in CHANGES {
        let (before, mut now) = (calm(), calm());
        change(&mut now);
        let health = Health::of(Some(&before), &now, &limits);
        assert!((health.level() - level).abs() < 1e-9, "{health:?}");
        assert_eq!((health.critical, told(&health).as_str()), (critical, expected));
    }
}

#[test]
fn who_waits_for_a_connection_counts_when_it_lasts() {
    let mut waiting = calm();
    waiting.pool_waiters = Some(2);
    let health = Health::of(Some(&waiting), &waiting, &Limits::default());
    assert_eq!(told(&health), "waiting for a pool connection: 2");
}

#[test]
fn a_replica_late_by_ten_seconds_is_reason_to_stop() {
    let mut sample = calm();
    sample.replica_lag = Some(SECOND * 11);
    // Far more above its limit, but only a reason to be slow.
    sample.lock_wait = Some(SECOND * 50);
    let health = of(&sample);
    assert!(health.critical);
    assert_eq!(told(&health), "replica lag 11 s, limit 2 s");
}

#[test]
fn what_hurts_now_comes_before_what_hurts_later() {
    let mut sample = calm();
    sample.oldest_snapshot = Some(Duration::from_hours(10));
    sample.replica_lag = Some(SECOND * 3);
    assert_eq!(told(&of(&sample)), "replica lag 3 s, limit 2 s");
    sample.replica_lag = Some(SECOND);
    assert_eq!(told(&of(&sample)), "oldest snapshot 600 min, limit 15 min");
}

#[test]
fn a_counter_that_was_reset_says_nothing() {
    let (mut before, now) = (calm(), calm());
    before.checkpoints = Some(7);
    before.wal_bytes = Some(u64::MAX);
    let health = Health::of(Some(&before), &now, &Limits::default());
    assert!(health.level() < 0.1, "{health:?}");
}

#[test]
fn a_failed_probe_is_unhealthy_but_does_not_stop_the_work() {
    let health = Health::probe_failed("no answer within 2 s");
    assert!(health.level() > 1.0 && !health.critical);
    assert_eq!(told(&health), "the probe failed: no answer within 2 s");
}

#[test]
fn an_answer_that_is_no_number_is_no_good_answer() {
    let mut sample = calm();
    sample.operator = Some(f64::NAN);
    let health = of(&sample);
    assert!(health.level() > 1.0 && !health.critical, "{health:?}");
}

#[test]
fn the_limit_of_commits_follows_the_servers_own_time() {
    let limit = |ms| {
        Limits::default()
            .for_commits_of(Duration::from_millis(ms))
            .commit_latency
    };
    assert_eq!(limit(30), Duration::from_millis(150));
    assert_eq!(limit(1), Duration::from_millis(20));
}

prop_compose! {
    /// Any answer at all, sensible or not.
    fn anything()(
        times in prop::array::uniform5(prop::option::of(any::<u64>())),
        counts in prop::array::uniform6(prop::option::of(any::<u64>())),
        small in prop::array::uniform5(prop::option::of(any::<u32>())),
        archive_failing in any::<Option<bool>>(),
        operator in any::<Option<f64>>(),
    ) -> Sample {
        let [took, replica_lag, lock_wait, commit_latency, oldest_snapshot] =
            times.map(|ms| ms.map(Duration::from_millis));
        let [replica_bytes, slot_bytes, wal_bytes, max_wal_bytes, checkpoints, archive_files] = counts;
        let [active, company, commit_waiters, vacuums, pool_waiters] = small;
        Sample {
            took, replica_lag, replica_bytes, slot_bytes, lock_wait, active, company, commit_waiters, commit_latency,
            wal_bytes, wal_recent_bytes: wal_bytes, max_wal_bytes, checkpoints, archive_failing, archive_files, vacuums, oldest_snapshot,
            pool_waiters, operator,
        }
    }
}

proptest! {
    #[test]
    fn any_two_samples_make_a_level_in_its_bounds_and_a_reason(
        before in prop::option::of(anything()),
        now in anything(),
        cores: Option<u32>,
    ) {
        let limits = Limits { cores, ..Limits::default() };
        let health = Health::of(before.as_ref(), &now, &limits);
        prop_assert!((0.0..=100.0).contains(&health.level()), "{:?}", health);
        prop_assert!(health.level() == 0.0 || !told(&health).is_empty());
        prop_assert!(!health.critical || health.level() > 1.0, "{:?}", health);
    }

    #[test]
    fn knowing_more_never_makes_a_server_look_better_by_its_urgent_signals(lag in 0_u64..20_000, wait in 0_u64..20_000) {
        let mut sample = Sample { replica_lag: Some(Duration::from_millis(lag)), ..Sample::default() };
        let before = of(&sample);
        sample.lock_wait = Some(Duration::from_millis(wait));
        let after = of(&sample);
        prop_assert!(after.critical == before.critical);
        prop_assert!(after.critical || after.level() >= before.level());
    }
}
