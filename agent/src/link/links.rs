//! The agent's connections: at most one home (the leader), or a relay (a follower) and one that seeks the leader.
//! Pure; the diagram is in [`super::state`].

use super::ConnectionId;
use super::route::Route;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use runtime::clock::Boot;

/// The connections.
#[derive(Debug)]
pub(super) struct Links {
    route: Route,
    random: StdRng,
    /// Ids are never used twice, so that late events of dropped connections are recognised.
    last_id: u64,
    home: Option<Link>,
    relay: Option<Link>,
    seek: Option<Link>,
    /// When to seek again; `None`: not before somebody says something.
    retry_at: Option<Boot>,
}

#[derive(Debug)]
struct Link {
    id: ConnectionId,
    url: String,
    /// When Hello was sent on it.
    asked: Option<Boot>,
}

/// What a connection that now stands is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opened {
    /// Hello.
    Greet,
    /// Nothing any more.
    Unknown,
}

impl Links {
    pub(super) fn new(route: Route, seed: u64, now: Boot) -> Self {
        Self {
            route,
            random: StdRng::seed_from_u64(seed),
            last_id: 0,
            home: None,
            relay: None,
            seek: None,
            retry_at: Some(now),
        }
    }

    /// The leader's connection.
    pub(super) fn home(&self) -> Option<ConnectionId> {
        self.home.as_ref().map(|link| link.id)
    }

    /// Where heartbeats go.
    pub(super) fn carrier(&self) -> Option<ConnectionId> {
        self.home.as_ref().or(self.relay.as_ref()).map(|link| link.id)
    }

    /// The connections on which answers to heartbeats are awaited.
    pub(super) fn carriers(&self) -> Vec<ConnectionId> {
        self.home.iter().chain(&self.relay).map(|link| link.id).collect()
    }

    /// The URL of a connection, for messages.
    pub(super) fn url(&self, id: ConnectionId) -> &str {
        self.find(id).map_or("(closed)", |link| link.url.as_str())
    }

    /// When Hello was sent on a connection; `None` when it was not, or the connection is unknown.
    pub(super) fn asked(&self, id: ConnectionId) -> Option<Boot> {
        self.find(id).and_then(|link| link.asked)
    }

    /// The connection to open now, if any.
    pub(super) fn connect(&mut self, now: Boot) -> Option<(ConnectionId, String)> {
        if self.home.is_some() || self.seek.is_some() || self.retry_at.is_none_or(|at| now < at) {
            return None;
        }
        self.retry_at = None;
        let url = self
            .route
            .next(self.relay.as_ref().map(|link| link.url.as_str()))?;
        self.last_id += 1;
        let id = ConnectionId(self.last_id);
        self.seek = Some(Link {
            id,
            url: url.clone(),
            asked: None,
        });
        Some((id, url))
    }

    /// When [`Links::connect`] has something to do.
    pub(super) fn wake_at(&self) -> Option<Boot> {
        self.retry_at
            .filter(|_| self.home.is_none() && self.seek.is_none())
    }

    /// Seek again now.
    pub(super) fn retry(&mut self, now: Boot) {
        self.retry_at = Some(now);
    }

    /// A connection stands.
    pub(super) fn opened(&mut self, id: ConnectionId, now: Boot) -> Opened {
        match self.seek.as_mut().filter(|link| link.id == id) {
            Some(link) => {
                link.asked = Some(now);
                Opened::Greet
            }
            None => Opened::Unknown,
        }
    }

    /// The one at the other end leads and takes us. Returns the connections that are not needed any more.
    pub(super) fn welcomed(&mut self, id: ConnectionId) -> Vec<ConnectionId> {
        let links = [self.home.take(), self.relay.take(), self.seek.take()];
        let (home, others): (Vec<_>, Vec<_>) = links.into_iter().flatten().partition(|link| link.id == id);
        self.home = home.into_iter().next();
        self.retry_at = None;
        if let Some(home) = &self.home {
            self.route.welcomed(&home.url);
        }
        others.into_iter().map(|link| link.id).collect()
    }

    /// The one at the other end does not lead. It becomes the relay; the relay so far is returned.
    pub(super) fn redirected(
        &mut self,
        id: ConnectionId,
        leader: Option<String>,
        now: Boot,
    ) -> Option<ConnectionId> {
        let link = self.take(id)?;
        let earlier = self.relay.replace(link).map(|link| link.id);
        let follow = leader.is_some() && self.route.fresh();
        self.route.redirected(leader);
        let pause = self.route.pause(self.random.random());
        let retry_at = if follow { now } else { now + pause };
        self.retry_at = Some(self.retry_at.map_or(retry_at, |at| at.min(retry_at)));
        earlier
    }

    /// A connection failed or ended; somebody else is sought after a pause.
    pub(super) fn closed(&mut self, id: ConnectionId, now: Boot) {
        if self.take(id).is_some() && self.home.is_none() && self.retry_at.is_none() {
            self.retry_at = Some(now + self.route.pause(self.random.random()));
        }
    }

    /// Forgets all connections and returns them.
    pub(super) fn close_all(&mut self) -> Vec<ConnectionId> {
        self.retry_at = None;
        [self.home.take(), self.relay.take(), self.seek.take()]
            .into_iter()
            .flatten()
            .map(|link| link.id)
            .collect()
    }

    fn find(&self, id: ConnectionId) -> Option<&Link> {
        [&self.home, &self.relay, &self.seek]
            .into_iter()
            .flatten()
            .find(|link| link.id == id)
    }

    fn take(&mut self, id: ConnectionId) -> Option<Link> {
        [&mut self.home, &mut self.relay, &mut self.seek]
            .into_iter()
            .find(|link| link.as_ref().is_some_and(|link| link.id == id))
            .and_then(Option::take)
    }
}
