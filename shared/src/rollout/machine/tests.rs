use super::*;
use crate::rollout::invariant;
use crate::rollout::sample::{
    agent, asked, database, failure, finished, granted, leased, look_failed, rollout as sample, up_to_date,
};
use crate::rollout::work::Summary;
use crate::rollout::{Policy, Verb};

const NOW: Time = Time(1_000_000);

fn policy(max_in_flight: u32, max_attempts: u32) -> Policy {
    Policy {
        max_in_flight,
        max_attempts,
        ..Policy::default()
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
    asked(Verb::Abort)
}

/// The effect that writes where the rollout stands now.
fn course(rollout: &Rollout) -> Effect {
    Effect::Course(rollout.course().clone())
}

fn a(rollout: &Rollout) -> &Assignment {
    &rollout.assignments()[&database("a")]
}

/// The effect that writes database `a` as it is now.
fn recorded(rollout: &Rollout) -> Effect {
    Effect::Record(database("a"), a(rollout).clone())
}

fn failed(retry: Retryability) -> Finish {
    Finish::Failed(failure(retry), Summary::default())
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
        ..Summary::default()
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
    assert_eq!(rollout.apply(Event::Ended, NOW).unwrap(), [course(&rollout)]);
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
    assert!(effects.contains(&course(&rollout)));
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
    rollout
        .apply(finished("b", 2, Finish::Stopped(Summary::default())), NOW)
        .unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    let why = Some(Why::Stopped {
        database: database("a"),
    });
    assert_eq!(rollout.phase(), &Phase::Failed { at: NOW, why });
}

#[test]
fn what_was_stopped_replaced_or_lost_waits_again_and_does_not_count() {
    let ends = [
        finished("a", 7, Finish::Stopped(Summary::default())),
        finished(
            "a",
            7,
            Finish::Replaced {
                by: "migrate up".to_owned(),
                newer: Newer::Local,
                spent: Summary::default(),
            },
        ),
        Event::LeaseLost {
            database: database("a"),
            progress: None,
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
        (finished("a", 7, Finish::Stopped(Summary::default())), "aborted"),
        (
            finished(
                "a",
                7,
                Finish::Replaced {
                    by: String::new(),
                    newer: Newer::Local,
                    spent: Summary::default(),
                },
            ),
            "aborted",
        ),
        (
            Event::LeaseLost {
                database: database("a"),
                progress: None,
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
    let acted = Effect::Acted(0, rollout.actions()[0].clone());
    assert_eq!(effects, [course(&rollout), acted]);
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
        finished("z", 7, Finish::Stopped(Summary::default())),
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
        finished("a", 7, Finish::Stopped(Summary::default())),
        Event::LeaseLost {
            database: database("a"),
            progress: None,
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
    rollout
        .apply(finished("a", 1, Finish::Stopped(Summary::default())), NOW)
        .unwrap();
    assert!(rollout.apply(leased("b", "x"), NOW).is_ok());
}

#[test]
fn a_rollout_survives_its_records() {
    let mut rollout = sample(1, &["a", "b", "c"], policy(8, 3));
    rollout.apply(leased("a", "x"), NOW).unwrap();
    rollout.apply(look_failed("b"), NOW).unwrap();
    let spec = serde_json::to_vec(rollout.spec()).unwrap();
    rollout.apply(asked(Verb::Pause), NOW).unwrap();
    let course = serde_json::to_vec(rollout.course()).unwrap();
    let records = [database("a"), database("b")].map(|name| {
        let record = serde_json::to_vec(&rollout.assignments()[&name]).unwrap();
        (name, serde_json::from_slice(&record).unwrap())
    });
    let spec = serde_json::from_slice(&spec).unwrap();
    let course = serde_json::from_slice(&course).unwrap();
    let actions = serde_json::to_vec(rollout.actions()).unwrap();
    let actions = serde_json::from_slice(&actions).unwrap();
    let restored = Rollout::restored(spec, course, BTreeMap::from(records), actions);
    assert_eq!(restored, rollout);
}

/// Fails databases by looks.
fn with_failed(mut rollout: Rollout, names: &[&str]) -> Rollout {
    for name in names {
        rollout.apply(look_failed(name), NOW).unwrap();
    }
    rollout
}

fn is_paused_by_budget(rollout: &Rollout) -> bool {
    matches!(
        rollout.phase(),
        Phase::Paused {
            pause: Pause::Budget { .. }
        }
    )
}

fn named(names: &[&str]) -> std::collections::BTreeSet<DatabaseName> {
    names.iter().map(|name| database(name)).collect()
}

#[test]
fn a_spent_budget_pauses_while_databases_wait_and_resuming_counts_anew() {
    let budget = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(2),
        ..policy(8, 3)
    };
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut rollout = with_failed(sample(1, &names, budget), &["a"]);
    assert_eq!(rollout.phase(), &Phase::Running);
    rollout.apply(look_failed("b"), NOW).unwrap();
    assert!(is_paused_by_budget(&rollout));
    assert_eq!(rollout.apply(leased("c", "x"), NOW), Err(Error::Phase("paused")));
    rollout.apply(asked(Verb::Resume), NOW).unwrap();
    rollout.apply(look_failed("c"), NOW).unwrap();
    assert_eq!(
        rollout.phase(),
        &Phase::Running,
        "the first two do not count any more"
    );
    rollout.apply(look_failed("d"), NOW).unwrap();
    assert!(is_paused_by_budget(&rollout));
    assert_eq!(rollout.actions().len(), 1);
}

#[test]
fn a_budget_that_is_spent_by_the_last_databases_ends_the_rollout_as_failed() {
    let budget = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(1),
        ..policy(8, 3)
    };
    let mut rollout = with_failed(sample(1, &["a"], budget), &["a"]);
    assert_eq!(rollout.phase(), &Phase::Running);
    rollout.apply(Event::Ended, NOW).unwrap();
    assert!(matches!(rollout.phase(), Phase::Failed { why: None, .. }));
}

#[test]
fn work_that_falls_back_meets_a_budget_that_was_spent_while_it_ran() {
    let budget = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(1),
        ..policy(8, 3)
    };
    let mut rollout = sample(1, &["a", "b"], budget);
    rollout.apply(leased("b", "x"), NOW).unwrap();
    rollout.apply(granted("b", 7), NOW).unwrap();
    let mut rollout = with_failed(rollout, &["a"]);
    assert_eq!(rollout.phase(), &Phase::Running, "nothing waits");
    rollout
        .apply(finished("b", 7, Finish::Stopped(Summary::default())), NOW)
        .unwrap();
    assert!(is_paused_by_budget(&rollout));
}

#[test]
fn pausing_and_resuming_again_changes_nothing() {
    let mut rollout = one();
    assert_eq!(rollout.apply(asked(Verb::Resume), NOW).unwrap(), []);
    assert_eq!(rollout.apply(asked(Verb::Pause), NOW).unwrap().len(), 2);
    assert_eq!(rollout.apply(asked(Verb::Pause), NOW).unwrap(), []);
    rollout.apply(asked(Verb::Resume), NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Running);
    rollout.apply(up_to_date("a"), NOW).unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    for verb in [Verb::Pause, Verb::Resume] {
        assert_eq!(rollout.apply(asked(verb), NOW), Err(Error::Phase("done")));
    }
}

#[test]
fn a_failed_rollout_is_opened_again_for_what_failed() {
    let mut rollout = with_failed(sample(1, &["a", "b"], policy(8, 3)), &["a"]);
    rollout.apply(up_to_date("b"), NOW).unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    let all = || Verb::Retry {
        databases: named(&[]),
    };
    rollout.apply(asked(all()), NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Running);
    assert!(matches!(
        a(&rollout),
        Assignment::Waiting {
            failures: 0,
            last: Some(_),
            ..
        }
    ));
    assert_eq!(
        rollout.apply(asked(all()), NOW).unwrap(),
        [],
        "nothing has failed"
    );
    let done = Verb::Retry {
        databases: named(&["b"]),
    };
    let refused = rollout.apply(asked(done), NOW).unwrap_err().to_string();
    assert_eq!(refused, "database b is done, where failed is needed");
}

#[test]
fn what_a_failure_stopped_is_taken_up_again_with_it() {
    let mut rollout = running(7);
    rollout
        .apply(finished("a", 7, failed(Retryability::StopRollout)), NOW)
        .unwrap();
    rollout.apply(Event::Ended, NOW).unwrap();
    assert!(matches!(rollout.phase(), Phase::Failed { why: Some(_), .. }));
    let retry = Verb::Retry {
        databases: named(&["a"]),
    };
    rollout.apply(asked(retry), NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Running);
}

#[test]
fn a_retry_forgives_only_what_it_tries_again_and_a_skip_resumes_nothing() {
    let names = ["a", "b", "c", "d"];
    let limits = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(2),
        ..policy(8, 3)
    };
    let mut rollout = with_failed(sample(1, &names, limits), &["a", "b"]);
    assert!(matches!(rollout.phase(), Phase::Paused { .. }));
    let skip = Verb::Skip {
        databases: named(&["a", "b"]),
    };
    let mut skipped = rollout.clone();
    skipped.apply(asked(skip), NOW).unwrap();
    assert!(
        matches!(skipped.phase(), Phase::Paused { .. }),
        "nobody has resumed it"
    );

    let retry = |name| {
        asked(Verb::Retry {
            databases: named(&[name]),
        })
    };
    rollout.apply(retry("a"), NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Running);
    assert_eq!(rollout.counts().failed, 1, "b counts on");
    rollout.apply(look_failed("a"), NOW).unwrap();
    assert!(
        matches!(rollout.phase(), Phase::Paused { .. }),
        "the budget is spent again"
    );
}

#[test]
fn a_pause_by_budget_tells_what_counts_after_a_retry_of_some() {
    let limits = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(1),
        ..policy(8, 1)
    };
    let names = ["a", "b", "c", "d"];
    let mut rollout = sample(1, &names, limits);
    let at_work = [("a", 1), ("b", 2), ("c", 3)];
    for (name, token) in at_work {
        rollout.apply(leased(name, "x"), NOW).unwrap();
        rollout.apply(granted(name, token), NOW).unwrap();
    }
    for (name, token) in at_work {
        let finish = failed(Retryability::GiveUp);
        rollout.apply(finished(name, token, finish), NOW).unwrap();
    }
    let retry = Verb::Retry {
        databases: named(&["c"]),
    };
    rollout.apply(asked(retry), NOW).unwrap();
    let Phase::Paused { pause } = rollout.phase() else {
        panic!("two others failed: {:?}", rollout.phase());
    };
    assert!(pause.to_string().starts_with("2 databases failed"), "{pause}");
}

#[test]
fn a_skipped_database_is_neither_done_nor_failed() {
    let mut rollout = with_failed(sample(1, &["a", "b", "c"], policy(8, 3)), &["a"]);
    let skip = || Verb::Skip {
        databases: named(&["a", "b"]),
    };
    rollout.apply(asked(skip()), NOW).unwrap();
    assert_eq!(rollout.apply(asked(skip()), NOW).unwrap(), []);
    rollout.apply(up_to_date("c"), NOW).unwrap();
    let unknown = Verb::Skip {
        databases: named(&["z"]),
    };
    assert_eq!(
        rollout.apply(asked(unknown), NOW),
        Err(Error::NotIncluded(database("z")))
    );
    rollout.apply(Event::Ended, NOW).unwrap();
    assert_eq!(rollout.phase(), &Phase::Done { at: NOW });
    assert_eq!(rollout.counts().skipped, 2);
}

#[test]
fn only_a_wave_that_waits_for_it_is_approved() {
    let mut rollout = one();
    let approve = |wave: Option<&str>| {
        asked(Verb::Approve {
            wave: wave.map(ToOwned::to_owned),
        })
    };
    let said = |error: Result<_, Error>| error.unwrap_err().to_string();
    assert!(said(rollout.apply(approve(Some("rest")), NOW)).contains("needs no approval"));
    assert!(said(rollout.apply(approve(Some("gold")), NOW)).contains("the waves are rest"));
    assert!(said(rollout.apply(approve(None), NOW)).contains("no wave waits"));
}

#[test]
fn what_attempts_did_is_summed_up_whatever_ended_them() {
    let part = |rows, open_rows| Summary {
        rows,
        open_rows,
        cost: crate::rollout::work::Cost {
            lock_wait_ms: 10,
            ..Default::default()
        },
        ..Summary::default()
    };
    let mut rollout = crate::rollout::sample::rollout(1, &["a"], Policy::default());
    let attempt = |rollout: &mut Rollout, from: u64, end: Event| {
        rollout.apply(leased("a", "x"), Time(from)).unwrap();
        rollout.apply(granted("a", 7), Time(from)).unwrap();
        rollout.apply(end, Time(from + 5)).unwrap();
        rollout.assignments()[&database("a")].spent()
    };
    let stopped = finished("a", 7, Finish::Stopped(part(180, 180)));
    assert_eq!(attempt(&mut rollout, 10_000, stopped).rows, 180);
    // Lost when its step was at 500 rows over all its lives.
    let lost = Event::LeaseLost {
        database: database("a"),
        progress: Some(crate::rollout::work::Progress {
            rows: 500,
            ..Default::default()
        }),
    };
    assert_eq!(attempt(&mut rollout, 20_000, lost).rows, 500);
    let failed = Finish::Failed(failure(Retryability::Retry), part(100, 600));
    assert_eq!(attempt(&mut rollout, 30_000, finished("a", 7, failed)).rows, 600);
    let done = finished("a", 7, Finish::Done(part(1_400, 0)));
    let all = attempt(&mut rollout, 90_000, done);
    assert_eq!((all.rows, all.cost.lock_wait_ms, all.worked_ms), (2_000, 30, 20));
}

#[test]
fn a_record_without_what_was_spent_is_read() {
    let record = r#"{ "state": "waiting", "failures": 1, "not_before": 5, "last": null }"#;
    let read: Assignment = serde_json::from_str(record).unwrap();
    assert_eq!(read.spent(), Summary::default());
}

#[test]
fn an_approval_asked_for_twice_approves_one_wave_only() {
    let mut spec = crate::rollout::sample::spec(1, &["c"], Policy::default());
    spec.waves[0].approval = true;
    let first = crate::rollout::sample::wave("first", &["a"]);
    let mut second = crate::rollout::sample::wave("second", &["b"]);
    second.approval = true;
    spec.waves.insert(0, first);
    spec.waves.insert(1, second);
    let mut rollout = Rollout::new(spec);
    let approve = || asked(Verb::Approve { wave: None });
    assert!(!rollout.apply(approve(), NOW).unwrap().is_empty());
    assert!(rollout.apply(approve(), NOW).unwrap().is_empty());
    assert_eq!(rollout.course().approved.iter().collect::<Vec<_>>(), [&1]);
}

#[test]
fn that_a_rollout_is_undone_is_written_down_once() {
    let mut rollout = one();
    let undo = || {
        asked(Verb::Undo {
            rollout: crate::id::RolloutId::try_from("u").unwrap(),
        })
    };
    let effects = rollout.apply(undo(), NOW).unwrap();
    assert!(matches!(&effects[..], [Effect::Acted(0, _)]), "{effects:?}");
    assert!(rollout.apply(undo(), NOW).unwrap().is_empty());
    assert_eq!(rollout.phase(), &Phase::Running);
}
