//! The register of orders: which are at work, which have ended and are not acknowledged yet. Pure.
//!
//! ```text
//!   assigned ──> Waiting ──(the earlier order on that database has ended, or took too long to)──> Running
//!      └───────────────(nothing else runs there)──────────────────────────────────────────────────> │
//!                      Waiting ──(stop)──> Finished <──(the work returned)──────────────────────────┘
//!                                             └──(FinishedAck)──> forgotten
//! ```
//! It lives as long as the process: connections come and go, orders stay.

use runtime::clock::Boot;
use shared::id::{DatabaseName, StoreId};
use shared::rollout::message::{FromAgent, Holding};
use shared::rollout::story::Story;
use shared::rollout::work::{Finish, Newer, Order, Progress, Summary};
use std::collections::BTreeMap;
use std::time::Duration;

/// An end is reported again after this long without an acknowledgement.
const REPEAT_FINISHED: Duration = Duration::from_secs(5);

/// An order waits this long for an earlier one on its database to stop; then it begins all the same. The fence makes
/// that safe: the earlier one finds itself replaced.
const PATIENCE: Duration = Duration::from_secs(30);

/// All orders that are not acknowledged as ended.
#[derive(Debug, Default)]
pub(super) struct Orders {
    entries: BTreeMap<Holding, Entry>,
    /// What has happened to those that have something to tell.
    stories: BTreeMap<Holding, Story>,
}

#[derive(Debug)]
enum Entry {
    /// Behind an earlier order on the same database.
    Waiting {
        order: Order,
        store: StoreId,
        since: Boot,
    },
    /// At work.
    Running {
        progress: Option<Progress>,
        stopping: bool,
    },
    /// Ended, not acknowledged; last reported at `sent`, which may have been to nobody.
    Finished { finish: Finish, sent: Boot },
}

/// What the register wants done.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    /// Begin the work.
    Start(Order, StoreId),
    /// Let it stop at the next safe point.
    Stop(Holding),
    /// Tell the leader, if there is one.
    Report(FromAgent),
}

impl Orders {
    /// All that the leader should know of, for Hello.
    pub(super) fn held(&self) -> Vec<Holding> {
        self.entries.keys().cloned().collect()
    }

    /// The orders at work.
    pub(super) fn running(&self) -> impl Iterator<Item = &Holding> {
        self.entries
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Running { .. }))
            .map(|(of, _)| of)
    }

    /// Whether every end has been acknowledged and nothing is at work.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The leader gives an order. One that is known is answered with what is known of it.
    pub(super) fn assigned(&mut self, order: Order, store: StoreId, now: Boot) -> Vec<Action> {
        let of = Holding::of(&order);
        match self.entries.get_mut(&of) {
            Some(Entry::Waiting { .. }) => return Vec::new(),
            Some(Entry::Running { progress, .. }) => {
                let progress = progress.clone().unwrap_or_default();
                return vec![Action::Report(FromAgent::Progress { of, progress })];
            }
            Some(Entry::Finished { finish, sent }) => {
                *sent = now;
                return vec![Action::Report(FromAgent::Finished {
                    of: of.clone(),
                    finish: finish.clone(),
                })];
            }
            None => {}
        }
        let (earlier, later): (Vec<_>, Vec<_>) = self
            .unended(&of.database)
            .partition(|other| other.token < of.token);
        if let Some(later) = later.first() {
            // Leases of one database are granted one after the other, so this order's lease has ended.
            let by = format!(
                "a later order of this agent (rollout {}, token {})",
                later.rollout, later.token
            );
            let newer = Newer::Lease;
            return self.ended(
                &of,
                Finish::Replaced {
                    by,
                    newer,
                    spent: Summary::default(),
                },
                now,
            );
        }
        if earlier.is_empty() {
            self.entries.insert(
                of,
                Entry::Running {
                    progress: None,
                    stopping: false,
                },
            );
            return vec![Action::Start(order, store)];
        }
        self.entries.insert(
            of,
            Entry::Waiting {
                order,
                store,
                since: now,
            },
        );
        earlier.iter().flat_map(|other| self.stop(other, now)).collect()
    }

    /// The leader, or the end of the lease, wants an order to stop. One that is not known has stopped long ago.
    pub(super) fn stop(&mut self, of: &Holding, now: Boot) -> Vec<Action> {
        match self.entries.get_mut(of) {
            Some(Entry::Running { stopping, .. }) if !*stopping => {
                *stopping = true;
                vec![Action::Stop(of.clone())]
            }
            Some(Entry::Running { .. }) => Vec::new(),
            Some(Entry::Waiting { .. }) | None => self.ended(of, Finish::Stopped(Summary::default()), now),
            Some(Entry::Finished { finish, sent }) => {
                *sent = now;
                vec![Action::Report(FromAgent::Finished {
                    of: of.clone(),
                    finish: finish.clone(),
                })]
            }
        }
    }

    /// Everything at work or waiting is to stop.
    pub(super) fn stop_all(&mut self, now: Boot) -> Vec<Action> {
        let holdings: Vec<_> = self
            .entries
            .iter()
            .filter(|(_, e)| !matches!(e, Entry::Finished { .. }))
            .map(|(c, _)| c.clone())
            .collect();
        holdings.iter().flat_map(|of| self.stop(of, now)).collect()
    }

    /// The work reports how far it is.
    pub(super) fn progressed(&mut self, of: &Holding, now: Progress) -> Vec<Action> {
        match self.entries.get_mut(of) {
            Some(Entry::Running { progress, .. }) => {
                *progress = Some(now.clone());
                vec![Action::Report(FromAgent::Progress {
                    of: of.clone(),
                    progress: now,
                })]
            }
            // A report that was overtaken by the end.
            Some(Entry::Waiting { .. } | Entry::Finished { .. }) | None => Vec::new(),
        }
    }

    /// What has happened to an order. It is told again with its end, until that is acknowledged.
    pub(super) fn told(&mut self, of: &Holding, story: Story) -> Vec<Action> {
        if !story.is_worth_keeping() || !matches!(self.entries.get(of), Some(Entry::Running { .. })) {
            return Vec::new();
        }
        self.stories.insert(of.clone(), story);
        self.story(of).into_iter().collect()
    }

    fn story(&self, of: &Holding) -> Option<Action> {
        let (of, story) = (of.clone(), self.stories.get(of)?.clone());
        Some(Action::Report(FromAgent::Told { of, story }))
    }

    /// The work has ended.
    pub(super) fn ended(&mut self, of: &Holding, finish: Finish, now: Boot) -> Vec<Action> {
        self.entries.insert(
            of.clone(),
            Entry::Finished {
                finish: finish.clone(),
                sent: now,
            },
        );
        let mut actions = vec![Action::Report(FromAgent::Finished {
            of: of.clone(),
            finish,
        })];
        actions.extend(self.start_waiting(&of.database));
        actions
    }

    /// The leader has recorded an end.
    pub(super) fn acknowledged(&mut self, of: &Holding) {
        if matches!(self.entries.get(of), Some(Entry::Finished { .. })) {
            self.entries.remove(of);
            self.stories.remove(of);
        }
    }

    /// A leader has welcomed us: it hears how all orders stand.
    pub(super) fn welcomed(&mut self, now: Boot) -> Vec<Action> {
        let mut actions = Vec::new();
        for (of, entry) in &mut self.entries {
            if let Some(story) = self.stories.get(of).cloned() {
                let of = of.clone();
                actions.push(Action::Report(FromAgent::Told { of, story }));
            }
            let message = match entry {
                Entry::Waiting { .. } | Entry::Running { progress: None, .. } => continue,
                Entry::Running {
                    progress: Some(progress),
                    ..
                } => FromAgent::Progress {
                    of: of.clone(),
                    progress: progress.clone(),
                },
                Entry::Finished { finish, sent } => {
                    *sent = now;
                    FromAgent::Finished {
                        of: of.clone(),
                        finish: finish.clone(),
                    }
                }
            };
            actions.push(Action::Report(message));
        }
        actions
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Boot) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut impatient = Vec::new();
        for (of, entry) in &mut self.entries {
            match entry {
                Entry::Waiting { since, .. } if *since + PATIENCE <= now => impatient.push(of.clone()),
                Entry::Finished { finish, sent } if *sent + REPEAT_FINISHED <= now => {
                    *sent = now;
                    actions.push(Action::Report(FromAgent::Finished {
                        of: of.clone(),
                        finish: finish.clone(),
                    }));
                }
                Entry::Waiting { .. } | Entry::Finished { .. } | Entry::Running { .. } => {}
            }
        }
        actions.extend(impatient.iter().filter_map(|of| self.start(of)));
        actions
    }

    /// When [`Orders::tick`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Boot> {
        self.entries
            .values()
            .filter_map(|entry| match entry {
                Entry::Waiting { since, .. } => Some(*since + PATIENCE),
                Entry::Finished { sent, .. } => Some(*sent + REPEAT_FINISHED),
                Entry::Running { .. } => None,
            })
            .min()
    }

    /// Orders on a database that have not ended.
    fn unended(&self, database: &DatabaseName) -> impl Iterator<Item = Holding> {
        self.entries
            .iter()
            .filter(move |(of, entry)| of.database == *database && !matches!(entry, Entry::Finished { .. }))
            .map(|(of, _)| of.clone())
    }

    /// Begins the order that waits for a database, if nothing runs there.
    fn start_waiting(&mut self, database: &DatabaseName) -> Option<Action> {
        let unended: Vec<_> = self.unended(database).collect();
        let [only] = unended.as_slice() else { return None };
        self.start(only)
    }

    fn start(&mut self, of: &Holding) -> Option<Action> {
        let entry = self.entries.get_mut(of)?;
        let Entry::Waiting { order, store, .. } = entry else {
            return None;
        };
        let action = Action::Start(order.clone(), *store);
        *entry = Entry::Running {
            progress: None,
            stopping: false,
        };
        Some(action)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::fence::Fence;
    use shared::id::{Digest, Holder, RolloutId};
    use shared::plan::Strategies;
    use shared::rollout::work::Aim;
    use uuid::Uuid;

    const STORE: StoreId = StoreId(Uuid::nil());

    fn at(seconds: u64) -> Boot {
        Boot::from_start(Duration::from_secs(seconds))
    }

    fn order(database: &str, token: i64) -> Order {
        Order {
            rollout: RolloutId::try_from("r1").unwrap(),
            database: database.try_into().unwrap(),
            bundle: Digest::of(b"bundle"),
            aim: Aim::Apply,
            fence: Fence::of_lease(1, token),
            holder: Holder(Uuid::from_u128(7)),
            attempt: 1,
            canary: false,
            strategies: Strategies::default(),
            trace: None,
        }
    }

    fn held(database: &str, token: i64) -> Holding {
        Holding::of(&order(database, token))
    }

    fn finished(of: Holding, finish: Finish) -> Action {
        Action::Report(FromAgent::Finished { of, finish })
    }

    fn done() -> Finish {
        Finish::Done(shared::rollout::work::Summary::default())
    }

    #[test]
    fn an_order_given_again_is_not_begun_again() {
        let mut orders = Orders::default();
        assert_eq!(
            orders.assigned(order("a", 1), STORE, at(0)),
            [Action::Start(order("a", 1), STORE)]
        );
        let progress = Progress {
            rows: 9,
            ..Progress::default()
        };
        orders.progressed(&held("a", 1), progress.clone());
        assert_eq!(
            orders.assigned(order("a", 1), STORE, at(1)),
            [Action::Report(FromAgent::Progress {
                of: held("a", 1),
                progress
            })]
        );
        orders.ended(&held("a", 1), done(), at(1));
        assert_eq!(
            orders.assigned(order("a", 1), STORE, at(2)),
            [finished(held("a", 1), done())]
        );
    }

    #[test]
    fn an_end_is_repeated_until_it_is_acknowledged() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        assert_eq!(
            orders.ended(&held("a", 1), done(), at(1)),
            [finished(held("a", 1), done())]
        );
        assert_eq!(orders.tick(at(5)), []);
        assert_eq!(orders.wake_at(), Some(at(6)));
        assert_eq!(orders.tick(at(6)), [finished(held("a", 1), done())]);
        assert_eq!(orders.welcomed(at(7)), [finished(held("a", 1), done())]);
        orders.acknowledged(&held("a", 1));
        assert!(orders.is_empty());
    }

    #[test]
    fn an_acknowledgement_of_what_still_runs_is_not_believed() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        orders.acknowledged(&held("a", 1));
        assert_eq!(orders.held(), [held("a", 1)]);
    }

    #[test]
    fn a_later_order_on_a_database_stops_the_earlier_and_waits_for_its_end() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        assert_eq!(
            orders.assigned(order("a", 2), STORE, at(1)),
            [Action::Stop(held("a", 1))]
        );
        assert_eq!(
            orders.ended(&held("a", 1), Finish::Stopped(Summary::default()), at(2)),
            [
                finished(held("a", 1), Finish::Stopped(Summary::default())),
                Action::Start(order("a", 2), STORE)
            ]
        );
    }

    #[test]
    fn a_later_order_does_not_wait_for_ever() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        orders.assigned(order("a", 2), STORE, at(1));
        assert_eq!(orders.tick(at(30)), []);
        assert_eq!(orders.tick(at(31)), [Action::Start(order("a", 2), STORE)]);
    }

    #[test]
    fn an_order_older_than_the_one_at_work_has_been_replaced() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 5), STORE, at(0));
        let actions = orders.assigned(order("a", 4), STORE, at(1));
        assert!(
            matches!(&actions[..], [Action::Report(FromAgent::Finished { of, finish: Finish::Replaced { .. } })] if of.token == 4),
            "{actions:?}"
        );
        assert_eq!(orders.running().collect::<Vec<_>>(), [&held("a", 5)]);
    }

    #[test]
    fn orders_on_other_databases_are_not_touched() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        assert_eq!(
            orders.assigned(order("b", 2), STORE, at(0)),
            [Action::Start(order("b", 2), STORE)]
        );
    }

    #[test]
    fn stopping_is_asked_for_once_and_what_waits_stops_at_once() {
        let mut orders = Orders::default();
        orders.assigned(order("a", 1), STORE, at(0));
        orders.assigned(order("a", 2), STORE, at(0));
        assert_eq!(
            orders.stop_all(at(1)),
            [finished(held("a", 2), Finish::Stopped(Summary::default()))]
        );
        assert_eq!(orders.stop(&held("a", 1), at(1)), []);
    }

    #[test]
    fn a_stop_for_an_unknown_order_is_answered_so_that_the_leader_can_go_on() {
        let mut orders = Orders::default();
        assert_eq!(
            orders.stop(&held("a", 1), at(0)),
            [finished(held("a", 1), Finish::Stopped(Summary::default()))]
        );
    }
}
