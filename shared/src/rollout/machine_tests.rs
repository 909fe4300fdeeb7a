use super::*;
use crate::rollout::Policy;
use crate::rollout::invariant;
use crate::rollout::sample::{
    agent, database, failure, finished, granted, leased, look_failed, rollout as sample, up_to_date,
};
use crate::rollout::work::Summary;

const NOW: Time = Time(1_000_000);

fn policy(max_in_flight: u32, max_attempts: u32) -> Policy {
    Policy {
        max_in_flight,
        max_attempts,
    }
}

fn one() -> Rollout {
    sample(1, &["a"], policy(8, 3))
}

fn running(token: i64) -> Rollout {
    let mut rollout = one();
    rollout.apply(leased("a", "x"), NOW).unwrap();
    rollout.apply(granted("a", token), NOW).unwrap();
    rollout
}

fn abort() -> Event {
    Event::AbortRequested {
        by: "ada".to_owned(),
        reason: "wrong set".to_owned(),
    }
}

fn a(rollout: &Rollout) -> &Assignment {
    &rollout.assignments()[&database("a")]
}

/// The effect that writes database `a` as it is now.
fn recorded(rollout: &Rollout) -> Effect {
    Effect::Record(database("a"), a(rollout).clone())
}

fn failed(retry: Retryability) -> Finish {
    Finish::Failed(failure(retry))
}

#[test]
fn work_goes_from_waiting_to_done_and_ends_the_rollout() {
    let mut rollout = one();
    let effects = rollout.apply(leased("a", "x"), NOW).unwrap();
    let work = a(&rollout).work().unwrap().clone();
    assert_eq!(effects, [recorded(&rollout), Effect::Grant(database("a"), work)]);
    assert_eq!(rollout.apply(granted("a", 7), NOW).unwrap(), []);
    let summary = Summary {
        migrations: 1,
        steps: 2,
        rows: 3,
    };
    let effects = rollout
        .apply(finished("a", 7, Finish::Done(summary)), NOW)
        .unwrap();
    assert_eq!(
        effects,
        [
            recorded(&rollout),
            Effect::Release {
                database: database("a"),
                token: 7
            }
        ]
    );
    assert!(matches!(a(&rollout), Assignment::Done { attempt: 1, summary: s, .. } if *s == summary));
    let done = Phase::Done { at: NOW };
    assert_eq!(
        rollout.apply(Event::Ended, NOW).unwrap(),
        [Effect::Phase(done.clone())]
    );
    assert_eq!(rollout.phase(), &done);
}

#[test]
fn an_up_to_date_database_is_done_without_a_lease() {
    let mut rollout = one();
    let effects = rollout.apply(up_to_date("a"), NOW).unwrap();
    assert_eq!(effects, [recorded(&rollout)]);
    assert!(matches!(
        a(&rollout),
        Assignment::Done {
            attempt: 0,
            started_at: None,
            ..
        }
    ));
}

#[test]
fn a_passing_error_is_tried_again_until_attempts_are_spent() {
    let mut rollout = one();
    for attempt in 1..=3 {
        rollout.apply(leased("a", "x"), NOW).unwrap();
        rollout.apply(granted("a", attempt), NOW).unwrap();
        rollout
            .apply(finished("a", attempt, failed(Retryability::Retry)), NOW)
            .unwrap();
        let waits = matches!(a(&rollout), Assignment::Waiting { not_before, .. } if *not_before > NOW);
        assert_eq!(waits, attempt < 3, "{attempt}");
    }
    assert!(matches!(a(&rollout), Assignment::Failed { attempt: 3, .. }));
    rollout.apply(Event::Ended, NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Failed { at: NOW, why: None });
}

#[test]
fn an_error_that_does_not_pass_fails_that_database_only() {
    let mut rollout = sample(1, &["a", "b"], policy(8, 3));
    rollout.apply(look_failed("a"), NOW).unwrap();
    assert!(matches!(a(&rollout), Assignment::Failed { attempt: 1, .. }));
    assert_eq!(rollout.phase(), &Phase::Running);
    assert_eq!(rollout.assignments()[&database("b")], Assignment::new());
}

#[test]
fn an_error_that_stops_the_rollout_begins_nothing_more_and_fails_it() {
    let mut rollout = sample(1, &["a", "b", "c"], policy(8, 3));
    for (name, token) in [("a", 1), ("b", 2)] {
        rollout.apply(leased(name, "x"), NOW).unwrap();
        rollout.apply(granted(name, token), NOW).unwrap();
    }
    let effects = rollout
        .apply(finished("a", 1, failed(Retryability::StopRollout)), NOW)
        .unwrap();
    assert!(effects.contains(&Effect::Phase(rollout.phase().clone())));
    assert_eq!(
        rollout.apply(leased("c", "x"), NOW),
        Err(Error::Phase("aborting"))
    );
    rollout
        .apply(
            Event::Abandoned {
                database: database("c"),
            },
            NOW,
        )
        .unwrap();
    rollout.apply(finished("b", 2, Finish::Stopped), NOW).unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    let why = Some(Why::Stopped {
        database: database("a"),
    });
    assert_eq!(rollout.phase(), &Phase::Failed { at: NOW, why });
}

#[test]
fn what_was_stopped_replaced_or_lost_waits_again_and_does_not_count() {
    let ends = [
        finished("a", 7, Finish::Stopped),
        finished(
            "a",
            7,
            Finish::Replaced {
                by: "migrate up".to_owned(),
                newer: Newer::Local,
            },
        ),
        Event::LeaseLost {
            database: database("a"),
        },
    ];
    for end in ends {
        let mut rollout = running(7);
        rollout.apply(end.clone(), NOW).unwrap();
        let Assignment::Waiting {
            failures: 0,
            last: Some(setback),
            ..
        } = a(&rollout)
        else {
            panic!("{end:?}: {:?}", a(&rollout));
        };
        assert_eq!(setback.agent(), &agent("x"));
    }
}

#[test]
fn while_a_rollout_aborts_work_may_end_in_any_way() {
    let cases = [
        (finished("a", 7, Finish::Done(Summary::default())), "done"),
        (finished("a", 7, failed(Retryability::GiveUp)), "failed"),
        (finished("a", 7, failed(Retryability::Retry)), "aborted"),
        (finished("a", 7, Finish::Stopped), "aborted"),
        (
            finished(
                "a",
                7,
                Finish::Replaced {
                    by: String::new(),
                    newer: Newer::Local,
                },
            ),
            "aborted",
        ),
        (
            Event::LeaseLost {
                database: database("a"),
            },
            "aborted",
        ),
    ];
    for (event, word) in cases {
        let mut rollout = running(7);
        rollout.apply(abort(), NOW).unwrap();
        rollout.apply(event.clone(), NOW).unwrap();
        assert_eq!(a(&rollout).word(), word, "{event:?}");
        rollout.apply(Event::Ended, NOW).unwrap();
        assert_eq!(rollout.phase().word(), "aborted");
        assert_eq!(invariant::violations(&[&rollout]), []);
    }
}

#[test]
fn aborting_twice_or_too_late_changes_nothing() {
    let mut rollout = one();
    let effects = rollout.apply(abort(), NOW).unwrap();
    assert_eq!(effects, [Effect::Phase(rollout.phase().clone())]);
    assert_eq!(rollout.apply(abort(), NOW).unwrap(), []);
    rollout
        .apply(
            Event::Abandoned {
                database: database("a"),
            },
            NOW,
        )
        .unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    assert_eq!(rollout.apply(abort(), NOW).unwrap(), []);
    assert_eq!(rollout.apply(Event::Ended, NOW), Err(Error::Phase("aborted")));
}

#[test]
fn late_and_repeated_messages_change_nothing() {
    let events = [
        finished("a", 6, Finish::Done(Summary::default())),
        granted("a", 8),
        leased("a", "y"),
        up_to_date("a"),
        look_failed("a"),
        Event::Abandoned {
            database: database("a"),
        },
        Event::Ended,
        finished("z", 7, Finish::Stopped),
    ];
    for event in events {
        let mut rollout = running(7);
        assert!(rollout.apply(event.clone(), NOW).is_err(), "{event:?}");
        assert_eq!(rollout, running(7), "{event:?}");
    }
    let mut done = running(7);
    done.apply(finished("a", 7, Finish::Done(Summary::default())), NOW)
        .unwrap();
    let before = done.clone();
    for event in [
        finished("a", 7, Finish::Stopped),
        Event::LeaseLost {
            database: database("a"),
        },
    ] {
        assert!(done.apply(event, NOW).is_err());
        assert_eq!(done, before);
    }
}

#[test]
fn no_more_than_the_limit_are_at_work() {
    let mut rollout = sample(1, &["a", "b"], policy(1, 3));
    rollout.apply(leased("a", "x"), NOW).unwrap();
    assert_eq!(rollout.apply(leased("b", "x"), NOW), Err(Error::Limit(1)));
    rollout.apply(granted("a", 1), NOW).unwrap();
    rollout.apply(finished("a", 1, Finish::Stopped), NOW).unwrap();
    assert!(rollout.apply(leased("b", "x"), NOW).is_ok());
}

#[test]
fn a_rollout_survives_its_records() {
    let mut rollout = sample(1, &["a", "b", "c"], policy(8, 3));
    rollout.apply(leased("a", "x"), NOW).unwrap();
    rollout.apply(look_failed("b"), NOW).unwrap();
    let spec = serde_json::to_vec(rollout.spec()).unwrap();
    let phase = serde_json::to_vec(rollout.phase()).unwrap();
    let records = [database("a"), database("b")].map(|name| {
        let record = serde_json::to_vec(&rollout.assignments()[&name]).unwrap();
        (name, serde_json::from_slice(&record).unwrap())
    });
    let spec = serde_json::from_slice(&spec).unwrap();
    let phase = serde_json::from_slice(&phase).unwrap();
    assert_eq!(Rollout::restored(spec, phase, BTreeMap::from(records)), rollout);
}
