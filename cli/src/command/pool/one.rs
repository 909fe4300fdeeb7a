//! The pool of one database in this process, beside what its server has room for.

use super::{Health, Stats, pools_json};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::target;
use agent::database::Database;
use agent::room;
use serde_json::{Value, json};
use shared::pool::{Fit, Pools, Room, Verdict};
use shared::rollout::work::Exit;
use shared::settings;

/// What is looked at.
pub(super) struct Look {
    database: Database,
    pool: settings::Pool,
    per_server: usize,
    format: Format,
}

impl Look {
    pub(super) fn new(of: &target::Of, global: &Global) -> Result<Self, Failure> {
        let settings = context::settings(global, Vec::new())?;
        Ok(Self {
            database: of.open(&settings)?,
            per_server: settings.agent.connections_per_server,
            pool: settings.connection.pool,
            format: global.output,
        })
    }

    pub(super) async fn go_on(&self, stats: &Stats) -> Result<Exit, Failure> {
        // As in a process that has work.
        let _at_work = self.database.at_work();
        self.database.warm().await?;
        tokio::select! {
            ended = stats.each(async || self.look().await) => ended,
            never = self.database.keep() => match never {},
        }
    }

    async fn look(&self) -> Result<Health, Failure> {
        let room = room::room(&self.database).await?;
        let pools = self.database.pools();
        let fit = Fit::of(&room, self.pool.max_size, self.per_server);
        match self.format {
            Format::Json => output::json(&self.json(&pools, &room, fit)),
            Format::Text => output::data(&self.text(&pools, &room, fit)),
        }
        let well = Verdict::of(&pools).is_healthy() && fit == Fit::Fits;
        Ok(if well { Health::Well } else { Health::Unwell })
    }

    fn text(&self, pools: &Pools, room: &Room, fit: Fit) -> String {
        let pool = &pools.transactions;
        let settings = &self.pool;
        let verdict = Verdict::of(pools);
        let (verdict, advice) = match fit {
            Fit::Fits => (verdict.to_string(), verdict.advice()),
            _ if verdict.is_healthy() => (fit.to_string(), fit.advice()),
            _ => (format!("{verdict}; {fit}"), fit.advice()),
        };
        let advice = advice.map_or(String::new(), |advice| format!("\n  help: {advice}"));
        format!(
            "Active connections: {}\nIdle connections: {}\nWaiting requests: {}\nTotal created: {}\nTotal recycled: {}\nMax size: {}\n\
             Database: {} at {}\n\
             Settings: min_size {}, max_size {}, max_idle_time {} s, max_lifetime {} s, wait_timeout {} s, connections_per_server {}\n\
             Server: {} of {} connections in use, {} reserved, {} left for this process{}\n\
             Verdict: {verdict}{advice}",
            pool.active,
            pool.idle,
            pool.waiting,
            pool.created,
            pool.recycled,
            pool.max,
            self.database.name(),
            self.database.address(),
            settings.min_size,
            settings.max_size,
            settings.max_idle_time.as_secs_f64(),
            settings.max_lifetime.as_secs_f64(),
            settings.wait_timeout.as_secs_f64(),
            self.per_server,
            room.used,
            room.max_connections,
            room.reserved,
            room.free(),
            limits(room),
        )
    }

    fn json(&self, pools: &Pools, room: &Room, fit: Fit) -> Value {
        let settings = &self.pool;
        let mut value = pools_json(pools);
        value["database"] = json!(self.database.name());
        value["address"] = json!(self.database.address());
        value["settings"] = json!({
            "min_size": settings.min_size,
            "max_size": settings.max_size,
            "max_idle_time_s": settings.max_idle_time.as_secs_f64(),
            "max_lifetime_s": settings.max_lifetime.as_secs_f64(),
            "wait_timeout_s": settings.wait_timeout.as_secs_f64(),
            "connections_per_server": self.per_server,
        });
        value["server"] = json!({
            "max_connections": room.max_connections,
            "reserved": room.reserved,
            "used": room.used,
            "free": room.free(),
            "role_limit": room.of_role,
            "database_limit": room.of_database,
            "fits": fit == Fit::Fits,
            "text": fit.to_string(),
            "advice": fit.advice(),
        });
        value
    }
}

/// The limits of the role and the database, where there are some.
fn limits(room: &Room) -> String {
    let limit = |of: &str, limit: Option<usize>| limit.map(|limit| format!("; the {of} may have {limit}"));
    [limit("role", room.of_role), limit("database", room.of_database)]
        .into_iter()
        .flatten()
        .collect()
}
