//! Scenes between an agent and its coordinators, without clock or network.

use super::*;
use crate::link::event::{Inquired, Question};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use shared::fence::Fence;
use shared::id::{Digest, Holder, RolloutId, SetName};
use shared::inquiry::{Answer, Checked, Inquiry};
use shared::plan::Strategies;
use shared::rollout::Bundle as Content;
use shared::rollout::message::{Located, Parting, Renewal, ToAgent, Welcome};
use shared::rollout::story::Story;
use shared::rollout::work::{Aim, Finish, Look, Order, Summary};
use uuid::Uuid;

const TTL: Duration = Duration::from_secs(30);
const TERM: i64 = 5;

struct Scene {
    state: State,
    now: Boot,
}

impl Scene {
    /// An agent with databases `a` and `b` that knows the coordinators `one` and `two`, and what it does first.
    fn start() -> (Self, Vec<String>) {
        let names = ["a", "b"].map(|name| (DatabaseName::try_from(name).unwrap(), BTreeMap::new()));
        let identity = Identity {
            agent: AgentId::try_from("agent").unwrap(),
            instance: Instance(Uuid::from_u128(1)),
            databases: names.into_iter().collect(),
        };
        let now = Boot::from_start(Duration::from_secs(1000));
        let mut state = State::new(identity, vec!["one".to_owned(), "two".to_owned()], 7, now);
        let effects = told(&state.tick(now));
        (Self { state, now }, effects)
    }

    /// The same, welcomed by `one` on connection 1 with lease 70.
    fn at_home() -> Self {
        let (mut scene, _) = Self::start();
        scene.on(Event::Opened(ConnectionId(1)));
        scene.hear(1, welcome(TERM, 70));
        for name in ["a", "b"] {
            scene.on(Event::Located(located(name)));
        }
        scene.pass(Duration::ZERO);
        scene
    }

    /// The same, with an order at work on `a` under token 10.
    fn at_work() -> Self {
        let mut scene = Self::at_home();
        scene.hear(1, bundle());
        assert_eq!(scene.hear(1, assign("a", 10)), ["start a/10"]);
        scene
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        told(&self.state.on(event, self.now))
    }

    fn hear(&mut self, connection: u64, message: ToAgent) -> Vec<String> {
        self.on(Event::Received(ConnectionId(connection), message))
    }

    fn fail(&mut self, connection: u64) -> Vec<String> {
        self.on(Event::Closed(ConnectionId(connection)))
    }

    /// Lets time pass, waking the machine when it asked for it.
    fn pass(&mut self, time: Duration) -> Vec<String> {
        let end = self.now + time;
        let mut effects = Vec::new();
        while let Some(at) = self.state.wake_at().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            effects.extend(told(&self.state.tick(self.now)));
        }
        self.now = end;
        effects
    }

    /// Answers every heartbeat on a connection for a while.
    fn pass_with_answers(&mut self, time: Duration, connection: u64) {
        let end = self.now + time;
        while self.now < end {
            let beats = self.pass(Duration::from_secs(1));
            for beat in beats
                .iter()
                .filter_map(|told| told.strip_prefix(&format!("{connection}: heartbeat ")))
            {
                let renewal = Renewal::Alive(TTL);
                let sequence = beat.parse().unwrap();
                self.hear(connection, ToAgent::HeartbeatAnswer { sequence, renewal });
            }
        }
    }
}

/// Effects as short texts: what a reader wants to compare.
fn told(effects: &[Effect]) -> Vec<String> {
    let holding = |of: &Holding| format!("{}/{}", of.database, of.token);
    let message = |message: &FromAgent| match message {
        FromAgent::Hello(hello) => {
            let held: Vec<_> = hello.held.iter().map(holding).collect();
            format!("hello lease={} held={held:?}", hello.lease.unwrap_or(0))
        }
        FromAgent::Heartbeat { sequence, .. } => format!("heartbeat {sequence}"),
        FromAgent::Inventory(entries) => format!("inventory of {}", entries.len()),
        FromAgent::Looked { look, result, .. } => match result {
            Look::UpToDate { .. } => format!("looked {look}: up to date"),
            Look::Pending { .. } | Look::Held { .. } => format!("looked {look}: something to do"),
            Look::Declined { .. } => format!("looked {look}: declined"),
            Look::Failed(_) => format!("looked {look}: failed"),
        },
        FromAgent::Answered {
            inquiry,
            database,
            result,
        } => {
            let how = if result.is_ok() { "answered" } else { "no answer" };
            format!("inquiry {inquiry} {database}: {how}")
        }
        FromAgent::Told { of, .. } => format!("told {}", of.database),
        FromAgent::Leaving => "leaving".to_owned(),
        FromAgent::Progress { of, .. } => format!("progress {}", holding(of)),
        FromAgent::Finished { of, finish } => match finish {
            Finish::Done(_) => format!("done {}", holding(of)),
            Finish::Failed(_, _) => format!("failed {}", holding(of)),
            Finish::Replaced { .. } => format!("replaced {}", holding(of)),
            Finish::Stopped(_) => format!("stopped {}", holding(of)),
        },
    };
    let tell = |effect: &Effect| match effect {
        Effect::Open(id, url) => format!("{}: open {url}", id.0),
        Effect::Send(id, sent) => format!("{}: {}", id.0, message(sent)),
        Effect::Close(id) => format!("{}: close", id.0),
        Effect::Look { question, .. } => format!("look {} {}", question.look, question.database),
        Effect::Start { order, .. } => format!("start {}/{}", order.database, order.fence.token),
        Effect::Stop(of) => format!("stop {}", holding(of)),
        Effect::Locate(databases) => format!("locate {}", databases.len()),
        Effect::Inquire(questions, _) => {
            let named: Vec<_> = questions
                .iter()
                .map(|question| question.database.as_str())
                .collect();
            format!("answer {}", named.join(" "))
        }
        Effect::End(ending) => format!("end {ending:?}"),
    };
    effects.iter().map(tell).collect()
}

fn welcome(term: i64, lease: i64) -> ToAgent {
    welcome_of_epoch(1, term, lease)
}

fn welcome_of_epoch(epoch: i64, term: i64, lease: i64) -> ToAgent {
    ToAgent::Welcome(Welcome {
        term,
        lease,
        ttl: TTL,
        heartbeat_interval: Duration::from_secs(5),
        store: StoreId(Uuid::from_u128(9)),
        epoch,
        version: String::new(),
    })
}

fn redirect(leader: Option<&str>) -> ToAgent {
    ToAgent::Redirect {
        leader: leader.map(str::to_owned),
    }
}

fn content() -> Content {
    Content {
        set: SetName::default_set(),
        files: Vec::new(),
    }
}

fn bundle() -> ToAgent {
    ToAgent::Bundle {
        digest: content().digest(),
        bundle: content(),
    }
}

fn assign(database: &str, token: i64) -> ToAgent {
    assign_in(TERM, database, token)
}

fn assign_in(term: i64, database: &str, token: i64) -> ToAgent {
    let order = Order {
        rollout: RolloutId::try_from("r").unwrap(),
        database: database.try_into().unwrap(),
        bundle: content().digest(),
        aim: Aim::Apply,
        fence: Fence::of_lease(1, token),
        holder: Holder(Uuid::from_u128(2)),
        attempt: 1,
        canary: false,
        strategies: Strategies::default(),
        trace: None,
    };
    ToAgent::Assign { term, order }
}

fn look(term: i64, database: &str, bundle: Digest) -> ToAgent {
    ToAgent::Look {
        term,
        look: 3,
        database: database.try_into().unwrap(),
        bundle,
        aim: Aim::Apply,
    }
}

fn holding(database: &str, token: i64) -> Holding {
    Holding {
        rollout: RolloutId::try_from("r").unwrap(),
        database: database.try_into().unwrap(),
        token,
    }
}

fn located(database: &str) -> Located {
    Located::lost(database.try_into().unwrap(), "down".to_owned())
}

#[test]
fn the_leader_gets_a_hello_and_then_the_inventory() {
    let (mut scene, first) = Scene::start();
    assert_eq!(first, ["1: open one"]);
    assert_eq!(
        scene.on(Event::Opened(ConnectionId(1))),
        ["1: hello lease=0 held=[]"]
    );
    assert_eq!(scene.hear(1, welcome(TERM, 70)), ["locate 2"]);
    scene.on(Event::Located(located("a")));
    scene.on(Event::Located(located("b")));
    assert_eq!(scene.pass(Duration::ZERO), ["1: inventory of 2"]);
    assert_eq!(scene.pass(Duration::from_secs(5)), ["1: heartbeat 1"]);
}

#[test]
fn a_follower_relays_heartbeats_until_its_leader_has_welcomed_us() {
    let mut scene = Scene::at_work();
    let effects = scene.hear(1, redirect(Some("two")));
    assert_eq!(effects, ["2: open two", "1: heartbeat 1"]);
    assert_eq!(scene.pass(Duration::from_secs(5)), ["1: heartbeat 2"]);
    assert_eq!(
        scene.on(Event::Opened(ConnectionId(2))),
        ["2: hello lease=70 held=[\"a/10\"]"]
    );
    let effects = scene.hear(2, welcome(TERM + 1, 70));
    assert_eq!(
        effects,
        ["1: close", "2: inventory of 2", "locate 2"],
        "work in progress is not touched"
    );
}

#[test]
fn without_a_leader_others_are_asked_while_the_follower_relays() {
    let (mut scene, _) = Scene::start();
    scene.on(Event::Opened(ConnectionId(1)));
    assert_eq!(scene.hear(1, redirect(None)), [""; 0]);
    assert_eq!(scene.pass(Duration::from_millis(500)), ["2: open two"]);
    scene.on(Event::Opened(ConnectionId(2)));
    assert_eq!(scene.hear(2, redirect(Some("one"))), ["1: close", "3: open one"]);
}

#[test]
fn a_follower_that_becomes_the_leader_is_connected_to_anew() {
    let (mut scene, _) = Scene::start();
    scene.on(Event::Opened(ConnectionId(1)));
    scene.hear(1, redirect(None));
    assert_eq!(scene.hear(1, redirect(Some("one"))), ["2: open one"]);
}

#[test]
fn commands_of_a_follower_are_ignored() {
    let mut scene = Scene::at_work();
    scene.hear(1, redirect(None));
    assert_eq!(scene.hear(1, assign("b", 11)), [""; 0]);
    assert_eq!(scene.hear(1, bundle()), [""; 0]);
}

#[test]
fn work_goes_on_while_the_leader_is_away_and_is_named_when_it_is_back() {
    let mut scene = Scene::at_work();
    assert_eq!(scene.fail(1), [""; 0]);
    assert_eq!(scene.pass(Duration::from_millis(100)), ["2: open one"]);
    scene.fail(2);
    assert_eq!(scene.pass(Duration::from_secs(1)), ["3: open two"]);
    let finished = scene.on(Event::Ended(
        holding("a", 10),
        Finish::Stopped(Summary::default()),
        Story::default(),
    ));
    assert_eq!(finished, [""; 0], "there is nobody to tell yet");
    assert_eq!(
        scene.on(Event::Opened(ConnectionId(3))),
        ["3: hello lease=70 held=[\"a/10\"]"]
    );
    let effects = scene.hear(3, welcome(TERM + 1, 70));
    assert_eq!(effects, ["3: inventory of 2", "locate 2", "3: stopped a/10"]);
    scene.hear(3, ToAgent::Acknowledged(holding("a", 10)));
    assert_eq!(scene.pass(Duration::from_secs(4)), [""; 0]);
}

#[test]
fn a_lease_that_cannot_be_renewed_stops_the_work_before_it_can_have_ended() {
    let mut scene = Scene::at_work();
    scene.fail(1);
    let before = scene.pass(Duration::from_millis(26_900));
    assert!(!before.contains(&"stop a/10".to_owned()), "{before:?}");
    let at = scene.pass(Duration::from_millis(200));
    assert!(at.contains(&"stop a/10".to_owned()), "{at:?}");
    assert_eq!(
        scene.pass(Duration::from_secs(20)),
        [""; 0],
        "no coordinator is asked before the work has ended"
    );
    let ended = scene.on(Event::Ended(
        holding("a", 10),
        Finish::Stopped(Summary::default()),
        Story::default(),
    ));
    let open = ended.first().unwrap();
    let id = open.split(':').next().unwrap().parse().unwrap();
    let hello = scene.on(Event::Opened(ConnectionId(id)));
    assert_eq!(hello, [format!("{id}: hello lease=0 held=[\"a/10\"]")]);
}

#[test]
fn heartbeats_that_are_answered_keep_the_work_going() {
    let mut scene = Scene::at_work();
    scene.pass_with_answers(Duration::from_mins(5), 1);
    assert_eq!(scene.state.running().count(), 1);
    assert!(scene.state.links.home().is_some());
    let stopped = scene.pass(Duration::from_secs(27));
    assert!(stopped.contains(&"stop a/10".to_owned()), "{stopped:?}");
}

#[test]
fn a_lease_that_the_store_does_not_know_stops_the_work_at_once() {
    let mut scene = Scene::at_work();
    scene.pass(Duration::from_secs(5));
    let renewal = Renewal::Gone;
    let effects = scene.hear(1, ToAgent::HeartbeatAnswer { sequence: 1, renewal });
    assert_eq!(effects, ["stop a/10", "1: close"]);
}

#[test]
fn work_that_does_not_stop_does_not_keep_the_agent_away_for_ever() {
    let mut scene = Scene::at_work();
    scene.pass(Duration::from_secs(5));
    let renewal = Renewal::Gone;
    scene.hear(1, ToAgent::HeartbeatAnswer { sequence: 1, renewal });
    assert_eq!(scene.pass(Duration::from_secs(29)), [""; 0]);
    assert_eq!(scene.pass(Duration::from_secs(1)), ["2: open one"]);
}

#[test]
fn a_leader_that_gives_another_lease_stops_the_work_under_the_old_one() {
    let mut scene = Scene::at_work();
    scene.fail(1);
    scene.pass(Duration::from_millis(100));
    scene.on(Event::Opened(ConnectionId(2)));
    let effects = scene.hear(2, welcome(TERM + 1, 71));
    assert_eq!(effects, ["stop a/10", "2: inventory of 2", "locate 2"]);
}

#[test]
fn a_leader_whose_term_is_over_is_refused() {
    let mut scene = Scene::at_home();
    scene.fail(1);
    scene.pass(Duration::from_millis(100));
    scene.on(Event::Opened(ConnectionId(2)));
    assert_eq!(scene.hear(2, welcome(TERM - 1, 70)), ["2: close"]);
    assert_eq!(scene.state.links.home(), None);
}

#[test]
fn a_command_of_an_earlier_term_is_refused() {
    let mut scene = Scene::at_home();
    scene.hear(1, bundle());
    assert_eq!(scene.hear(1, assign_in(TERM - 1, "a", 10)), [""; 0]);
    assert_eq!(scene.hear(1, look(TERM - 1, "a", content().digest())), [""; 0]);
}

#[test]
fn terms_of_a_store_that_was_founded_anew_may_be_smaller() {
    let mut scene = Scene::at_home();
    scene.fail(1);
    scene.pass(Duration::from_millis(100));
    scene.on(Event::Opened(ConnectionId(2)));
    scene.hear(2, welcome_of_epoch(2, 1, 3));
    assert_eq!(scene.state.links.home(), Some(ConnectionId(2)));
    scene.hear(2, bundle());
    assert_eq!(scene.hear(2, assign_in(1, "a", 4)), ["start a/4"]);
}

#[test]
fn a_coordinator_that_leaves_heartbeats_unanswered_is_left() {
    let mut scene = Scene::at_home();
    let effects = scene.pass(Duration::from_secs(13));
    let tail = &effects[effects.len() - 2..];
    assert_eq!(tail, ["1: close", "2: open one"], "{effects:?}");
}

#[test]
fn looks_are_answered_to_the_one_who_asked() {
    let mut scene = Scene::at_home();
    scene.hear(1, bundle());
    assert_eq!(scene.hear(1, look(TERM, "a", content().digest())), ["look 3 a"]);
    let question = |connection| Question {
        connection: ConnectionId(connection),
        look: 3,
        database: "a".try_into().unwrap(),
    };
    let found = Look::UpToDate { ahead: Vec::new() };
    assert_eq!(
        scene.on(Event::Looked(question(1), found.clone())),
        ["1: looked 3: up to date"]
    );
    assert_eq!(scene.on(Event::Looked(question(99), found)), [""; 0]);
}

#[test]
fn a_bundle_that_went_missing_fails_what_needs_it_and_is_fetched_on_a_new_stream() {
    let mut scene = Scene::at_home();
    let effects = scene.hear(1, look(TERM, "a", Digest::of(b"other")));
    assert_eq!(effects, ["1: looked 3: failed", "1: close"]);
    let mut scene = Scene::at_home();
    assert_eq!(scene.hear(1, assign("a", 10)), ["1: failed a/10", "1: close"]);
}

#[test]
fn a_database_of_another_agent_is_not_touched() {
    let mut scene = Scene::at_home();
    scene.hear(1, bundle());
    assert_eq!(
        scene.hear(1, look(TERM, "z", content().digest())),
        ["1: looked 3: failed"]
    );
    assert_eq!(scene.hear(1, assign("z", 10)), ["1: failed z/10"]);
}

#[test]
fn an_order_is_stopped_when_the_leader_says_so() {
    let mut scene = Scene::at_work();
    let stop = ToAgent::Stop {
        term: TERM,
        of: holding("a", 10),
        reason: "aborted".to_owned(),
    };
    assert_eq!(scene.hear(1, stop), ["stop a/10"]);
}

#[test]
fn a_process_that_is_to_end_waits_for_safe_points_and_reports_them() {
    let mut scene = Scene::at_work();
    assert_eq!(scene.on(Event::Shutdown), ["stop a/10", "1: leaving"]);
    assert_eq!(
        scene.hear(1, assign("b", 11)),
        ["1: stopped b/11"],
        "nothing new is begun"
    );
    scene.hear(1, ToAgent::Acknowledged(holding("b", 11)));
    assert_eq!(
        scene.on(Event::Ended(
            holding("a", 10),
            Finish::Stopped(Summary::default()),
            Story::default()
        )),
        ["1: stopped a/10"]
    );
    let effects = scene.hear(1, ToAgent::Acknowledged(holding("a", 10)));
    assert_eq!(effects, ["1: close", "end Shutdown"]);
}

#[test]
fn a_process_that_is_to_end_does_not_wait_for_ever() {
    let mut scene = Scene::at_work();
    scene.on(Event::Shutdown);
    let effects = scene.pass(Duration::from_secs(34));
    assert_eq!(effects.last().unwrap(), "end Shutdown");
    assert_eq!(scene.state.running().count(), 1, "it is known what did not end");
}

#[test]
fn a_process_without_work_ends_at_once() {
    let mut scene = Scene::at_home();
    let effects = scene.on(Event::Shutdown);
    assert_eq!(effects, ["1: leaving", "1: close", "end Shutdown"]);
}

#[test]
fn a_second_process_with_the_same_id_ends() {
    let (mut scene, _) = Scene::start();
    scene.on(Event::Opened(ConnectionId(1)));
    let goodbye = |parting| ToAgent::Goodbye {
        parting,
        reason: "why".to_owned(),
    };
    assert_eq!(
        scene.hear(1, goodbye(Parting::IdInUse)),
        ["1: close", "end IdInUse"]
    );
    let mut scene = Scene::at_home();
    assert_eq!(scene.hear(1, goodbye(Parting::ForNow)), ["1: close"]);
    assert_eq!(scene.pass(Duration::from_millis(100)), ["2: open one"]);
}

/// What must hold after every step, whatever coordinators, databases and clocks do.
#[test]
fn no_order_begins_or_runs_on_without_a_lease() {
    let mut begun = 0;
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut scene, mut effects) = Scene::start();
        let (mut opened, mut asked_to_stop, mut token) = (1, Vec::new(), 10);
        for _ in 0..300 {
            for effect in &effects {
                begun += u32::from(effect.starts_with("start"));
                asked_to_stop.extend(effect.strip_prefix("stop ").map(str::to_owned));
                let open = effect
                    .split_once(": open")
                    .map(|(id, _)| id.parse::<u64>().unwrap());
                opened = open.unwrap_or(opened);
            }
            let expired = scene.state.lease.id().is_none() || scene.state.lease.expired(scene.now);
            let running: Vec<_> = scene.state.running().cloned().collect();
            for of in running.iter().filter(|_| expired) {
                let name = format!("{}/{}", of.database, of.token);
                assert!(
                    asked_to_stop.contains(&name),
                    "seed {seed}: {name} runs on without a lease"
                );
            }
            token += 1;
            effects = match random.random_range(0..12) {
                0 => scene.on(Event::Opened(ConnectionId(opened))),
                1 => scene.hear(opened, welcome(TERM + token / 50, 70 + token / 80)),
                2 => scene.hear(
                    opened,
                    redirect([None, Some("one"), Some("two")][random.random_range(0..3)]),
                ),
                3 => scene.fail(opened),
                4 | 5 => {
                    let mut effects = scene.hear(opened, bundle());
                    effects.extend(scene.hear(
                        opened,
                        assign_in(100, ["a", "b"][random.random_range(0..2)], token),
                    ));
                    effects
                }
                6 => match running.first() {
                    Some(of) => scene.on(Event::Ended(
                        of.clone(),
                        Finish::Stopped(Summary::default()),
                        Story::default(),
                    )),
                    None => Vec::new(),
                },
                7 => scene.hear(
                    opened,
                    ToAgent::HeartbeatAnswer {
                        sequence: random.random_range(1..5),
                        renewal: [Renewal::Gone, Renewal::Alive(TTL)][random.random_range(0..2)],
                    },
                ),
                _ => scene.pass(Duration::from_millis(random.random_range(0..9000))),
            };
        }
    }
    assert!(begun > 200, "the walk must come by what it is about: {begun}");
}

#[test]
fn a_question_is_answered_on_the_stream_it_was_asked_on() {
    let mut scene = Scene::at_home();
    let what = || Inquiry::Check("SELECT true".to_owned());
    let ask = ToAgent::Inquire {
        inquiry: 7,
        databases: vec!["a".try_into().unwrap(), "elsewhere".try_into().unwrap()],
        what: what(),
    };
    assert_eq!(
        scene.hear(1, ask),
        ["1: inquiry 7 elsewhere: no answer", "answer a"]
    );
    let question = |connection| Inquired {
        connection: ConnectionId(connection),
        inquiry: 7,
        database: "a".try_into().unwrap(),
        what: what(),
    };
    let answer = || Ok(Answer::Check(Checked::Holds));
    assert_eq!(
        scene.on(Event::Answered(question(1), answer())),
        ["1: inquiry 7 a: answered"]
    );
    assert!(
        scene.on(Event::Answered(question(9), answer())).is_empty(),
        "nobody waits on an earlier stream"
    );
}

#[test]
fn a_question_whose_bundle_did_not_arrive_is_said_so_and_the_bundle_asked_for_anew() {
    let mut scene = Scene::at_home();
    let ask = ToAgent::Inquire {
        inquiry: 7,
        databases: vec!["a".try_into().unwrap()],
        what: Inquiry::Plan {
            bundle: Digest::of(b"unknown"),
            strategies: Strategies::default(),
        },
    };
    let told = scene.hear(1, ask);
    assert_eq!(told[0], "1: inquiry 7 a: no answer");
    assert!(told.iter().any(|told| told == "1: close"), "{told:?}");
}
