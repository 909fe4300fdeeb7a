//! The agent's end of the conversation as one pure machine: an event and the time in, effects out.
//!
//! ```text
//!            seek: connecting, greeting ──(Welcome)──> home: the leader, gives work
//!              ^            │                            │
//!              │        (Redirect)                 (Redirect: it leads no more)
//!              │            v                            │
//!              └──────── relay: a follower; carries heartbeats until there is a home <┘
//! ```
//! Orders are in [`super::orders`], the lease in [`super::lease`], the way to the leader in [`super::route`]. What
//! happens with the connections themselves is in [`super::links`], what the messages on them mean in `conversation`; here
//! is what time and the ends of things bring about.

mod conversation;
#[cfg(test)]
mod tests;

use super::bundles::Bundles;
use super::event::{Effect, Event};
use super::inventory::Inventory;
use super::lease::{Lease, Tally};
use super::links::Links;
use super::orders::Orders;
use super::route::Route;
use super::{ConnectionId, Ending, Standing};
use runtime::clock::Boot;
use shared::id::{AgentId, DatabaseName, Instance, StoreId};
use shared::rollout::message::{FromAgent, Holding};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long orders may take to come to a safe point before we go on without them: at the end of the process, and
/// before we ask for a new lease.
const SAFE_POINT: Duration = Duration::from_secs(30);

/// How long the last reports may take to be acknowledged when the process ends.
const LAST_REPORTS: Duration = Duration::from_secs(3);

/// Who this agent is; constant over the life of the process.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    pub(super) agent: AgentId,
    pub(super) instance: Instance,
    pub(super) databases: BTreeMap<DatabaseName, BTreeMap<String, String>>,
}

/// What the agent is about.
#[derive(Debug)]
enum Mode {
    /// Serving the fleet.
    Serving,
    /// The lease was lost: orders come to a safe point, then a new lease is asked for. No connections meanwhile.
    Recovering { until: Boot },
    /// The process is to end: orders come to a safe point.
    Closing { until: Boot, ending: Ending },
    /// All orders have ended; their last reports wait for acknowledgement.
    Parting { until: Boot, ending: Ending },
    /// Nothing is left to do.
    Over,
}

/// The machine.
#[derive(Debug)]
pub(super) struct State {
    identity: Identity,
    mode: Mode,
    links: Links,
    lease: Lease,
    orders: Orders,
    bundles: Bundles,
    inventory: Inventory,
    /// The largest term seen, below its store's epoch: terms of a store that was founded anew begin small again.
    term: (i64, i64),
    /// Of the last Welcome.
    store: StoreId,
}

impl State {
    /// `seed` spreads the pauses of many agents.
    pub(super) fn new(identity: Identity, coordinators: Vec<String>, seed: u64, now: Boot) -> Self {
        Self {
            inventory: Inventory::new(identity.databases.keys().cloned()),
            identity,
            mode: Mode::Serving,
            links: Links::new(Route::new(coordinators), seed, now),
            lease: Lease::none(now),
            orders: Orders::default(),
            bundles: Bundles::default(),
            term: (0, 0),
            store: StoreId(uuid::Uuid::nil()),
        }
    }

    /// Takes an event and says what to do.
    pub(super) fn on(&mut self, event: Event, now: Boot) -> Vec<Effect> {
        let mut effects = Vec::new();
        // After a long sleep of the machine, events may come before the tick: no order may begin on what they say.
        self.expire(now, &mut effects);
        match event {
            Event::Opened(id) => self.opened(id, now, &mut effects),
            Event::Received(id, message) => self.received(id, message, now, &mut effects),
            Event::Closed(id) => {
                self.links.closed(id, now);
                self.lease.disconnected(id);
            }
            Event::Looked(question, result) => self.answer(question, result, &mut effects),
            Event::Progressed(of, progress) => {
                let actions = self.orders.progressed(&of, progress);
                self.act(actions, now, &mut effects);
            }
            Event::Told(of, story) => {
                let actions = self.orders.told(&of, story);
                self.act(actions, now, &mut effects);
            }
            Event::Ended(of, finish, story) => {
                let mut actions = self.orders.told(&of, story);
                actions.extend(self.orders.ended(&of, finish, now));
                self.act(actions, now, &mut effects);
            }
            Event::Located(located) => {
                if let Some(problem) = self.inventory.new_problem(&located) {
                    tracing::warn!(database = %located.database, "the database cannot be served at the moment: {problem}");
                }
                self.inventory.located(located, now);
            }
            Event::Answered(question, result) => self.report(question, result, &mut effects),
            Event::Shutdown => self.close(Ending::Shutdown, now, &mut effects),
        }
        self.advance(now, &mut effects);
        effects
    }

    /// Time has passed.
    pub(super) fn tick(&mut self, now: Boot) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.expire(now, &mut effects);
        for id in self.links.carriers() {
            if self.lease.unanswered(id, now) {
                tracing::warn!(
                    coordinator = self.links.url(id),
                    "the coordinator does not answer heartbeats"
                );
                self.drop_link(id, now, &mut effects);
            }
        }
        let actions = self.orders.tick(now);
        self.act(actions, now, &mut effects);
        if self.links.home().is_some() {
            let (tell, ask) = self.inventory.tick(now);
            self.take_inventory(tell, ask, &mut effects);
        }
        self.advance(now, &mut effects);
        effects
    }

    /// When [`State::tick`] must be called next; `None`: not before something happens.
    pub(super) fn wake_at(&self) -> Option<Boot> {
        let mode = match self.mode {
            Mode::Serving | Mode::Over => None,
            Mode::Recovering { until } | Mode::Closing { until, .. } | Mode::Parting { until, .. } => {
                Some(until)
            }
        };
        let home = self.links.home().is_some();
        let carried = self.links.carrier().is_some();
        [
            mode,
            self.links.wake_at(),
            self.lease.wake_at(carried),
            home.then(|| self.inventory.wake_at()).flatten(),
            self.orders.wake_at(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What has come of the lease's renewals.
    pub(super) fn tally(&self) -> Tally {
        self.lease.tally()
    }

    /// Whether a coordinator has welcomed us.
    pub(super) fn standing(&self) -> Standing {
        match self.links.home() {
            Some(_) => Standing::Welcomed,
            None => Standing::Seeking,
        }
    }

    /// The orders still at work.
    pub(super) fn running(&self) -> impl Iterator<Item = &Holding> {
        self.orders.running()
    }

    /// What follows from the state alone, whatever brought it about.
    fn advance(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        let at_work = self.orders.running().next().is_some();
        match self.mode {
            Mode::Recovering { until } if !at_work || until <= now => {
                self.mode = Mode::Serving;
                self.links.retry(now);
            }
            Mode::Closing { until, ending } if !at_work || until <= now => {
                self.mode = Mode::Parting {
                    until: now + LAST_REPORTS,
                    ending,
                };
            }
            Mode::Serving
            | Mode::Recovering { .. }
            | Mode::Closing { .. }
            | Mode::Parting { .. }
            | Mode::Over => {}
        }
        if let Mode::Parting { until, ending } = self.mode
            && (self.orders.is_empty() || until <= now || ending == Ending::IdInUse)
        {
            self.mode = Mode::Over;
            effects.extend(self.links.close_all().into_iter().map(Effect::Close));
            effects.push(Effect::End(ending));
        }
        let connect = match self.mode {
            Mode::Serving => true,
            // Reports of what comes to its end now are worth a new connection.
            Mode::Closing { ending, .. } | Mode::Parting { ending, .. } => ending == Ending::Shutdown,
            Mode::Recovering { .. } | Mode::Over => false,
        };
        if connect && let Some((id, url)) = self.links.connect(now) {
            effects.push(Effect::Open(id, url));
        }
        if let Some(carrier) = self.links.carrier()
            && let Some((sequence, lease)) = self.lease.heartbeat(carrier, now)
        {
            effects.push(Effect::Send(carrier, FromAgent::Heartbeat { sequence, lease }));
        }
    }

    fn drop_link(&mut self, id: ConnectionId, now: Boot, effects: &mut Vec<Effect>) {
        self.links.closed(id, now);
        self.lease.disconnected(id);
        effects.push(Effect::Close(id));
    }

    fn expire(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        if self.lease.expired(now) {
            tracing::warn!(
                "the lease was not renewed in time; work in progress stops at its next safe point"
            );
            self.lose_lease(now, effects);
        }
    }

    fn lose_lease(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        self.lease.lose();
        let actions = self.orders.stop_all(now);
        self.act(actions, now, effects);
        match self.mode {
            Mode::Serving => {
                effects.extend(self.links.close_all().into_iter().map(Effect::Close));
                self.mode = Mode::Recovering {
                    until: now + SAFE_POINT,
                };
            }
            Mode::Recovering { .. } | Mode::Closing { .. } | Mode::Parting { .. } | Mode::Over => {}
        }
    }

    /// Tells the leader that we take no new work, once we are ending.
    fn announce_leaving(&self, effects: &mut Vec<Effect>) {
        match self.mode {
            Mode::Closing { .. } | Mode::Parting { .. } => {
                effects.extend(
                    self.links
                        .home()
                        .map(|home| Effect::Send(home, FromAgent::Leaving)),
                );
            }
            Mode::Serving | Mode::Recovering { .. } | Mode::Over => {}
        }
    }

    fn close(&mut self, ending: Ending, now: Boot, effects: &mut Vec<Effect>) {
        match self.mode {
            Mode::Serving | Mode::Recovering { .. } => {
                let actions = self.orders.stop_all(now);
                self.act(actions, now, effects);
                if ending == Ending::IdInUse {
                    effects.extend(self.links.close_all().into_iter().map(Effect::Close));
                }
                self.mode = Mode::Closing {
                    until: now + SAFE_POINT,
                    ending,
                };
                self.announce_leaving(effects);
            }
            Mode::Closing { .. } | Mode::Parting { .. } | Mode::Over => {}
        }
    }
}
