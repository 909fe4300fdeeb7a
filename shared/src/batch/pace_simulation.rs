//! The pace against a minute recorded from a real server, and in a closed loop: a model of a server whose replica
//! replays less than we could write.

use super::super::sample::{Limits, Sample};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// The replay lag of a standby of PostgreSQL 15, read once a second; -1 where it told none. Updates of 20,000 rows ran
/// without a pause until second 34; replay was paused from second 12 to 24.
#[rustfmt::skip]
const LAGS_MS: [i64; 60] = [
    6, 115, 193, 49, 186, 125, 134, 98, 140, 182, 154, 234,
    406, 1_447, 2_517, 3_504, 4_546, 5_608, 7_048, 7_966, 9_136, 10_541, 11_481, 12_660,
    13_749, 13_724, 13_425, 13_671, 13_191, 12_435, 12_615, 11_194, 11_254, 10_113, 7_685, 7_388,
    7_388, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1,
    -1, -1, -1, -1, 4, 0, 4, 13, -1, 302, 47, 213,
];

/// The seconds in which a checkpoint was forced.
const FORCED: [u32; 2] = [9, 23];

/// What the pace made of it, second by second where it says something new.
const EXPECTED: &str = "\
0 at full speed
9 slowed to 50 %: a checkpoint was forced
10 speeding up: 55 %
13 holding: replica lag 1.4 s, limit 2 s
14 slowed to 33 %: replica lag 2.5 s, limit 2 s
15 slowed to 16 %: replica lag 3.5 s, limit 2 s
16 slowed to 8 %: replica lag 4.5 s, limit 2 s
17 slowed to 4 %: replica lag 5.6 s, limit 2 s
18 slowed to 2 %: replica lag 7 s, limit 2 s
21 stopped: replica lag 10.5 s, limit 2 s
";

#[test]
fn a_recorded_replica_that_falls_behind_slows_stops_and_frees_the_pace() {
    let limits = PaceLimits {
        max_duty: 1.0,
        max_duty_beside: 1.0,
        max_workers: 1,
        first_duty: 1.0,
        first_workers: 1,
    };
    let mut pace = Pace::new(limits);
    let (mut before, mut checkpoints): (Option<Sample>, u64) = (None, 2);
    let (mut told, mut last) = (String::new(), String::new());
    for (second, lag) in (0_u32..).zip(LAGS_MS) {
        checkpoints += u64::from(FORCED.contains(&second));
        let sample = Sample {
            replica_lag: u64::try_from(lag).ok().map(Duration::from_millis),
            checkpoints: Some(checkpoints),
            ..Sample::default()
        };
        let health = Health::of(before.as_ref(), &sample, &Limits::default());
        before = Some(sample);
        pace.observe(&health, 40_000.0 * pace.duty(), SECOND * second);
        let reason = pace.reason().to_string();
        let kind = reason.split(':').next().unwrap_or_default().to_owned();
        if kind != last {
            told.extend([second.to_string(), format!(" {reason}\n")]);
            last = kind;
        }
    }
    assert_eq!(told, EXPECTED);
    // Calm since second 37: eight seconds more.
    let end = "stopped: replica lag 7.4 s, limit 2 s; calm for 22 of 30 s";
    assert_eq!(pace.reason().to_string(), end);
}

/// A server that writes, and one replica of it. Rates are MB of WAL a second.
struct Server {
    random: Random,
    /// What the replica replays.
    replayed: f64,
    /// Not yet replayed (MB).
    behind: f64,
    /// The lag of each second (s).
    lags: Vec<f64>,
}

/// What one worker of ours writes without pauses, and what all together can at most.
const ONE_WORKER: f64 = 40.0;
const ALL_WORKERS: f64 = 100.0;

impl Server {
    /// One second in which others write so much; gives what we wrote.
    fn second(&mut self, pace: &Pace, others: f64) -> f64 {
        let noise = 0.9 + 0.2 * self.random.share();
        let ours = (f64::from(pace.workers()) * ONE_WORKER).min(ALL_WORKERS) * pace.duty() * noise;
        self.behind = (self.behind + ours + others - self.replayed).max(0.0);
        self.lags.push(self.behind / self.replayed);
        ours
    }

    /// As a probe sees it: the lag of a second ago.
    fn health(&self) -> Health {
        let lag = self.lags.iter().rev().nth(1).copied().unwrap_or(0.0);
        let sample = Sample {
            replica_lag: Some(Duration::from_secs_f64(lag)),
            ..Sample::default()
        };
        Health::of(None, &sample, &Limits::default())
    }
}

#[test]
fn a_slow_replica_is_neither_left_behind_nor_is_its_capacity_left_unused() {
    // The second replica keeps up with less than one worker of ours.
    for (seed, replayed) in (0..50).flat_map(|seed| [(seed, 60.0), (seed, 30.0)]) {
        let mut server = Server {
            random: Random(seed),
            replayed,
            behind: 0.0,
            lags: Vec::new(),
        };
        let mut pace = Pace::new(PaceLimits {
            max_duty: 1.0,
            max_duty_beside: 1.0,
            max_workers: 4,
            first_duty: 1.0,
            first_workers: 2,
        });
        let (mut left, mut done) = (0.0, 0.0);
        for second in 0..600_u32 {
            // The applications' own writes, with a rush of a minute.
            let rush = (200..260).contains(&second);
            let others = replayed * if rush { 0.7 } else { 0.2 };
            let ours = server.second(&pace, others);
            left += replayed - others;
            done += ours;
            pace.observe(&server.health(), ours * 1_000.0, SECOND * second);
        }
        let (worst, used) = (server.lags.iter().copied().fold(0.0, f64::max), done / left);
        let met = format!("seed {seed}, {replayed} MB/s: lag up to {worst:.1} s, {used:.2} of what was left");
        assert!(worst < 8.0 && used > 0.7, "{met}");
    }
}

#[test]
fn workers_that_are_worth_it_are_found_among_noise() {
    for seed in 0..50 {
        let mut random = Random(seed);
        let mut pace = Pace::new(PaceLimits {
            max_duty: 1.0,
            max_duty_beside: 1.0,
            max_workers: 8,
            first_duty: 1.0,
            first_workers: 1,
        });
        let (mut sum, mut moves) = (0, 0);
        for second in 0..600_u32 {
            let before = pace.workers();
            // The fourth and later ones find nothing to do.
            let rows = f64::from(before.min(3)) * 10_000.0 * (0.95 + 0.1 * random.share());
            pace.observe(&Health::default(), rows, SECOND * second);
            sum += pace.workers();
            moves += pace.workers().abs_diff(before);
        }
        let mean = f64::from(sum) / 600.0;
        let met = format!("seed {seed}: {mean:.2} workers on average, {moves} moves");
        assert!((2.7..4.3).contains(&mean) && moves <= 16, "{met}");
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let high = (mixed ^ (mixed >> 31)) >> 32;
        f64::from(u32::try_from(high).unwrap()) / f64::from(u32::MAX)
    }
}
