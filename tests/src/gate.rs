//! The way to a server that speaks any protocol over TCP, and that can be shut: nothing passes then, and nobody is told.

use crate::port::Port;
use anyhow::Context as _;
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// A gate before one server; all its connections end when it is dropped.
#[derive(Debug)]
pub struct Gate {
    port: Port,
    state: Arc<watch::Sender<State>>,
    accepting: JoinHandle<()>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Shut,
}

impl Gate {
    /// An open one before whatever listens at an address.
    pub async fn before(address: String) -> anyhow::Result<Self> {
        let port = Port::claim()?;
        let listener = TcpListener::bind(("127.0.0.1", port.number()))
            .await
            .context("listening as a gate")?;
        let state = Arc::new(watch::Sender::new(State::Open));
        let accepting = tokio::spawn(accept(listener, address, state.clone()));
        Ok(Self {
            port,
            state,
            accepting,
        })
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.number())
    }

    /// Connections stay open and new ones are taken, but nothing moves.
    pub fn shut(&self) {
        self.state.send_replace(State::Shut);
    }

    /// Ends [`Gate::shut`]; what was on the way is lost with its connection.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, address: String, state: Arc<watch::Sender<State>>) {
    let mut passing = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        passing.spawn(pass(client, address.clone(), state.subscribe()));
    }
}

/// One connection, until either end closes it, or the gate was shut and is opened again.
async fn pass(client: TcpStream, address: String, mut state: watch::Receiver<State>) {
    let mut shut = *state.borrow_and_update() == State::Shut;
    if shut {
        reopened(&mut state).await;
        return;
    }
    let Ok(server) = TcpStream::connect(address).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let passing = async {
        tokio::join!(
            pump(&mut from_client, &mut to_server),
            pump(&mut from_server, &mut to_client),
        );
    };
    tokio::pin!(passing);
    while !shut {
        tokio::select! {
            () = &mut passing => return,
            changed = state.changed() => {
                if changed.is_err() {
                    return;
                }
                shut = *state.borrow_and_update() == State::Shut;
            }
        }
    }
    reopened(&mut state).await;
}

async fn reopened(state: &mut watch::Receiver<State>) {
    // The sender lives as long as the gate.
    let _ = state.wait_for(|state| *state != State::Shut).await;
}

async fn pump(from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    // The other side may have gone.
    let _ = to.shutdown().await;
}
