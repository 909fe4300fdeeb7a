//! What the messages of coordinators mean, and what is said to them.

use super::{Mode, State};
use crate::link::bundles::Bundle;
use crate::link::event::{Effect, Inquired, Question};
use crate::link::lease::{Answered, Granted};
use crate::link::links::Opened;
use crate::link::orders;
use crate::link::{ConnectionId, Ending};
use runtime::clock::Boot;
use shared::id::{DatabaseName, Digest, StoreId};
use shared::inquiry::Answer;
use shared::retry::Retryability;
use shared::rollout::message::{FromAgent, Hello, Holding, Located, Parting, ToAgent, Welcome};
use shared::rollout::release;
use shared::rollout::work::{Aim, Exit, Failure, Finish, Look, Order, Summary};

impl State {
    pub(super) fn opened(&mut self, id: ConnectionId, now: Boot, effects: &mut Vec<Effect>) {
        match self.links.opened(id, now) {
            Opened::Greet => effects.push(Effect::Send(
                id,
                FromAgent::Hello(Hello {
                    agent: self.identity.agent.clone(),
                    instance: self.identity.instance,
                    version: release::OURS.to_owned(),
                    databases: self.identity.databases.clone(),
                    lease: self.lease.id(),
                    held: self.orders.held(),
                }),
            )),
            Opened::Unknown => effects.push(Effect::Close(id)),
        }
    }

    pub(super) fn received(
        &mut self,
        id: ConnectionId,
        message: ToAgent,
        now: Boot,
        effects: &mut Vec<Effect>,
    ) {
        match message {
            ToAgent::Welcome(welcome) => self.welcomed(id, &welcome, now, effects),
            ToAgent::Redirect { leader } => {
                if let Some(earlier) = self.links.redirected(id, leader, now) {
                    self.lease.disconnected(earlier);
                    effects.push(Effect::Close(earlier));
                }
                self.lease.hurry(now);
            }
            ToAgent::HeartbeatAnswer { sequence, renewal } => {
                match self.lease.answered(id, sequence, renewal, now) {
                    Answered::Lost => {
                        tracing::warn!("the lease is gone; work in progress stops at its next safe point");
                        self.lose_lease(now, effects);
                    }
                    Answered::Renewed | Answered::Nothing => {}
                }
            }
            ToAgent::Bundle { digest, bundle } => {
                if self.links.home() == Some(id) {
                    self.bundles.insert(Bundle::new(digest, bundle));
                }
            }
            ToAgent::Look {
                term,
                look,
                database,
                bundle,
                aim,
            } => {
                if self.is_command(id, term) {
                    let question = Question {
                        connection: id,
                        look,
                        database,
                    };
                    self.look(question, bundle, aim, now, effects);
                }
            }
            ToAgent::Assign { term, order } => {
                if self.is_command(id, term) {
                    self.assigned(order, now, effects);
                }
            }
            ToAgent::Stop { term, of, reason } => {
                if self.is_command(id, term) {
                    tracing::info!(rollout = %of.rollout, database = %of.database, reason, "asked to stop an order");
                    let actions = self.orders.stop(&of, now);
                    self.act(actions, now, effects);
                }
            }
            ToAgent::Inquire {
                inquiry,
                databases,
                what,
            } => {
                let digest = what.bundle();
                let questions = databases.into_iter().map(|database| Inquired {
                    connection: id,
                    inquiry,
                    database,
                    what: what.clone(),
                });
                self.inquire(questions.collect(), digest, now, effects);
            }
            ToAgent::Acknowledged(of) => self.orders.acknowledged(&of),
            ToAgent::Goodbye { parting, reason } => {
                tracing::warn!(
                    coordinator = self.links.url(id),
                    reason,
                    "the coordinator said goodbye"
                );
                match parting {
                    Parting::ForNow => self.drop_link(id, now, effects),
                    Parting::IdInUse => self.close(Ending::IdInUse, now, effects),
                }
            }
        }
    }

    fn welcomed(&mut self, id: ConnectionId, welcome: &Welcome, now: Boot, effects: &mut Vec<Effect>) {
        let Some(asked) = self.links.asked(id) else { return };
        let url = self.links.url(id).to_owned();
        if (welcome.epoch, welcome.term) < self.term {
            tracing::warn!(
                coordinator = url,
                term = welcome.term,
                epoch = welcome.epoch,
                largest_term = self.term.1,
                largest_epoch = self.term.0,
                "refused a coordinator that leads no more, or whose store is older than one served before"
            );
            self.drop_link(id, now, effects);
            return;
        }
        self.term = (welcome.epoch, welcome.term);
        self.store = welcome.store;
        for earlier in self.links.welcomed(id) {
            self.lease.disconnected(earlier);
            effects.push(Effect::Close(earlier));
        }
        tracing::info!(coordinator = url, term = welcome.term, "connected to the leader");
        // An old one does not say.
        if !welcome.version.is_empty()
            && let Some(note) = release::note(release::OURS, &welcome.version)
        {
            tracing::warn!(coordinator = url, "{note}");
        }
        match self
            .lease
            .granted(welcome.lease, welcome.ttl, welcome.heartbeat_interval, asked, now)
        {
            Granted::Kept => {}
            Granted::Another => {
                tracing::warn!(
                    "the leader gave a new lease; work under the earlier one stops at its next safe point"
                );
                let actions = self.orders.stop_all(now);
                self.act(actions, now, effects);
            }
        }
        let (tell, ask) = self.inventory.welcomed();
        self.take_inventory(tell, ask, effects);
        let actions = self.orders.welcomed(now);
        self.act(actions, now, effects);
        self.announce_leaving(effects);
    }

    /// Whether a command comes from the leader we serve, in a term that is not over.
    fn is_command(&mut self, id: ConnectionId, term: i64) -> bool {
        if self.links.home() != Some(id) {
            tracing::debug!(
                coordinator = self.links.url(id),
                "ignored a command of one who is not our leader"
            );
            return false;
        }
        if term < self.term.1 {
            tracing::warn!(
                term,
                largest_term = self.term.1,
                "ignored a command of a leader whose term is over"
            );
            return false;
        }
        self.term.1 = term;
        true
    }

    fn look(&mut self, question: Question, digest: Digest, aim: Aim, now: Boot, effects: &mut Vec<Effect>) {
        if !matches!(self.mode, Mode::Serving) {
            return;
        }
        if !self.identity.databases.contains_key(&question.database) {
            let failure = self.not_served(&question.database);
            return self.answer(question, Look::Failed(failure), effects);
        }
        let Some(bundle) = self.bundles.find(digest) else {
            self.answer(question, Look::Failed(missing(digest)), effects);
            return self.start_over(now, effects);
        };
        let store = self.store;
        effects.push(Effect::Look {
            question,
            bundle,
            aim,
            store,
        });
    }

    fn assigned(&mut self, order: Order, now: Boot, effects: &mut Vec<Effect>) {
        let of = Holding::of(&order);
        let actions = match self.mode {
            // It came while we are leaving: it was not begun, so it has stopped.
            Mode::Recovering { .. } | Mode::Closing { .. } | Mode::Parting { .. } | Mode::Over => {
                self.orders.stop(&of, now)
            }
            Mode::Serving if !self.identity.databases.contains_key(&of.database) => {
                let failure = self.not_served(&of.database);
                self.orders
                    .ended(&of, Finish::Failed(failure, Summary::default()), now)
            }
            Mode::Serving if self.bundles.find(order.bundle).is_none() => {
                let actions = self.orders.ended(
                    &of,
                    Finish::Failed(missing(order.bundle), Summary::default()),
                    now,
                );
                self.act(actions, now, effects);
                return self.start_over(now, effects);
            }
            Mode::Serving => self.orders.assigned(order, self.store, now),
        };
        self.act(actions, now, effects);
    }

    /// A stream on which a bundle went missing is of no use: on a new one it is sent again.
    fn start_over(&mut self, now: Boot, effects: &mut Vec<Effect>) {
        tracing::warn!("a bundle did not arrive; connecting anew to have it sent again");
        if let Some(home) = self.links.home() {
            self.drop_link(home, now, effects);
        }
    }

    pub(super) fn answer(&self, question: Question, result: Look, effects: &mut Vec<Effect>) {
        // Another leader asks anew; nobody waits for this one any more.
        if self.links.home() == Some(question.connection) {
            let Question {
                connection,
                look,
                database,
            } = question;
            effects.push(Effect::Send(
                connection,
                FromAgent::Looked {
                    look,
                    database,
                    result,
                },
            ));
        }
    }

    /// It changes nothing, so neither the term nor our own end matters.
    fn inquire(
        &mut self,
        questions: Vec<Inquired>,
        digest: Option<Digest>,
        now: Boot,
        effects: &mut Vec<Effect>,
    ) {
        let bundle = digest.and_then(|digest| self.bundles.find(digest));
        if let Some(digest) = digest.filter(|_| bundle.is_none()) {
            for question in questions {
                self.report(question, Err(missing(digest).message), effects);
            }
            return self.start_over(now, effects);
        }
        let (served, unknown): (Vec<_>, Vec<_>) = questions
            .into_iter()
            .partition(|question| self.identity.databases.contains_key(&question.database));
        for question in unknown {
            let problem = self.not_served(&question.database).message;
            self.report(question, Err(problem), effects);
        }
        if !served.is_empty() {
            effects.push(Effect::Inquire(served, bundle));
        }
    }

    pub(super) fn report(
        &self,
        question: Inquired,
        result: Result<Answer, String>,
        effects: &mut Vec<Effect>,
    ) {
        // Whoever asked through an earlier stream has been told that we are gone.
        if self.links.home() == Some(question.connection) {
            effects.push(Effect::Send(
                question.connection,
                FromAgent::Answered {
                    inquiry: question.inquiry,
                    database: question.database,
                    result,
                },
            ));
        }
    }

    fn not_served(&self, database: &DatabaseName) -> Failure {
        failure(format!(
            "agent {} has no database `{database}`; its settings may have changed",
            self.identity.agent
        ))
    }

    pub(super) fn take_inventory(
        &self,
        tell: Vec<Located>,
        ask: Vec<DatabaseName>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(home) = self.links.home().filter(|_| !tell.is_empty()) {
            effects.push(Effect::Send(home, FromAgent::Inventory(tell)));
        }
        if !ask.is_empty() {
            effects.push(Effect::Locate(ask));
        }
    }

    pub(super) fn act(&mut self, actions: Vec<orders::Action>, now: Boot, effects: &mut Vec<Effect>) {
        for action in actions {
            match action {
                orders::Action::Start(order, store) => self.start(order, store, now, effects),
                orders::Action::Stop(of) => effects.push(Effect::Stop(of)),
                orders::Action::Report(message) => {
                    if let Some(home) = self.links.home() {
                        effects.push(Effect::Send(home, message));
                    }
                }
            }
        }
    }

    fn start(&mut self, order: Order, store: StoreId, now: Boot, effects: &mut Vec<Effect>) {
        if let Some(bundle) = self.bundles.find(order.bundle) {
            effects.push(Effect::Start { order, bundle, store });
            return;
        }
        // Only an order that waited behind another can have outlived its bundle here.
        let failed = Finish::Failed(missing(order.bundle), Summary::default());
        let actions = self.orders.ended(&Holding::of(&order), failed, now);
        self.act(actions, now, effects);
    }
}

fn missing(digest: Digest) -> Failure {
    failure(format!(
        "the migrations (bundle {}) did not reach the agent",
        digest.short()
    ))
}

fn failure(message: String) -> Failure {
    Failure {
        message,
        retry: Retryability::Retry,
        exit: Exit::Failed,
    }
}
