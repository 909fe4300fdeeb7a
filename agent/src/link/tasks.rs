//! The tasks of the agent: connections, orders, looks, and asking databases where they are. Owns and joins them all;
//! decides nothing.

use super::ConnectionId;
use super::bundles::Bundle;
use super::connection;
use super::event::{Event, Inquired, Question};
use super::worker::Worker;
use crate::story::Recorder;
use crate::work::{Control, Listener, StepResult};
use runtime::telemetry;
use shared::id::{DatabaseName, StoreId};
use shared::inquiry::{Answer, Inquiry};
use shared::retry::Retryability;
use shared::rollout::message::{FromAgent, Holding, Located};
use shared::rollout::story::Story;
use shared::rollout::work::{Aim, Exit, Failure, Finish, Look, Order, Progress, Summary};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

/// Messages waiting to be sent on one connection; a coordinator that lets so many pile up is dead.
const OUTBOX: usize = 1024;

/// Looks at the same time: each takes a connection to its database.
const LOOKS: usize = 16;

/// A look that takes longer is given up; the coordinator asks again.
const LOOK: Duration = Duration::from_secs(30);

/// Databases asked at the same time where they are.
const LOCATES: usize = 8;

/// A database that takes longer to say where it is counts as unreachable.
const LOCATE: Duration = Duration::from_secs(20);

/// Databases asked at the same time: each takes a connection, of which rollouts have more need.
const INQUIRIES: usize = 4;

/// A question that takes longer is given up.
const INQUIRY: Duration = Duration::from_secs(20);

/// Time between two progress reports of one order.
const PROGRESS: Duration = Duration::from_secs(1);

/// Time between two tellings of what has happened to one order.
const STORY: Duration = Duration::from_secs(5);

/// All tasks of the agent.
pub(super) struct Tasks {
    worker: Arc<dyn Worker>,
    events: mpsc::Sender<Event>,
    running: JoinSet<Outcome>,
    /// What each task is about, for those that panic.
    subjects: HashMap<Id, Subject>,
    connections: BTreeMap<ConnectionId, Connection>,
    stops: BTreeMap<Holding, CancellationToken>,
    looks: Arc<Semaphore>,
    locates: Arc<Semaphore>,
    inquiries: Arc<Semaphore>,
}

struct Connection {
    outbox: mpsc::Sender<FromAgent>,
    close: CancellationToken,
    /// Cancelled when nothing that was asked on it need be answered any more.
    gone: CancellationToken,
    task: AbortHandle,
}

/// How a task ended.
enum Outcome {
    Connection(ConnectionId, Result<(), connection::Error>),
    Order(Holding, Finish, Story),
    Look(Question, Look),
    Locate(Located),
    Inquiry(Inquired, Result<Answer, String>),
}

/// What a task is about.
#[derive(Clone)]
enum Subject {
    Connection(ConnectionId),
    Order(Holding),
    Look(Question),
    Locate(DatabaseName),
    Inquiry(Inquired),
}

/// The end of a task, as the loop needs it.
pub(super) struct Ended {
    pub(super) event: Event,
    /// Why a connection ended.
    pub(super) problem: Option<connection::Error>,
}

impl Tasks {
    pub(super) fn new(worker: Arc<dyn Worker>, events: mpsc::Sender<Event>) -> Self {
        Self {
            worker,
            events,
            running: JoinSet::new(),
            subjects: HashMap::new(),
            connections: BTreeMap::new(),
            stops: BTreeMap::new(),
            looks: Arc::new(Semaphore::new(LOOKS)),
            locates: Arc::new(Semaphore::new(LOCATES)),
            inquiries: Arc::new(Semaphore::new(INQUIRIES)),
        }
    }

    pub(super) fn open(&mut self, id: ConnectionId, url: String) {
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let close = CancellationToken::new();
        let gone = CancellationToken::new();
        let keeping = connection::keep(id, url, messages, self.events.clone(), close.clone());
        let task = self.spawn(Subject::Connection(id), async move {
            Outcome::Connection(id, keeping.await)
        });
        self.connections.insert(
            id,
            Connection {
                outbox,
                close,
                gone,
                task,
            },
        );
    }

    /// Queues a message. A connection whose queue is full is dead and is ended; its end is joined like any other.
    pub(super) fn send(&mut self, id: ConnectionId, message: FromAgent) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        match connection.outbox.try_send(message) {
            // After the end of a connection the machine is about to hear of it.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(_)) => {
                tracing::warn!("a coordinator takes no messages; connecting anew");
                connection.task.abort();
            }
        }
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.remove(&id) {
            connection.close.cancel();
            connection.gone.cancel();
        }
    }

    pub(super) fn look(&mut self, question: Question, bundle: Arc<Bundle>, aim: Aim, store: StoreId) {
        let (worker, places) = (self.worker.clone(), self.looks.clone());
        let about = question.clone();
        let gone = self
            .connections
            .get(&question.connection)
            .map(|connection| connection.gone.clone());
        self.spawn(Subject::Look(question), async move {
            let _place = places.acquire().await;
            let database = about.database.clone();
            let looking = async {
                match bundle.set().await {
                    // A leader that comes back asks for all its looks anew; those of its former stream must not come
                    // first.
                    Ok(_) if gone.is_none_or(|gone| gone.is_cancelled()) => Look::Failed(failure(
                        "the coordinator that asked has gone".to_owned(),
                        Retryability::Retry,
                    )),
                    Ok(set) => worker.look(database, set, aim, store).await,
                    Err(failure) => Look::Failed(failure),
                }
            };
            let look = tokio::time::timeout(LOOK, looking).await.unwrap_or_else(|_| {
                Look::Failed(failure(
                    format!(
                        "looking at database {} took longer than {} s",
                        about.database,
                        LOOK.as_secs()
                    ),
                    Retryability::Retry,
                ))
            });
            Outcome::Look(about, look)
        });
    }

    pub(super) fn start(&mut self, order: Order, bundle: Arc<Bundle>, store: StoreId) {
        let of = Holding::of(&order);
        let stop = CancellationToken::new();
        self.stops.insert(of.clone(), stop.clone());
        let span = tracing::info_span!(
            "order",
            rollout = %order.rollout,
            database = %order.database,
            attempt = order.attempt,
        );
        if let Some(place) = order.trace {
            telemetry::span::hang(&span, place);
        }
        let (worker, events, subject) = (
            self.worker.clone(),
            self.events.clone(),
            Subject::Order(of.clone()),
        );
        let recorder = Recorder::default();
        let work = async move {
            tracing::info!("began");
            let finish = match bundle.set().await {
                Ok(set) => {
                    let (sender, progress) = watch::channel(Progress::default());
                    let control = Control {
                        stop,
                        progress: sender,
                        listener: Listener::new(log_step),
                        recorder: recorder.clone(),
                    };
                    tokio::select! {
                        finish = worker.execute(order, set, store, control) => finish,
                        never = report(of.clone(), progress, events.clone()) => match never {},
                        never = tell(of.clone(), &recorder, events) => match never {},
                    }
                }
                Err(failure) => Finish::Failed(failure, Summary::default()),
            };
            log(&finish);
            let (told, _) = recorder.story();
            Outcome::Order(of, finish, told)
        };
        self.spawn(subject, work.instrument(span));
    }

    pub(super) fn stop(&mut self, of: &Holding) {
        if let Some(stop) = self.stops.get(of) {
            stop.cancel();
        }
    }

    pub(super) fn locate(&mut self, databases: Vec<DatabaseName>) {
        for database in databases {
            let (worker, places) = (self.worker.clone(), self.locates.clone());
            self.spawn(Subject::Locate(database.clone()), async move {
                let _place = places.acquire().await;
                let asked = tokio::time::timeout(LOCATE, worker.locate(database.clone())).await;
                let problem = format!("it did not answer within {} s", LOCATE.as_secs());
                Outcome::Locate(asked.unwrap_or_else(|_| Located::lost(database, problem)))
            });
        }
    }

    pub(super) fn inquire(&mut self, questions: Vec<Inquired>, bundle: Option<&Arc<Bundle>>) {
        for question in questions {
            let (worker, places) = (self.worker.clone(), self.inquiries.clone());
            let bundle = bundle.cloned();
            let gone = self
                .connections
                .get(&question.connection)
                .map(|connection| connection.gone.clone());
            self.spawn(Subject::Inquiry(question.clone()), async move {
                let _place = match question.what {
                    Inquiry::Survey(_) | Inquiry::Plan { .. } | Inquiry::Check(_) => {
                        Some(places.acquire().await)
                    }
                    Inquiry::Pools => None,
                };
                let result = if gone.is_none_or(|gone| gone.is_cancelled()) {
                    Err("the coordinator that asked has gone".to_owned())
                } else {
                    let (database, what) = (question.database.clone(), question.what.clone());
                    let asked = async {
                        let set = match bundle {
                            Some(bundle) => Some(bundle.set().await.map_err(|failure| failure.message)?),
                            None => None,
                        };
                        worker.inquire(database, what, set).await
                    };
                    tokio::time::timeout(INQUIRY, asked)
                        .await
                        .unwrap_or_else(|_| Err(format!("it took longer than {} s", INQUIRY.as_secs())))
                };
                Outcome::Inquiry(question, result)
            });
        }
    }

    /// Waits for the next task to end; for ever when there is none.
    ///
    /// # Cancel safety
    /// No end is lost.
    pub(super) async fn ended(&mut self) -> Ended {
        match self.running.join_next_with_id().await {
            Some(Ok((id, outcome))) => {
                self.subjects.remove(&id);
                self.read(outcome)
            }
            Some(Err(error)) => {
                let subject = self.subjects.remove(&error.id());
                self.read_panic(subject, &error)
            }
            None => std::future::pending().await,
        }
    }

    /// Ends everything: connections after what they have queued, the rest where it stands.
    pub(super) async fn shut_down(mut self) {
        for connection in std::mem::take(&mut self.connections).into_values() {
            connection.close.cancel();
        }
        let connections_end = tokio::time::sleep(connection::CLOSE);
        tokio::pin!(connections_end);
        let is_connection = |subject: &Subject| matches!(subject, Subject::Connection(_));
        while self.subjects.values().any(is_connection) {
            tokio::select! {
                joined = self.running.join_next_with_id() => match joined {
                    Some(Ok((id, _))) => self.subjects.remove(&id),
                    Some(Err(error)) => self.subjects.remove(&error.id()),
                    None => break,
                },
                () = &mut connections_end => break,
            };
        }
        self.running.shutdown().await;
    }

    fn spawn(
        &mut self,
        subject: Subject,
        task: impl Future<Output = Outcome> + Send + 'static,
    ) -> AbortHandle {
        let handle = self.running.spawn(task);
        self.subjects.insert(handle.id(), subject);
        handle
    }

    fn read(&mut self, outcome: Outcome) -> Ended {
        let (event, problem) = match outcome {
            Outcome::Connection(id, result) => {
                self.close(id);
                (Event::Closed(id), result.err())
            }
            Outcome::Order(of, finish, story) => {
                self.stops.remove(&of);
                (Event::Ended(of, finish, story), None)
            }
            Outcome::Look(question, look) => (Event::Looked(question, look), None),
            Outcome::Locate(located) => (Event::Located(located), None),
            Outcome::Inquiry(question, result) => (Event::Answered(question, result), None),
        };
        Ended { event, problem }
    }

    /// A task that panicked (a mistake of ours) or was aborted still gets its end: nobody must wait for it for ever.
    fn read_panic(&mut self, subject: Option<Subject>, error: &JoinError) -> Ended {
        if error.is_panic() {
            tracing::error!("a task of the agent ended unexpectedly; please report this");
        }
        let failed = |what: String| {
            failure(
                format!("{what} ended unexpectedly; please report this"),
                Retryability::GiveUp,
            )
        };
        let outcome = match subject {
            Some(Subject::Order(of)) => {
                let finish = Finish::Failed(
                    failed(format!("the work on database {}", of.database)),
                    Summary::default(),
                );
                Outcome::Order(of, finish, Story::default())
            }
            Some(Subject::Look(question)) => {
                let look = Look::Failed(failed(format!("looking at database {}", question.database)));
                Outcome::Look(question, look)
            }
            Some(Subject::Locate(database)) => {
                Outcome::Locate(Located::lost(database, "asking it ended unexpectedly".to_owned()))
            }
            Some(Subject::Inquiry(question)) => {
                Outcome::Inquiry(question, Err("it ended unexpectedly".to_owned()))
            }
            Some(Subject::Connection(id)) => Outcome::Connection(id, Ok(())),
            // Every task has its subject from the moment it is spawned.
            None => Outcome::Connection(ConnectionId(0), Ok(())),
        };
        self.read(outcome)
    }
}

/// Reports progress, the first at once, then at most once in [`PROGRESS`]. Never ends.
async fn report(
    of: Holding,
    mut progress: watch::Receiver<Progress>,
    events: mpsc::Sender<Event>,
) -> std::convert::Infallible {
    while progress.changed().await.is_ok() {
        let now = progress.borrow_and_update().clone();
        // When the loop has ended, so will this task.
        let _ = events.send(Event::Progressed(of.clone(), now)).await;
        tokio::time::sleep(PROGRESS).await;
    }
    // The sender was dropped: the work is about to return.
    std::future::pending().await
}

/// Tells what has happened, each time that there is more to tell, at most once in [`STORY`]. Never ends.
async fn tell(of: Holding, recorder: &Recorder, events: mpsc::Sender<Event>) -> std::convert::Infallible {
    let mut told = 0;
    loop {
        tokio::time::sleep(STORY).await;
        let (story, changes) = recorder.story();
        // A long statement brings no changes, and is what is asked about.
        if (changes > told || recorder.is_at_work()) && story.is_worth_keeping() {
            told = changes;
            // When the loop has ended, so will this task.
            let _ = events.send(Event::Told(of.clone(), story)).await;
        }
    }
}

fn log(finish: &Finish) {
    match finish {
        Finish::Done(summary) => {
            tracing::info!(
                migrations = summary.migrations,
                steps = summary.steps,
                rows = summary.rows,
                "done"
            );
        }
        Finish::Failed(failure, _) => tracing::warn!(error = failure.message, "failed"),
        Finish::Replaced { by, .. } => {
            tracing::warn!(
                by,
                "replaced: another holder has taken this database over; nothing was changed since"
            );
        }
        Finish::Stopped(_) => tracing::info!("stopped at a safe point, to be continued"),
    }
}

fn failure(message: String, retry: Retryability) -> Failure {
    Failure {
        message,
        retry,
        exit: Exit::Failed,
    }
}

/// Inside the span of its order.
fn log_step(step: &StepResult) {
    tracing::info!(
        version = %step.version,
        step = step.step,
        rows = step.rows,
        batches = step.batches,
        retries = step.retries,
        wal_bytes = step.wal_bytes,
        elapsed_ms = u64::try_from(step.elapsed.as_millis()).unwrap_or(u64::MAX),
        "step done"
    );
}
