use super::super::sample::{Limits, Sample};
use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

const FREE: PaceLimits = PaceLimits {
    max_duty: 1.0,
    max_duty_beside: 1.0,
    max_workers: 4,
    first_duty: 1.0,
    first_workers: 1,
};

/// A server whose replicas are this late: a level of 1 is 2 s, critical is above 10 s.
fn late(seconds: f64) -> Health {
    let sample = Sample {
        replica_lag: Some(Duration::from_secs_f64(seconds)),
        ..Sample::default()
    };
    Health::of(None, &sample, &Limits::default())
}

fn at_level(level: f64) -> Health {
    late(level * 2.0)
}

/// A pace with its clock.
struct Run {
    pace: Pace,
    now: Duration,
}

impl Run {
    fn with(limits: PaceLimits) -> Self {
        Self {
            pace: Pace::new(limits),
            now: Duration::ZERO,
        }
    }

    /// So many seconds of the same health; each worker does 100 rows a second until there are as many as are of use.
    fn observe(&mut self, seconds: u32, health: &Health, useful: u32) -> &Pace {
        for _ in 0..seconds {
            self.now += SECOND;
            let rows = f64::from(self.pace.workers().min(useful)) * self.pace.duty() * 100.0;
            self.pace.observe(health, rows, self.now);
        }
        &self.pace
    }
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() < 1e-9
}

#[test]
fn in_good_health_duty_grows_by_a_twentieth_a_second_to_the_most_allowed() {
    let mut run = Run::with(PaceLimits {
        first_duty: 0.25,
        max_workers: 1,
        ..FREE
    });
    let pace = run.observe(1, &at_level(0.5), 1);
    assert!(near(pace.duty(), 0.30), "{pace:?}");
    assert_eq!(pace.reason().to_string(), "speeding up: 30 %");
    let pace = run.observe(15, &at_level(0.5), 1);
    assert!(near(pace.duty(), 1.0), "{pace:?}");
    assert_eq!(pace.reason().to_string(), "at full speed");
}

#[test]
fn near_the_limit_nothing_moves() {
    let mut run = Run::with(PaceLimits {
        first_duty: 0.5,
        ..FREE
    });
    let pace = run.observe(60, &at_level(0.9), 4);
    assert!(near(pace.duty(), 0.5) && pace.workers() == 1);
    assert_eq!(pace.reason().to_string(), "holding: replica lag 1.8 s, limit 2 s");
}

#[test]
fn above_the_limit_duty_halves_but_never_ends() {
    let mut run = Run::with(FREE);
    let pace = run.observe(2, &at_level(1.6), 4);
    assert!(near(pace.duty(), 0.25), "{pace:?}");
    assert_eq!(
        pace.reason().to_string(),
        "slowed to 25 %: replica lag 3.2 s, limit 2 s"
    );
    let pace = run.observe(60, &at_level(1.6), 4);
    assert!(near(pace.duty(), 0.02), "{pace:?}");
}

#[test]
fn the_law_does_not_depend_on_how_often_it_is_asked() {
    let mut pace = Pace::new(FREE);
    for tenth in 0..=20_u32 {
        pace.observe(&at_level(1.5), 100.0, SECOND * tenth / 10);
    }
    // The first observation counts for a second, the twenty after it for two.
    assert!(near(pace.duty(), 0.125), "{pace:?}");
    // Nor does one that comes late count for more than one.
    pace.observe(&at_level(1.5), 100.0, SECOND * 60);
    assert!(near(pace.duty(), 0.0625), "{pace:?}");
}

#[test]
fn what_only_hurts_later_slows_to_a_quarter_of_what_is_allowed() {
    let sample = Sample {
        vacuums: Some(1),
        ..Sample::default()
    };
    let vacuum = Health::of(None, &sample, &Limits::default());
    let mut run = Run::with(FREE);
    let pace = run.observe(600, &vacuum, 4);
    assert!(near(pace.duty(), 0.25), "{pace:?}");
    assert_eq!(
        pace.reason().to_string(),
        "slowed to 25 %: a vacuum of the table is running"
    );
    run.observe(10, &at_level(1.5), 4);
    let pace = run.observe(10, &vacuum, 4);
    assert!(near(pace.duty(), 0.02), "bad health raised the duty: {pace:?}");
}

#[test]
fn a_critical_signal_stops_until_it_was_calm_for_half_a_minute() {
    let mut run = Run::with(FREE);
    assert!(run.observe(1, &late(12.0), 4).is_stopped());
    assert_eq!(
        run.pace.reason().to_string(),
        "stopped: replica lag 12 s, limit 2 s"
    );
    // Below its limit, but not calm: it may come back any moment.
    assert!(run.observe(100, &at_level(0.65), 4).is_stopped());
    assert!(run.observe(20, &at_level(0.1), 4).is_stopped());
    assert_eq!(
        run.pace.reason().to_string(),
        "stopped: replica lag 1.3 s, limit 2 s; calm for 19 of 30 s"
    );
    assert!(run.observe(1, &at_level(0.8), 4).is_stopped());
    assert!(run.observe(30, &at_level(0.1), 4).is_stopped());
    let pace = run.observe(1, &at_level(0.1), 4);
    assert!(!pace.is_stopped() && near(pace.duty(), 0.02), "{pace:?}");
    assert!(near(run.observe(20, &at_level(0.1), 4).duty(), 1.0));
}

#[test]
fn a_failed_probe_slows_to_the_floor_and_says_so() {
    let mut run = Run::with(FREE);
    let pace = run.observe(10, &Health::probe_failed("no answer within 2 s"), 4);
    assert!(near(pace.duty(), 0.02) && !pace.is_stopped());
    assert_eq!(
        pace.reason().to_string(),
        "slowed to 2 %: the probe failed: no answer within 2 s"
    );
}

#[test]
fn workers_are_added_while_each_is_worth_it() {
    let mut run = Run::with(FREE);
    let mut seen = Vec::new();
    for _ in 0..12 {
        seen.push(run.observe(5, &at_level(0.1), 3).workers());
    }
    // The fourth did no work of its own, and stayed away.
    assert_eq!(seen, [1, 2, 3, 4, 3, 3, 3, 3, 3, 3, 3, 3], "{:?}", run.pace);
    assert_eq!(run.pace.reason().to_string(), "at full speed");
}

#[test]
fn beside_applications_no_worker_is_added_and_those_that_were_go() {
    let mut run = Run::with(FREE);
    run.pace.beside(true, run.now);
    assert_eq!(run.observe(60, &at_level(0.1), 4).workers(), 1);
    run.pace.beside(false, run.now);
    assert_eq!(run.observe(30, &at_level(0.1), 4).workers(), 4);
    run.pace.beside(true, run.now);
    assert_eq!(run.pace.workers(), 1);
}

#[test]
fn a_worker_that_does_harm_goes_and_is_not_tried_again_soon() {
    let mut run = Run::with(FREE);
    run.observe(6, &at_level(0.1), 4);
    assert_eq!(run.pace.workers(), 2);
    assert_eq!(run.pace.reason().to_string(), "adding workers: 2 so far");
    run.observe(6, &at_level(1.2), 4);
    assert_eq!(run.pace.workers(), 1);
    assert_eq!(run.observe(240, &at_level(0.1), 4).workers(), 1);
    assert_eq!(run.observe(120, &at_level(0.1), 4).workers(), 4);
}

#[test]
fn workers_go_one_by_one_in_bad_health_and_all_but_one_at_a_stop() {
    let limits = PaceLimits {
        first_workers: 4,
        ..FREE
    };
    let mut run = Run::with(limits);
    assert_eq!(run.observe(1, &at_level(1.2), 4).workers(), 3);
    assert_eq!(run.observe(4, &at_level(1.2), 4).workers(), 3);
    assert_eq!(run.observe(1, &at_level(1.2), 4).workers(), 2);
    let mut run = Run::with(limits);
    assert_eq!(run.observe(1, &late(12.0), 4).workers(), 1);
}

#[test]
fn beside_applications_a_worker_rests_for_a_part_of_its_time() {
    let limits = PaceLimits {
        max_duty_beside: 0.8,
        max_workers: 1,
        ..FREE
    };
    let mut run = Run::with(limits);
    run.observe(30, &Health::default(), 0);
    assert!(near(run.pace.duty(), 1.0), "{:?}", run.pace);
    run.pace.beside(true, run.now);
    assert!(near(run.pace.duty(), 0.8), "{:?}", run.pace);
    let full = run.observe(30, &Health::default(), 0);
    assert!(near(full.duty(), 0.8), "{full:?}");
    assert_eq!(full.reason().to_string(), "at full speed: 80 % allowed");
    // What slowed it down before is no more than it was.
    run.observe(5, &at_level(1.5), 0);
    let slow = run.pace.duty();
    run.pace.beside(true, run.now);
    assert!(near(run.pace.duty(), slow), "{:?}", run.pace);
    run.pace.beside(false, run.now);
    assert!(near(run.observe(60, &Health::default(), 0).duty(), 1.0));
}

#[test]
fn nonsense_in_the_limits_is_moved_into_bounds() {
    let pace = Pace::new(PaceLimits {
        max_duty: f64::NAN,
        max_duty_beside: f64::NAN,
        max_workers: 0,
        first_duty: 7.0,
        first_workers: 9,
    });
    assert!(near(pace.duty(), 0.001) && pace.workers() == 1);
    assert!(pace.pause(Duration::MAX, f64::NAN) < Duration::from_hours(2_000));
}

fn limits() -> impl Strategy<Value = PaceLimits> {
    (0.0..=1.0, 0.0..=1.0, 1_u32..12, 0.0..=1.0, 1_u32..12).prop_map(
        |(max_duty, max_duty_beside, max_workers, first_duty, first_workers)| PaceLimits {
            max_duty,
            max_duty_beside,
            max_workers,
            first_duty,
            first_workers,
        },
    )
}

fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![
        6 => (0.0..12.0).prop_map(late),
        2 => (0.0..1.0).prop_map(at_level),
        1 => Just(Health::default()),
        1 => Just(Health::probe_failed("no answer")),
    ]
}

proptest! {
    #[test]
    fn whatever_is_observed_the_pace_stays_in_its_bounds(
        limits in limits(),
        seen in prop::collection::vec((any_health(), any::<f64>(), 0_u64..5_000), 1..400),
    ) {
        let mut pace = Pace::new(limits);
        let (most_duty, most_workers) = (limits.max_duty.max(0.001), limits.max_workers);
        let (mut now, mut moved) = (Duration::ZERO, None::<Duration>);
        for (health, rows, milliseconds) in seen {
            let before = pace.clone();
            now += Duration::from_millis(milliseconds);
            pace.observe(&health, rows, now);
            prop_assert!(pace.duty() <= most_duty);
            prop_assert!((1..=most_workers).contains(&pace.workers()));
            prop_assert_eq!(pace.is_stopped(), pace.duty() <= 0.0);
            prop_assert!(!health.critical || pace.is_stopped());
            prop_assert!(pace.is_stopped() || pace.duty() >= 0.001_f64.min(most_duty));
            if health.level() > 1.0 {
                prop_assert!(pace.duty() <= before.duty() && pace.workers() <= before.workers());
            }
            if pace.workers() != before.workers() {
                let early = moved.is_some_and(|moved| now < moved + WORKER_TIME);
                prop_assert!(pace.is_stopped() || (!early && pace.workers().abs_diff(before.workers()) == 1));
                moved = Some(now);
            }
        }
    }

    #[test]
    fn on_steady_input_it_settles_and_stays(
        limits in limits(),
        level in 0.0..4.9,
        useful in 1_u32..12,
    ) {
        let mut run = Run::with(limits);
        let health = at_level(level);
        let settled = run.observe(1_000, &health, useful).clone();
        // A number of workers that was of no use is tried again, but not more often than each five minutes.
        let mut moves = 0;
        for _ in 0..600 {
            let before = run.pace.workers();
            let pace = run.observe(1, &health, useful);
            prop_assert!(near(pace.duty(), settled.duty()), "{:?} after {:?}", pace, settled);
            prop_assert!(pace.workers().abs_diff(settled.workers()) <= 1);
            moves += pace.workers().abs_diff(before);
        }
        prop_assert!(moves <= 6, "{} moves", moves);
    }

    #[test]
    fn it_recovers_from_any_past(
        limits in limits(),
        past in prop::collection::vec(any_health(), 0..200),
    ) {
        let mut run = Run::with(limits);
        for health in past {
            run.observe(1, &health, limits.max_workers);
        }
        // Half a minute of calm, twenty seconds to the full duty.
        let pace = run.observe(52, &at_level(0.1), limits.max_workers);
        prop_assert!(near(pace.duty(), limits.max_duty.max(0.001)), "{:?}", pace);
    }

    #[test]
    fn a_worker_keeps_to_its_duty(
        max_duty in 0.02..=1.0,
        batches in prop::collection::vec((1_u64..5_000, 0.0..1.0), 200..400),
    ) {
        let pace = Pace::new(PaceLimits { max_duty, first_duty: max_duty, ..FREE });
        let (mut busy, mut paused) = (Duration::ZERO, Duration::ZERO);
        for (milliseconds, jitter) in batches {
            let batch = Duration::from_millis(milliseconds);
            let pause = pace.pause(batch, jitter);
            let expected = batch.mul_f64((1.0 - max_duty) / max_duty);
            prop_assert!(pause >= expected.mul_f64(0.749) && pause <= expected.mul_f64(1.251));
            busy += batch;
            paused += pause;
        }
        let measured = busy.as_secs_f64() / (busy + paused).as_secs_f64();
        prop_assert!((measured - max_duty).abs() < 0.05, "{} instead of {}", measured, max_duty);
    }
}
