use super::*;
use crate::fence::Fence;
use crate::id::Instance;
use crate::retry::Retryability;
use crate::rollout::instruct::Office;
use crate::rollout::message::{Located, ToAgent};
use crate::rollout::sample::{agent, database, failure, spec};
use crate::rollout::story::{Moment, What};
use crate::rollout::work::{Finish, Identity, Summary};
use crate::rollout::{Phase, Policy, drain, view};
use uuid::Uuid;

const NOW: Time = Time(1_000_000);
const OFFICE: Office = Office { term: 3, epoch: 5 };

fn hello(lease: Option<i64>, held: Vec<Holding>) -> Hello {
    Hello {
        agent: agent("x"),
        instance: Instance(Uuid::nil()),
        version: "1".to_owned(),
        databases: BTreeMap::from([(database("a"), BTreeMap::new()), (database("b"), BTreeMap::new())]),
        lease,
        held,
    }
}

fn inventory() -> FromAgent {
    let at = |name: &str, oid| Located {
        database: database(name),
        identity: Ok(Identity {
            system: 1,
            database: oid,
        }),
        epoch: None,
    };
    FromAgent::Inventory(vec![at("a", 1), at("b", 2)])
}

/// One agent with two databases, and a rollout over both.
fn book() -> Book {
    let mut book = Book::default();
    book.attach(&hello(None, Vec::new()), 1, NOW);
    book.hear(&agent("x"), inventory(), NOW);
    book.found(spec(1, &["a", "b"], Policy::default()));
    book
}

/// Decides, grants what was decided at `token`, and tells it all.
fn turn(book: &mut Book, token: i64) -> Vec<ToAgent> {
    let advance = book.advance(NOW, || Holder(Uuid::from_u128(9)));
    assert_eq!(advance.refused, []);
    for change in advance.changes {
        let Change::Rollout { rollout, effects } = change else {
            continue;
        };
        for effect in effects {
            if let Effect::Grant(database, _) = effect {
                book.granted(&rollout, &database, token, NOW);
            }
        }
    }
    let instructions = book.instructions(OFFICE, NOW);
    for instruction in &instructions {
        book.told(instruction, NOW);
    }
    instructions
        .into_iter()
        .map(|instruction| instruction.message)
        .collect()
}

fn answer(book: &mut Book, asked: &ToAgent, result: Look) -> Heard {
    let ToAgent::Look { look, database, .. } = asked else {
        panic!("{asked:?}")
    };
    book.hear(
        &agent("x"),
        FromAgent::Looked {
            look: *look,
            database: database.clone(),
            result,
        },
        NOW,
    )
}

fn pending() -> Look {
    Look::Pending {
        versions: vec!["001".parse().unwrap()],
    }
}

/// Database `a` at work with token 7, `b` found up to date.
fn at_work() -> (Book, Holding) {
    let mut book = book();
    let looks = turn(&mut book, 0);
    answer(&mut book, &looks[0], pending());
    answer(&mut book, &looks[1], Look::UpToDate { ahead: Vec::new() });
    let given = turn(&mut book, 7);
    let [ToAgent::Assign { term: 3, order }] = given.as_slice() else {
        panic!("{given:?}")
    };
    assert_eq!((order.fence, order.attempt), (Fence::of_lease(5, 7), 1));
    let of = Holding::of(order);
    (book, of)
}

fn done() -> Finish {
    Finish::Done(Summary {
        migrations: 1,
        steps: 1,
        rows: 1,
        ..Summary::default()
    })
}

fn a(book: &Book) -> Assignment {
    book.rollouts().values().next().unwrap().assignments()[&database("a")].clone()
}

#[test]
fn a_rollout_goes_from_looks_to_work_to_its_end() {
    let (mut book, of) = at_work();
    let heard = book.hear(
        &agent("x"),
        FromAgent::Finished {
            of: of.clone(),
            finish: done(),
        },
        NOW,
    );
    assert_eq!(heard.acknowledge, Some(of));
    assert_eq!(heard.ignored, None);
    assert_eq!(turn(&mut book, 8), []);
    assert!(matches!(
        book.rollouts().values().next().unwrap().phase(),
        Phase::Done { .. }
    ));
    assert!(book.live().is_empty());
}

#[test]
fn nothing_is_said_twice() {
    let mut book = book();
    assert_eq!(turn(&mut book, 0).len(), 2);
    assert_eq!(turn(&mut book, 0), []);
    let (mut book, _) = at_work();
    assert_eq!(turn(&mut book, 0), []);
}

#[test]
fn what_could_not_be_sent_comes_again() {
    let mut book = book();
    let first = book.instructions(OFFICE, NOW);
    assert_eq!(first.len(), 2);
    book.told(&first[0], NOW);
    let again = book.instructions(OFFICE, NOW);
    assert_eq!(again.len(), 1);
    let (ToAgent::Look { look: one, .. }, ToAgent::Look { look: other, .. }) =
        (&first[0].message, &again[0].message)
    else {
        panic!("{again:?}");
    };
    assert_ne!(one, other);
}

#[test]
fn an_answer_to_another_look_is_ignored() {
    let mut book = book();
    let looks = turn(&mut book, 0);
    let late = FromAgent::Looked {
        look: 99,
        database: database("a"),
        result: Look::UpToDate { ahead: Vec::new() },
    };
    assert_eq!(book.hear(&agent("x"), late, NOW), Heard::default());
    let by_another = FromAgent::Looked {
        look: 1,
        database: database("a"),
        result: pending(),
    };
    assert_eq!(book.hear(&agent("y"), by_another, NOW), Heard::default());
    answer(&mut book, &looks[0], pending());
    let twice = answer(&mut book, &looks[0], Look::Failed(failure(Retryability::GiveUp)));
    assert_eq!(twice, Heard::default());
    assert!(matches!(a(&book), Assignment::Waiting { failures: 0, .. }));
}

#[test]
fn an_end_is_recorded_once_and_acknowledged_every_time() {
    let (mut book, of) = at_work();
    let finished = FromAgent::Finished {
        of: of.clone(),
        finish: done(),
    };
    assert_eq!(book.hear(&agent("x"), finished.clone(), NOW).changes.len(), 1);
    let again = book.hear(&agent("x"), finished, NOW);
    assert_eq!((again.changes, again.acknowledge), (Vec::new(), Some(of)));
}

#[test]
fn an_end_with_another_token_or_by_another_agent_changes_nothing() {
    let (mut book, of) = at_work();
    let before = a(&book);
    let stale = Holding {
        token: of.token - 1,
        ..of.clone()
    };
    book.hear(
        &agent("x"),
        FromAgent::Finished {
            of: stale,
            finish: done(),
        },
        NOW,
    );
    book.hear(&agent("y"), FromAgent::Finished { of, finish: done() }, NOW);
    assert_eq!(a(&book), before);
}

#[test]
fn work_goes_on_over_a_reconnect_and_is_given_again_only_where_it_is_not_known() {
    let (mut book, of) = at_work();
    book.detach(&agent("x"), Time(0));
    assert_eq!(turn(&mut book, 0), []);
    assert!(
        book.attach(&hello(Some(1), vec![of.clone()]), 1, NOW).is_empty(),
        "nothing has changed"
    );
    assert_eq!(turn(&mut book, 0), []);
    book.attach(&hello(Some(1), Vec::new()), 1, NOW);
    let given = turn(&mut book, 0);
    assert!(
        matches!(given.as_slice(), [ToAgent::Assign { order, .. }] if Holding::of(order) == of),
        "{given:?}"
    );
}

#[test]
fn another_lease_of_the_same_agent_loses_its_work() {
    let (mut book, _) = at_work();
    let changes = book.attach(&hello(None, Vec::new()), 2, NOW);
    assert_eq!(changes, [Change::Agent(agent("x"))]);
    let advance = book.advance(NOW, || Holder(Uuid::nil()));
    let [Change::Story { .. }, Change::Rollout { effects, .. }] = advance.changes.as_slice() else {
        panic!("{advance:?}")
    };
    assert!(effects.contains(&Effect::Drop(database("a"))), "{effects:?}");
    assert!(matches!(a(&book), Assignment::Waiting { failures: 0, .. }));
}

#[test]
fn an_agent_whose_lease_is_gone_loses_its_work() {
    let (mut book, _) = at_work();
    book.leases(&BTreeMap::from([(agent("x"), 1)]));
    assert!(book.advance(NOW, || Holder(Uuid::nil())).changes.is_empty());
    book.leases(&BTreeMap::new());
    let changes = book.advance(NOW, || Holder(Uuid::nil())).changes;
    assert!(
        matches!(changes.as_slice(), [Change::Story { .. }, Change::Rollout { .. }]),
        "{changes:?}"
    );
}

#[test]
fn progress_is_shown_while_it_runs_and_forgotten_with_its_end() {
    let (mut book, of) = at_work();
    let progress = Progress {
        rows: 5,
        ..Progress::default()
    };
    let report = FromAgent::Progress {
        of: of.clone(),
        progress: progress.clone(),
    };
    assert_eq!(book.hear(&agent("x"), report.clone(), NOW), Heard::default());
    let shown = |book: &Book| book.show_assignments(book.rollouts().values().next().unwrap(), NOW)[0].clone();
    assert_eq!(shown(&book).progress, Some(progress));
    assert_eq!(shown(&book).token, Some(7));
    book.hear(&agent("x"), FromAgent::Finished { of, finish: done() }, NOW);
    book.hear(&agent("x"), report, NOW);
    assert_eq!(shown(&book).progress, None);
    assert_eq!(shown(&book).state, view::AssignmentState::Done);
}

#[test]
fn an_aborted_rollout_asks_its_agents_to_stop_and_then_ends() {
    let (mut book, of) = at_work();
    let id = of.rollout.clone();
    let mut abort = || {
        book.ask(&id, Verb::Abort, "ada".to_owned(), "wrong".to_owned(), NOW)
            .unwrap()
    };
    assert_eq!(abort().len(), 1);
    assert_eq!(abort(), []);
    let told = turn(&mut book, 0);
    assert!(
        matches!(told.as_slice(), [ToAgent::Stop { reason, .. }] if reason.contains("wrong")),
        "{told:?}"
    );
    book.hear(
        &agent("x"),
        FromAgent::Finished {
            of,
            finish: Finish::Stopped(Summary::default()),
        },
        NOW,
    );
    turn(&mut book, 0);
    assert!(matches!(book.rollouts()[&id].phase(), Phase::Aborted { .. }));
}

#[test]
fn numbers_grow_and_only_ended_rollouts_are_forgotten() {
    let (mut book, of) = at_work();
    assert_eq!(book.next_number(), 2);
    book.forget(&of.rollout);
    assert_eq!(book.rollouts().len(), 1);
    book.hear(
        &agent("x"),
        FromAgent::Finished {
            of: of.clone(),
            finish: done(),
        },
        NOW,
    );
    turn(&mut book, 0);
    book.forget(&of.rollout);
    assert!(book.rollouts().is_empty());
}

#[test]
fn the_fleet_is_shown_with_who_serves_it_and_what_is_wrong() {
    let (mut book, _) = at_work();
    let databases = book.show_databases();
    assert_eq!(databases[0].agents, [agent("x")]);
    assert_eq!(
        databases[0].rollout,
        Some(crate::id::RolloutId::try_from("r1").unwrap())
    );
    assert_eq!(databases[1].rollout, None);
    assert_eq!(book.show_agents()[0].running, [database("a")]);
    let down = Located {
        database: database("b"),
        identity: Err("connection refused".to_owned()),
        epoch: None,
    };
    book.hear(&agent("x"), FromAgent::Inventory(vec![down]), NOW);
    assert!(book.show_databases()[1].problem.contains("connection refused"));
    book.leases(&BTreeMap::new());
    assert!(book.show_databases()[0].problem.contains("no agent"));
    assert_eq!(book.show_agents()[0].connected_at, None);
}

#[test]
fn an_agent_that_comes_back_too_late_is_told_who_replaced_it() {
    let (mut book, of) = at_work();
    let finished = FromAgent::Finished {
        of: of.clone(),
        finish: done(),
    };
    let late = |book: &mut Book| {
        let held = vec![Holding {
            token: of.token - 1,
            ..of.clone()
        }];
        book.attach(
            &Hello {
                agent: agent("y"),
                ..hello(None, held)
            },
            2,
            NOW,
        );
        let told = turn(book, 0);
        let [ToAgent::Stop { reason, .. }] = told.as_slice() else {
            panic!("{told:?}")
        };
        reason.clone()
    };
    assert_eq!(
        late(&mut book),
        "replaced by agent x, which works on the database now"
    );
    book.hear(&agent("x"), finished, NOW);
    assert_eq!(
        late(&mut book),
        "replaced by agent x, which has done the work meanwhile"
    );
}

#[test]
fn an_abort_of_one_rollout_leaves_the_looks_of_another() {
    let mut book = book();
    book.found(spec(2, &["a", "b"], Policy::default()));
    let looks = turn(&mut book, 0);
    let second = crate::id::RolloutId::try_from("r2").unwrap();
    book.ask(&second, Verb::Abort, String::new(), String::new(), NOW)
        .unwrap();
    assert_eq!(turn(&mut book, 0), []);
    answer(&mut book, &looks[0], pending());
    assert!(matches!(turn(&mut book, 7).as_slice(), [ToAgent::Assign { .. }]));
}

#[test]
fn an_agent_that_is_leaving_ends_its_work_and_gets_no_more() {
    let (mut book, of) = at_work();
    let leaving = book.hear(&agent("x"), FromAgent::Leaving, NOW);
    assert_eq!(leaving.changes, [Change::Goodbye(agent("x"))]);
    let finish = Finish::Stopped(Summary::default());
    book.hear(&agent("x"), FromAgent::Finished { of, finish }, NOW);
    let later = NOW.after(std::time::Duration::from_mins(1));
    let advance = book.advance(later, || Holder(Uuid::from_u128(9)));
    assert_eq!(advance.changes.len(), 0);
    assert_eq!(book.instructions(OFFICE, later).len(), 0);
    // Another life of it does.
    book.attach(&hello(None, Vec::new()), 2, later);
    book.advance(later, || Holder(Uuid::from_u128(9)));
    assert_eq!(book.instructions(OFFICE, later).len(), 1);
}

fn drain(running: drain::Running) -> drain::Drain {
    drain::Drain {
        by: "ada".to_owned(),
        reason: "a new host".to_owned(),
        at: NOW,
        running,
    }
}

#[test]
fn a_drained_agent_is_asked_for_nothing_and_its_databases_say_why() {
    let mut book = book();
    book.drain(&agent("x"), drain(drain::Running::Finishes)).unwrap();
    assert_eq!(turn(&mut book, 1), []);
    let rollout = book.live()[0];
    for shown in book.show_assignments(rollout, NOW) {
        assert!(
            shown.blocked.contains("only drained agents serve it (x)"),
            "{}",
            shown.blocked
        );
    }
    book.undrain(&agent("x")).unwrap();
    assert!(matches!(
        &turn(&mut book, 1)[..],
        [ToAgent::Look { .. }, ToAgent::Look { .. }]
    ));
}

#[test]
fn work_of_a_drained_agent_goes_on_unless_it_is_to_stop_now() {
    let mut book = book();
    let looks = turn(&mut book, 1);
    for look in &looks {
        let versions = vec!["1".parse().unwrap()];
        answer(&mut book, look, Look::Pending { versions });
    }
    let orders = turn(&mut book, 1);
    assert_eq!(orders.len(), 2, "{orders:?}");
    book.drain(&agent("x"), drain(drain::Running::Finishes)).unwrap();
    assert_eq!(turn(&mut book, 1), []);
    book.drain(&agent("x"), drain(drain::Running::Stops)).unwrap();
    let stops = turn(&mut book, 1);
    assert!(
        matches!(&stops[..], [ToAgent::Stop { .. }, ToAgent::Stop { .. }]),
        "{stops:?}"
    );
    assert_eq!(turn(&mut book, 1), [], "each is told once");
}

#[test]
fn what_a_lost_agent_told_last_is_kept_with_its_end() {
    let after = NOW.after(std::time::Duration::from_secs(30));
    let kind = || "sql".to_owned();
    let told = Story {
        moments: vec![Moment {
            from: NOW,
            to: Time(NOW.0 + 5_000),
            version: Some("001".parse().unwrap()),
            step: 1,
            what: What::AtWork { kind: kind() },
        }],
        left_out: 0,
    };
    for (told, last) in [(Some(told), Time(NOW.0 + 5_000)), (None, NOW)] {
        let (mut book, of) = at_work();
        let known = told.iter().flat_map(|told| told.moments.clone()).count();
        if let Some(story) = told {
            let of = of.clone();
            book.hear(&agent("x"), FromAgent::Told { of, story }, NOW);
        }
        let changes = book.lost(&of.rollout, &of.database, after);
        let kept = changes.iter().find_map(|change| match change {
            Change::Story { of, attempt } => Some((of, attempt)),
            _ => None,
        });
        let (whose, attempt) = kept.unwrap();
        assert_eq!((whose, &attempt.agent, attempt.number), (&of, &agent("x"), 1));
        assert_eq!(attempt.story.moments.len(), known + 1);
        let end = attempt.story.moments.last().unwrap();
        assert_eq!((&end.what, end.from, end.to), (&What::Lost, last, after));
    }
}
