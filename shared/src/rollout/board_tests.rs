use super::*;
use crate::id::Holder;
use crate::rollout::fleet::Agent;
use crate::rollout::message::Located;
use crate::rollout::sample::{
    agent, asked, database, finished, granted, hello, rollout, spec, up_to_date, wave,
};
use crate::rollout::work::{Finish, Identity};
use crate::rollout::{Event, Policy, Verb};
use uuid::Uuid;

const NOW: Time = Time(1_000_000);

/// A fleet with everything a decision can depend on.
#[derive(Default)]
struct Scene {
    rollouts: Vec<Rollout>,
    fleet: Fleet,
    links: BTreeMap<AgentId, Link>,
    glances: BTreeMap<DatabaseName, Glance>,
    unserved: BTreeMap<DatabaseName, Time>,
}

impl Scene {
    /// Agents with the databases they serve, connected and located; one rollout over all of them.
    fn new(policy: Policy, served: &[(&str, &[&str])]) -> Self {
        let mut scene = Self::default();
        let mut all = Vec::new();
        for (name, databases) in served {
            scene.connect(name, databases);
            all.extend(databases.iter().copied());
        }
        scene.rollouts.push(rollout(1, &all, policy));
        scene
    }

    fn connect(&mut self, name: &str, databases: &[&str]) {
        let hello = hello(name, databases.iter().copied());
        self.fleet.welcome(&hello, 1, NOW);
        let at = |name: &&str| Located {
            database: database(name),
            identity: Ok(Identity {
                system: 1,
                database: name.bytes().map(u32::from).sum(),
            }),
            epoch: None,
        };
        self.fleet
            .locate(&agent(name), databases.iter().map(at).collect());
        self.links.insert(agent(name), Link::default());
    }

    fn board(&self, now: Time) -> Board<'_> {
        let snapshot = Snapshot {
            live: self.rollouts.iter().collect(),
            fleet: &self.fleet,
            links: &self.links,
            glances: &self.glances,
            unserved: &self.unserved,
        };
        Board::new(snapshot, now)
    }

    fn decide(&self, now: Time) -> Vec<Decision> {
        self.board(now).decide()
    }

    /// As `kind database agent` in one line each.
    fn decided(&self, now: Time) -> Vec<String> {
        let line = |decision| match decision {
            Decision::Lease { database, agent, .. } => format!("lease {database} {agent}"),
            Decision::Lose { database, .. } => format!("lose {database}"),
            Decision::Abandon { database, .. } => format!("abandon {database}"),
            Decision::WaveOver { rollout } => format!("wave over {rollout}"),
            Decision::BeginWave { rollout } => format!("begin wave {rollout}"),
            Decision::LeaveOut { database, .. } => format!("leave out {database}"),
            Decision::End { rollout } => format!("end {rollout}"),
            Decision::Look { database, agent, .. } => format!("look {database} {agent}"),
            Decision::Assign { agent, holding } => format!("assign {} {agent}", holding.database),
            Decision::Stop { agent, holding, .. } => format!("stop {} {agent}", holding.database),
        };
        self.decide(now).into_iter().map(line).collect()
    }

    fn blocked(&self, name: &str, now: Time) -> Option<Blocked> {
        let rollout = self.rollouts.last().unwrap();
        self.board(now).blocked(rollout, &database(name))
    }

    fn glance(&mut self, name: &str, by: &str, found: Found) {
        let rollout = self.rollouts[0].spec().id.clone();
        self.glances.insert(
            database(name),
            Glance {
                rollout,
                agent: agent(by),
                at: NOW,
                found,
            },
        );
    }

    fn run(&mut self, name: &str, by: &str, token: i64) {
        let holder = Holder(Uuid::nil());
        let leased = Event::Leased {
            database: database(name),
            agent: agent(by),
            lease: 1,
            server: Some(1),
            holder,
        };
        self.rollouts[0].apply(leased, NOW).unwrap();
        self.rollouts[0].apply(granted(name, token), NOW).unwrap();
        self.glances.remove(&database(name));
    }

    fn know(&mut self, name: &str, by: &str, token: i64, told: Told) {
        let rollout = self.rollouts[0].spec().id.clone();
        let holding = Holding {
            rollout,
            database: database(name),
            token,
        };
        self.links
            .get_mut(&agent(by))
            .unwrap()
            .orders
            .insert(holding, told);
    }

    fn abort(&mut self) {
        self.ask_for(Verb::Abort);
    }

    fn ask_for(&mut self, verb: Verb) {
        self.rollouts[0].apply(asked(verb), NOW).unwrap();
    }
}

fn at_most(max_in_flight: u32) -> Policy {
    Policy {
        max_in_flight,
        max_per_server: 100,
        max_attempts: 3,
        ..Policy::default()
    }
}

#[test]
fn looks_are_spread_over_agents_and_bounded() {
    let scene = Scene::new(
        at_most(3),
        &[("x", &["a1", "a2", "a3", "a4"]), ("y", &["b8", "b9"])],
    );
    assert_eq!(scene.decided(NOW), ["look a1 x", "look b8 y", "look a2 x"]);
}

#[test]
fn a_database_of_two_agents_goes_to_the_one_with_less_to_do() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a", "b"]), ("y", &["b"])]);
    scene.run("a", "x", 1);
    scene.know("a", "x", 1, Told::Work);
    assert_eq!(scene.decided(NOW), ["look b y"]);
}

#[test]
fn what_a_look_found_pending_is_leased_to_who_looked() {
    let mut scene = Scene::new(at_most(1), &[("x", &["a", "b"])]);
    scene.glance("a", "x", Found::Pending);
    assert_eq!(scene.decided(NOW), ["lease a x", "look b x"]);
}

#[test]
fn looks_run_ahead_while_all_places_are_taken_and_no_further() {
    let mut scene = Scene::new(at_most(1), &[("x", &["a", "b", "c"])]);
    scene.run("a", "x", 1);
    scene.know("a", "x", 1, Told::Work);
    assert_eq!(scene.decided(NOW), ["look b x"]);
    scene.glance("b", "x", Found::Pending);
    let later = NOW.after(Duration::from_hours(1));
    assert!(
        scene.decided(later).is_empty(),
        "no look is repeated while no place is free"
    );
    assert_eq!(scene.blocked("b", NOW), Some(Blocked::Limit(1)));
}

#[test]
fn an_old_finding_is_looked_at_again_before_a_lease() {
    let mut scene = Scene::new(at_most(1), &[("x", &["a"])]);
    scene.glance("a", "x", Found::Pending);
    assert_eq!(scene.decided(NOW.after(FRESH)), ["look a x"]);
}

#[test]
fn a_look_that_is_never_answered_is_repeated() {
    let mut scene = Scene::new(at_most(1), &[("x", &["a"])]);
    scene.glance("a", "x", Found::Asked(1));
    assert!(scene.decided(NOW).is_empty());
    assert_eq!(scene.blocked("a", NOW), Some(Blocked::Looking(agent("x"))));
    assert_eq!(scene.board(NOW).next_wake(), Some(NOW.after(LOOK_PATIENCE)));
    assert_eq!(scene.decided(NOW.after(LOOK_PATIENCE)), ["look a x"]);
}

#[test]
fn a_held_database_is_looked_at_again_after_a_while() {
    let mut scene = Scene::new(at_most(1), &[("x", &["a"])]);
    scene.glance(
        "a",
        "x",
        Found::Held {
            by: "migrate up on web-3".to_owned(),
        },
    );
    assert!(scene.decided(NOW).is_empty());
    let text = scene.blocked("a", NOW).unwrap().to_string();
    assert!(text.contains("migrate up on web-3"), "{text}");
    assert_eq!(scene.decided(NOW.after(HELD_PAUSE)), ["look a x"]);
}

#[test]
fn a_later_rollout_waits_for_the_earlier_one_on_each_database() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a", "b"])]);
    scene.rollouts.push(rollout(2, &["a", "b"], at_most(8)));
    assert_eq!(scene.decided(NOW), ["look a x", "look b x"]);
    assert_eq!(
        scene.blocked("a", NOW),
        Some(Blocked::Earlier(scene.rollouts[0].spec().id.clone()))
    );
    scene.rollouts[0].apply(up_to_date("a"), NOW).unwrap();
    let looks = scene.decide(NOW);
    let by_second = |decision: &&Decision| matches!(decision, Decision::Look { rollout, .. } if *rollout == scene.rollouts[1].spec().id);
    assert_eq!(looks.iter().filter(by_second).count(), 1, "{looks:?}");
}

#[test]
fn after_an_error_the_next_attempt_waits_and_says_until_when() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    let failure = crate::rollout::sample::failure(crate::retry::Retryability::Retry);
    let event = Event::LookFailed {
        database: database("a"),
        agent: agent("x"),
        failure,
    };
    scene.rollouts[0].apply(event, NOW).unwrap();
    assert!(scene.decided(NOW).is_empty());
    let Some(Blocked::Backoff {
        until,
        attempt: 2,
        of: 3,
    }) = scene.blocked("a", NOW)
    else {
        panic!("{:?}", scene.blocked("a", NOW));
    };
    assert_eq!(scene.board(NOW).next_wake(), Some(until));
    assert_eq!(scene.decided(until), ["look a x"]);
    assert_eq!(
        scene.decided(Time(0)),
        ["look a x"],
        "a clock set back does not stop the work"
    );
}

#[test]
fn without_a_connected_agent_a_database_waits_and_names_those_it_knows() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    scene.links.clear();
    assert!(scene.decided(NOW).is_empty());
    let known = Blocked::NoAgent {
        known: vec![agent("x")],
        left_out: None,
    };
    assert_eq!(scene.blocked("a", NOW), Some(known.clone()));
    assert!(known.to_string().contains('x'));
}

#[test]
fn a_database_whose_place_is_unknown_waits() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    let record = BTreeMap::from([(agent("x"), Agent::clone(&scene.fleet.agents()[&agent("x")]))]);
    let mut databases = scene.fleet.databases().clone();
    databases
        .get_mut(&database("a"))
        .unwrap()
        .claims
        .get_mut(&agent("x"))
        .unwrap()
        .place = Place::Unasked;
    scene.fleet = Fleet::restored(record, databases);
    assert_eq!(scene.blocked("a", NOW), Some(Blocked::Unlocated(agent("x"))));
}

#[test]
fn an_identity_conflict_blocks_the_databases_it_is_about_and_no_other() {
    let scene = Scene::new(at_most(8), &[("x", &["ab", "c"]), ("y", &["ba"])]);
    assert_eq!(scene.decided(NOW), ["look c x"]);
    let text = scene.blocked("ab", NOW).unwrap().to_string();
    assert!(
        text.contains("agent x") && text.contains("agent y") && text.contains("ba"),
        "{text}"
    );
}

#[test]
fn committed_work_that_the_agent_does_not_know_is_given_to_it() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    scene.run("a", "x", 7);
    assert_eq!(scene.decided(NOW), ["assign a x"]);
    scene.know("a", "x", 7, Told::Work);
    assert!(scene.decided(NOW).is_empty());
}

#[test]
fn work_of_another_token_is_stopped() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    scene.run("a", "x", 7);
    scene.know("a", "x", 6, Told::Work);
    assert_eq!(scene.decided(NOW), ["stop a x", "assign a x"]);
}

#[test]
fn an_aborting_rollout_stops_what_runs_once_and_abandons_what_waits() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a", "b", "c"])]);
    scene.run("a", "x", 7);
    scene.run("b", "x", 8);
    scene.know("a", "x", 7, Told::Work);
    scene.abort();
    assert_eq!(
        scene.decided(NOW),
        ["stop a x", "stop b x", "abandon c"],
        "b was never given"
    );
    scene.know("a", "x", 7, Told::Stop);
    scene.know("b", "x", 8, Told::Stop);
    assert_eq!(scene.decided(NOW), ["abandon c"]);
}

#[test]
fn work_under_a_lease_that_is_gone_is_lost() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a"])]);
    scene.run("a", "x", 7);
    scene.know("a", "x", 7, Told::Work);
    scene.fleet.retain(&BTreeMap::new());
    assert_eq!(scene.decided(NOW), ["lose a"]);
}

#[test]
fn a_rollout_ends_when_nothing_is_left() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a", "b"])]);
    scene.rollouts[0].apply(up_to_date("a"), NOW).unwrap();
    scene.run("b", "x", 7);
    scene.know("b", "x", 7, Told::Work);
    assert!(scene.decided(NOW).is_empty());
    scene.rollouts[0]
        .apply(
            finished("b", 7, Finish::Done(crate::rollout::work::Summary::default())),
            NOW,
        )
        .unwrap();
    scene.know("b", "x", 7, Told::Stop);
    assert_eq!(scene.decided(NOW), ["end r1"]);
}

/// A scene whose only rollout has these waves.
fn in_waves(policy: Policy, waves: Vec<crate::rollout::waves::Wave>) -> Scene {
    let names: Vec<_> = waves.iter().flat_map(|wave| &wave.databases).collect();
    let names: Vec<_> = names.iter().map(|name| name.as_str()).collect();
    let mut scene = Scene::new(policy.clone(), &[("x", names.as_slice())]);
    let spec = crate::rollout::Spec {
        waves,
        ..spec(1, &[], policy)
    };
    scene.rollouts = vec![Rollout::new(spec)];
    scene
}

impl Scene {
    fn decided_and_done(&mut self, decisions: &[&str], now: Time) {
        assert_eq!(self.decided(now), decisions);
        for decision in decisions {
            let event = if decision.starts_with("wave over") {
                Event::WaveOver
            } else {
                Event::WaveBegun
            };
            self.rollouts[0].apply(event, now).unwrap();
        }
    }
}

#[test]
fn a_wave_begins_when_the_one_before_is_over_has_soaked_and_is_approved() {
    let canary = crate::rollout::waves::Wave {
        soak: Duration::from_mins(10),
        ..wave("canary", &["a"])
    };
    let rest = crate::rollout::waves::Wave {
        approval: true,
        ..wave("rest", &["b"])
    };
    let mut scene = in_waves(at_most(8), vec![canary, rest]);
    assert_eq!(scene.decided(NOW), ["look a x"]);
    assert_eq!(scene.blocked("b", NOW), Some(Blocked::Wave("rest".to_owned())));
    let said = |scene: &Scene, now| scene.rollouts[0].next_wave(now).unwrap().to_string();
    assert_eq!(said(&scene, NOW), "wave canary comes first: 1 database is left");
    scene.rollouts[0].apply(up_to_date("a"), NOW).unwrap();
    scene.decided_and_done(&["wave over r1"], NOW);
    assert!(scene.decided(NOW).is_empty());
    assert!(said(&scene, NOW).starts_with("wave canary soaks until "));
    let word = |scene: &Scene, now| scene.rollouts[0].next_wave(now).unwrap().word();
    assert_eq!(word(&scene, NOW), "soak");
    let soaked = NOW.after(Duration::from_mins(10));
    assert_eq!(scene.board(NOW).next_wake(), Some(soaked));
    assert!(scene.decided(soaked).is_empty());
    assert!(said(&scene, soaked).starts_with("wave rest waits for approval"));
    assert_eq!(word(&scene, soaked), "approval");
    scene.ask_for(Verb::Approve { wave: None });
    scene.decided_and_done(&["begin wave r1"], soaked);
    assert_eq!(scene.decided(soaked), ["look b x"]);
}

#[test]
fn a_server_has_no_more_work_than_its_limit_and_others_go_on() {
    let policy = Policy {
        max_per_server: 1,
        ..at_most(8)
    };
    let mut scene = Scene::new(policy, &[("x", &["a", "b", "c"])]);
    let mut elsewhere = |name: &str, system| {
        let located = Located {
            database: database(name),
            identity: Ok(Identity { system, database: 1 }),
            epoch: None,
        };
        scene.fleet.locate(&agent("x"), vec![located]);
    };
    elsewhere("c", 2);
    assert_eq!(
        scene.decided(NOW),
        ["look a x", "look c x"],
        "b shares the server of a"
    );
    scene.run("a", "x", 7);
    scene.know("a", "x", 7, Told::Work);
    scene.glance("b", "x", Found::Pending);
    scene.glance("c", "x", Found::Pending);
    assert_eq!(scene.decided(NOW), ["lease c x"]);
    let limit = Blocked::ServerLimit { server: 1, limit: 1 };
    assert_eq!(scene.blocked("b", NOW), Some(limit));
}

#[test]
fn an_agent_has_no_more_work_than_its_limit() {
    let policy = Policy {
        max_per_agent: Some(1),
        ..at_most(8)
    };
    let mut scene = Scene::new(policy, &[("x", &["a", "b"]), ("y", &["d"])]);
    scene.run("a", "x", 7);
    scene.know("a", "x", 7, Told::Work);
    scene.glance("b", "x", Found::Pending);
    scene.glance("d", "y", Found::Pending);
    assert_eq!(scene.decided(NOW), ["lease d y"]);
    assert_eq!(scene.blocked("b", NOW), Some(Blocked::AgentLimit(1)));
}

#[test]
fn a_wave_that_ramps_up_begins_with_one() {
    let policy = Policy {
        ramp_up: true,
        ..at_most(8)
    };
    let mut scene = Scene::new(policy, &[("x", &["a", "b", "c", "d"])]);
    assert_eq!(scene.decided(NOW), ["look a x"]);
    assert_eq!(scene.blocked("b", NOW), Some(Blocked::RampUp(1)));
    scene.rollouts[0].apply(up_to_date("a"), NOW).unwrap();
    assert_eq!(scene.decided(NOW), ["look b x", "look c x"]);
}

#[test]
fn a_paused_rollout_stops_its_work_and_begins_nothing_until_it_is_resumed() {
    let mut scene = Scene::new(at_most(8), &[("x", &["a", "b"])]);
    scene.run("a", "x", 7);
    scene.know("a", "x", 7, Told::Work);
    scene.ask_for(Verb::Pause);
    assert_eq!(scene.decided(NOW), ["stop a x"]);
    assert_eq!(
        scene.blocked("b", NOW).unwrap().to_string(),
        "the rollout is paused (paused by ada: why not)"
    );
    scene.know("a", "x", 7, Told::Stop);
    assert!(scene.decided(NOW).is_empty());
    scene.ask_for(Verb::Resume);
    assert_eq!(scene.decided(NOW), ["look b x"]);
}

#[test]
fn a_spent_budget_lets_what_runs_finish() {
    let policy = Policy {
        failure_budget: crate::rollout::policy::Budget::Count(1),
        ..at_most(8)
    };
    let mut scene = Scene::new(policy, &[("x", &["a", "b", "c"])]);
    scene.run("a", "x", 7);
    scene.know("a", "x", 7, Told::Work);
    scene.rollouts[0]
        .apply(crate::rollout::sample::look_failed("b"), NOW)
        .unwrap();
    assert!(scene.decided(NOW).is_empty(), "a goes on, c does not begin");
    let text = scene.blocked("c", NOW).unwrap().to_string();
    assert_eq!(
        text,
        "the rollout is paused (1 database failed, and the failure budget is 1)"
    );
}

#[test]
fn outside_its_hours_a_rollout_stops_its_work_and_says_when_they_begin() {
    let windows = r#"{ "windows": [{ "from": "00:20", "to": "00:30", "zone": "UTC" }] }"#;
    let policy = Policy {
        windows: Policy::read("p", windows).unwrap().windows,
        ..at_most(8)
    };
    let begin = Time(20 * 60 * 1000);
    let mut scene = Scene::new(policy, &[("x", &["a", "b"])]);
    assert!(scene.decided(NOW).is_empty());
    assert_eq!(scene.blocked("a", NOW), Some(Blocked::Hours { until: begin }));
    assert_eq!(scene.board(NOW).next_wake(), Some(begin));
    assert_eq!(scene.decided(begin), ["look a x", "look b x"]);
    let end = begin.after(Duration::from_mins(10));
    assert_eq!(scene.board(begin).next_wake(), Some(end));
    let leased = Event::Leased {
        database: database("a"),
        agent: agent("x"),
        lease: 1,
        server: None,
        holder: Holder(Uuid::nil()),
    };
    scene.rollouts[0].apply(leased, begin).unwrap();
    scene.rollouts[0].apply(granted("a", 7), begin).unwrap();
    scene.know("a", "x", 7, Told::Work);
    assert_eq!(scene.decided(end), ["stop a x"]);
}

#[test]
fn a_database_that_no_agent_serves_is_left_out_after_a_while_where_the_policy_says_so() {
    let policy = Policy {
        unreachable: Unreachable::Skip,
        ..at_most(8)
    };
    let mut scene = Scene::new(policy, &[("x", &["a"]), ("y", &["d"])]);
    scene.links.remove(&agent("y"));
    let unserved = scene.board(NOW).unserved();
    assert_eq!(unserved, BTreeSet::from([database("d")]));
    scene.unserved.insert(database("d"), NOW);
    assert_eq!(scene.decided(NOW), ["look a x"]);
    assert_eq!(
        scene.decided(NOW.after(UNSERVED_PATIENCE)),
        ["leave out d", "look a x"]
    );
}
