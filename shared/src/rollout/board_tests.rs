use super::*;
use crate::id::{Holder, Instance};
use crate::rollout::fleet::Agent;
use crate::rollout::message::{Hello, Located};
use crate::rollout::sample::{agent, database, finished, granted, rollout, up_to_date};
use crate::rollout::work::{Finish, Identity};
use crate::rollout::{Event, Policy};
use uuid::Uuid;

const NOW: Time = Time(1_000_000);

/// A fleet with everything a decision can depend on.
#[derive(Default)]
struct Scene {
    rollouts: Vec<Rollout>,
    fleet: Fleet,
    links: BTreeMap<AgentId, Link>,
    glances: BTreeMap<DatabaseName, Glance>,
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
        let hello = Hello {
            agent: agent(name),
            instance: Instance(Uuid::nil()),
            version: String::new(),
            databases: databases
                .iter()
                .map(|name| (database(name), BTreeMap::new()))
                .collect(),
            lease: None,
            held: Vec::new(),
        };
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

    fn ask<T>(&self, ask: impl FnOnce(&Board<'_>) -> T) -> T {
        let live: Vec<_> = self.rollouts.iter().collect();
        let snapshot = Snapshot {
            live: &live,
            fleet: &self.fleet,
            links: &self.links,
            glances: &self.glances,
        };
        ask(&Board::new(snapshot))
    }

    fn decide(&self, now: Time) -> Vec<Decision> {
        self.ask(|board| board.decide(now))
    }

    /// As `kind database agent` in one line each.
    fn decided(&self, now: Time) -> Vec<String> {
        let line = |decision| match decision {
            Decision::Lease { database, agent, .. } => format!("lease {database} {agent}"),
            Decision::Lose { database, .. } => format!("lose {database}"),
            Decision::Abandon { database, .. } => format!("abandon {database}"),
            Decision::End { rollout } => format!("end {rollout}"),
            Decision::Look { database, agent, .. } => format!("look {database} {agent}"),
            Decision::Assign { agent, holding } => format!("assign {} {agent}", holding.database),
            Decision::Stop { agent, holding, .. } => format!("stop {} {agent}", holding.database),
        };
        self.decide(now).into_iter().map(line).collect()
    }

    fn blocked(&self, name: &str, now: Time) -> Option<Blocked> {
        let rollout = self.rollouts.last().unwrap();
        self.ask(|board| board.blocked(rollout, &database(name), now))
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
        let event = Event::AbortRequested {
            by: "ada".to_owned(),
            reason: "wrong set".to_owned(),
        };
        self.rollouts[0].apply(event, NOW).unwrap();
    }
}

fn at_most(max_in_flight: u32) -> Policy {
    Policy {
        max_in_flight,
        max_attempts: 3,
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
    assert_eq!(
        scene.ask(|board| board.next_wake(NOW)),
        Some(NOW.after(LOOK_PATIENCE))
    );
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
    assert_eq!(scene.ask(|board| board.next_wake(NOW)), Some(until));
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
