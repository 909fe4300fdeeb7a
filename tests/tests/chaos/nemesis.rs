//! What goes wrong on the way to the server and inside it, by the choice of a seed.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tests::pgbouncer::PgBouncer;
use tests::postgres::{Database, Server, Shutdown};
use tests::proxy::{AtCommit, Connection, Proxy};
use tokio::time::Instant;

/// Faults that happened, counted where they happen.
pub(crate) type Count = Arc<AtomicU64>;

/// Most faults of a round. Then there is peace, and the work must come to its end: without it a busy machine would be
/// harmed faster than it works.
const MOST: u64 = 50;

/// A proxy, before a server or a pooler, that loses some COMMITs and some of their answers.
pub(crate) async fn lossy(behind: u16, seed: u64, count: &Count) -> anyhow::Result<Proxy> {
    let proxy = Proxy::before(behind).await?;
    let (mut rng, count) = (StdRng::seed_from_u64(seed), count.clone());
    proxy.at_commit(move |_| {
        let end = match rng.random_range(0..100) {
            _ if count.load(Ordering::Relaxed) >= MOST => AtCommit::Pass,
            0..2 => AtCommit::LoseAnswer,
            2 => AtCommit::CutBefore,
            _ => AtCommit::Pass,
        };
        count.fetch_add(u64::from(end != AtCommit::Pass), Ordering::Relaxed);
        end
    });
    Ok(proxy)
}

/// Faults of servers and connections.
pub(crate) struct Nemesis<'a> {
    pub(crate) rng: StdRng,
    pub(crate) server: &'a mut Server,
    pub(crate) database: Database,
    pub(crate) proxy: Proxy,
    pub(crate) count: Count,
    /// Restarts that are left for this round.
    pub(crate) restarts: u32,
    /// Connections on which nothing moves, and until when.
    pub(crate) stalled: Vec<(Instant, Connection)>,
    /// Where one is on the way.
    pub(crate) pooler: Option<Pooler>,
}

/// A pooler, and until when it stands still.
pub(crate) struct Pooler {
    pub(crate) pgbouncer: PgBouncer,
    pub(crate) frozen_until: Option<Instant>,
}

impl Pooler {
    /// It stands still for some time, or dies and is started again.
    async fn harm(&mut self, rng: &mut StdRng) -> anyhow::Result<()> {
        if rng.random_bool(0.5) && self.frozen_until.is_none() {
            self.pgbouncer.freeze()?;
            let time = Duration::from_millis(rng.random_range(200..1_500));
            self.frozen_until = Some(Instant::now() + time);
            return Ok(());
        }
        self.frozen_until = None;
        self.pgbouncer.kill()?;
        self.pgbouncer.resume().await
    }

    /// Wakes it when its time has come.
    fn wake(&mut self, now: Instant) -> anyhow::Result<()> {
        if self.frozen_until.is_some_and(|until| until <= now) {
            self.frozen_until = None;
            self.pgbouncer.thaw()?;
        }
        Ok(())
    }
}

impl Nemesis<'_> {
    /// One more fault happened.
    pub(crate) fn did(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there have been enough faults.
    pub(crate) fn is_tired(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= MOST
    }

    /// A moment without faults.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        let pause = self.rng.random_range(10..120);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let now = Instant::now();
        for (_, connection) in self.stalled.extract_if(.., |(until, _)| *until <= now) {
            // A stall ends either way.
            if self.rng.random_bool(0.5) {
                connection.resume();
            } else {
                connection.cut();
            }
        }
        self.pooler.as_mut().map_or(Ok(()), |pooler| pooler.wake(now))
    }

    /// One fault of the server, of the pooler or of a connection.
    pub(crate) async fn strike(&mut self) -> anyhow::Result<()> {
        if let Some(pooler) = &mut self.pooler
            && self.rng.random_bool(0.2)
        {
            pooler.harm(&mut self.rng).await?;
            self.did();
            return Ok(());
        }
        match self.rng.random_range(0..10) {
            0..4 => self.terminate().await?,
            4..7 => {
                if let Some(connection) = self.connection() {
                    connection.cut();
                    self.did();
                }
            }
            7..9 => {
                if let Some(connection) = self.connection() {
                    connection.stall();
                    let time = Duration::from_millis(self.rng.random_range(200..1_500));
                    self.stalled.push((Instant::now() + time, connection));
                    self.did();
                }
            }
            _ if self.restarts > 0 => {
                self.restarts -= 1;
                self.server.restart(Shutdown::Immediate).await?;
                self.did();
            }
            _ => {}
        }
        Ok(())
    }

    fn connection(&mut self) -> Option<Connection> {
        let mut open = self.proxy.connections();
        if open.is_empty() {
            return None;
        }
        let chosen = self.rng.random_range(0..open.len());
        Some(open.swap_remove(chosen))
    }

    /// Ends one of the sessions at work for a run.
    async fn terminate(&mut self) -> anyhow::Result<()> {
        let end = "SELECT count(pg_terminate_backend(pid)) FROM (
             SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '/*confiture%'
              ORDER BY random() LIMIT 1) chosen";
        let ended = self.database.admin().await?.number(end).await?;
        self.count.fetch_add(u64::from(ended > 0), Ordering::Relaxed);
        Ok(())
    }

    /// No more faults: what stands still goes on.
    pub(crate) fn make_peace(&mut self) -> anyhow::Result<()> {
        self.proxy.at_commit(|_| AtCommit::Pass);
        for (_, connection) in self.stalled.drain(..) {
            connection.resume();
        }
        let now = Instant::now() + Duration::from_hours(1);
        self.pooler.as_mut().map_or(Ok(()), |pooler| pooler.wake(now))
    }
}
