//! The way to a PostgreSQL server, and what can happen on it: answers are lost, connections are cut, nothing moves.
//!
//! Each connection is two tasks, one for each direction. They read whole messages of PostgreSQL's protocol (version 3, in
//! plain text: `sslmode=disable`), so that the one COMMIT whose answer is to be lost can be told from all else:
//!
//! ```text
//! client --Query "/*tag*/ COMMIT"--> rule --CutBefore------> both ends closed, the server rolls back
//!                                      |---Lose, Hold-----> server --its answer, up to ReadyForQuery--> kept here
//!                                      |                    then: both ends closed, or left open and silent
//!                                      '---Pass-----------> server --answer--> client
//! ```
//! Every query and every Sync is answered by one `ReadyForQuery`, so counting these finds the answer to the COMMIT among
//! statements that were sent without waiting.

use crate::port::Port;
use crate::postgres::{Database, Server};
use anyhow::{Context as _, bail};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// No message of ours or of a test server's is larger; what says it is, is not the protocol.
const LARGEST: usize = 64 * 1024 * 1024;

/// What the client's messages begin with that matter here; all others pass.
const QUERY: u8 = b'Q';
const SYNC: u8 = b'S';
/// The server's: it has answered a query, or a series up to Sync.
const READY: u8 = b'Z';

/// What becomes of one COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtCommit {
    /// It goes its way.
    Pass,
    /// The connection is cut before the server has seen it: rolled back.
    CutBefore,
    /// The server commits, its answer is lost, and the connection is cut.
    LoseAnswer,
    /// The server commits, its answer is lost, and the connection stays open in silence, until it is cut.
    HoldAnswer,
}

/// A proxy before one server; all its connections end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What happens to the connections of a proxy, and what happened.
struct Shared {
    rule: Mutex<Rule>,
    lanes: Mutex<BTreeMap<u64, Lane>>,
    /// COMMITs whose answer was kept back so far.
    kept: watch::Sender<u32>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

type Rule = Box<dyn FnMut(&str) -> AtCommit + Send>;

/// One connection, as both of its tasks and the handle see it.
#[derive(Debug, Clone)]
struct Lane(watch::Sender<Flow>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    Stalled,
    Cut,
}

/// The handle of one connection.
#[derive(Debug, Clone)]
pub struct Connection {
    id: u64,
    lane: Lane,
}

impl Proxy {
    /// Starts one before a server, in which everything passes.
    pub async fn start(server: &Server) -> anyhow::Result<Self> {
        Self::before(server.port()).await
    }

    /// The same before whatever listens on a port and speaks for a server: a pooler.
    pub async fn before(behind: u16) -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let listener = TcpListener::bind(("127.0.0.1", port.number()))
            .await
            .context("listening as a proxy")?;
        let shared = Arc::new(Shared {
            rule: Mutex::new(Box::new(|_| AtCommit::Pass)),
            lanes: Mutex::default(),
            kept: watch::Sender::new(0),
        });
        let accepting = tokio::spawn(accept(listener, behind, shared.clone()));
        Ok(Self {
            port,
            shared,
            accepting,
        })
    }

    /// The URL of a database of the server, by way of this proxy.
    pub fn url(&self, server: &Server, database: &Database) -> String {
        let (there, here) = (server.port().to_string(), self.port.number().to_string());
        let url = (database.url()).replacen(&format!(":{there}/"), &format!(":{here}/"), 1);
        format!("{url}?sslmode=disable")
    }

    /// A database of the server, whose owner comes by way of this proxy.
    pub fn database(&self, server: &Server, database: &Database) -> Database {
        database.by_way_of(self.url(server, database))
    }

    /// From now on each COMMIT is shown to `rule`, with its tag, in the order of their coming.
    pub fn at_commit(&self, rule: impl FnMut(&str) -> AtCommit + Send + 'static) {
        *lock(&self.shared.rule) = Box::new(rule);
    }

    /// How many answers to COMMITs were kept back so far.
    pub fn kept(&self) -> u32 {
        *self.shared.kept.borrow()
    }

    /// Waits until the answers to so many COMMITs have been kept back: their outcome is certain then.
    pub async fn kept_back(&self, answers: u32) {
        let mut kept = self.shared.kept.subscribe();
        // The sender lives as long as the proxy.
        let _ = kept.wait_for(|kept| *kept >= answers).await;
    }

    /// The connections that are open, oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        let lanes = lock(&self.shared.lanes);
        lanes
            .iter()
            .map(|(id, lane)| Connection {
                id: *id,
                lane: lane.clone(),
            })
            .collect()
    }

    /// Cuts all connections; new ones are taken.
    pub fn cut(&self) {
        self.connections().iter().for_each(Connection::cut);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Connection {
    /// Counted from 1 in the order of their coming.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Closes both ends.
    pub fn cut(&self) {
        self.lane.0.send_replace(Flow::Cut);
    }

    /// Nothing moves any more, in either direction.
    pub fn stall(&self) {
        self.lane.set(Flow::Stalled);
    }

    /// Ends [`Connection::stall`].
    pub fn resume(&self) {
        self.lane.set(Flow::Open);
    }
}

impl Lane {
    /// A connection that is cut stays cut.
    fn set(&self, flow: Flow) {
        self.0.send_if_modified(|now| {
            let changes = *now != Flow::Cut && *now != flow;
            if changes {
                *now = flow;
            }
            changes
        });
    }
}

/// Takes connections until the proxy is dropped, and with it all of them.
async fn accept(listener: TcpListener, server: u16, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    for id in 1.. {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let lane = Lane(watch::Sender::new(Flow::Open));
        lock(&shared.lanes).insert(id, lane.clone());
        let shared = shared.clone();
        connections.spawn(async move {
            // A server that is down: the client sees its connection closed.
            if let Ok(upstream) = TcpStream::connect(("127.0.0.1", server)).await {
                keep(client, upstream, &lane, &shared).await;
            }
            lock(&shared.lanes).remove(&id);
        });
        while connections.try_join_next().is_some() {}
    }
}

/// One connection until one of its ends closes or it is cut. Both ends are closed when this returns.
async fn keep(client: TcpStream, server: TcpStream, lane: &Lane, shared: &Shared) {
    let nodelay = client.set_nodelay(true).and(server.set_nodelay(true));
    if nodelay.is_err() {
        return;
    }
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let talk = Mutex::new(Talk::default());
    let mut flow = lane.0.subscribe();
    tokio::select! {
        _ = upward(from_client, to_server, lane, shared, &talk) => {}
        _ = downward(from_server, to_client, lane, shared, &talk) => {}
        _ = flow.wait_for(|flow| *flow == Flow::Cut) => {}
    }
}

/// What both directions of a connection know.
#[derive(Debug, Default)]
struct Talk {
    /// What the server still has to answer before it is ready: queries and Syncs, beside the startup.
    asked: u64,
    /// Times the server said that it is ready; the first ends the startup.
    ready: u64,
    /// The answer to keep back, by its number, and what then becomes of the connection.
    keep: Option<(u64, AtCommit)>,
}

async fn upward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lane: &Lane,
    shared: &Shared,
    talk: &Mutex<Talk>,
) -> anyhow::Result<()> {
    // The first message has no type. One that asks for TLS would be answered by a byte that is no message.
    let startup = message(&mut from, Kind::Startup).await?;
    to.write_all(&startup).await?;
    loop {
        let message = message(&mut from, Kind::Typed).await?;
        open(lane).await;
        let mut end = AtCommit::Pass;
        if let QUERY | SYNC = message[0] {
            if let Some(text) = commit(&message) {
                end = (lock(&shared.rule))(text);
            }
            let mut talk = lock(talk);
            talk.asked += 1;
            if let AtCommit::LoseAnswer | AtCommit::HoldAnswer = end {
                talk.keep = Some((talk.asked, end));
            }
        }
        if end == AtCommit::CutBefore {
            return Ok(());
        }
        to.write_all(&message).await?;
    }
}

async fn downward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lane: &Lane,
    shared: &Shared,
    talk: &Mutex<Talk>,
) -> anyhow::Result<()> {
    loop {
        let message = message(&mut from, Kind::Typed).await?;
        open(lane).await;
        let kept = {
            let mut talk = lock(talk);
            // What comes between two times of being ready belongs to the query after the first of them.
            let answers = talk.ready;
            talk.ready += u64::from(message[0] == READY);
            talk.keep.filter(|(asked, _)| *asked == answers)
        };
        let Some((_, end)) = kept else {
            to.write_all(&message).await?;
            continue;
        };
        if message[0] == READY {
            shared.kept.send_modify(|kept| *kept += 1);
            if end == AtCommit::HoldAnswer {
                lane.set(Flow::Stalled);
                open(lane).await;
            }
            return Ok(());
        }
    }
}

/// Waits while nothing may move.
async fn open(lane: &Lane) {
    // The sender is borrowed here, so it is there.
    let _ = lane.0.subscribe().wait_for(|flow| *flow != Flow::Stalled).await;
}

/// The text of a query that commits.
fn commit(message: &[u8]) -> Option<&str> {
    let text = message.get(5..)?.strip_suffix(&[0])?;
    let text = std::str::from_utf8(text).ok()?;
    (message[0] == QUERY && text.ends_with("COMMIT")).then_some(text)
}

/// Whether a message begins with its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Startup,
    Typed,
}

/// One whole message as it is on the wire: type (but at the start), length with itself, content.
async fn message(from: &mut OwnedReadHalf, kind: Kind) -> anyhow::Result<Vec<u8>> {
    let head = if kind == Kind::Typed { 5 } else { 4 };
    let mut message = vec![0; head];
    from.read_exact(&mut message).await?;
    let length = message[head - 4..]
        .try_into()
        .map(u32::from_be_bytes)
        .context("four bytes are a length")?;
    let length = usize::try_from(length)?;
    if !(4..=LARGEST).contains(&length) {
        bail!("not PostgreSQL's protocol");
    }
    let whole = head + length - 4;
    message.resize(whole, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Only counters and maps are behind it, whole at every moment.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
