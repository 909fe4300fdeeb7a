//! Ends sessions in the way that belong to a class which the operator said may be ended: idle in a transaction for long.
//!
//! Only those that a look in this database named are ever asked about, and the server checks each again in the statement
//! that ends it.

use super::Locks;
use crate::error::Error;
use crate::run::Run;
use shared::lock::{Ended, Kind};
use shared::sql::{Tag, lock};
use tokio_postgres::types::{ToSql, Type};

impl Locks {
    /// Ends those of the blockers seen last that may be ended. One that our role may not end is told once.
    pub(super) async fn cancel(&mut self, run: &mut Run<'_>, tag: &Tag) -> Result<(), Error> {
        let Some(idle) = self.cancel_idle else {
            return Ok(());
        };
        let sessions = self
            .blockers
            .iter()
            .filter(|blocker| blocker.kind == Kind::Session);
        let pids: Vec<i32> = sessions.filter_map(|blocker| blocker.pid).collect();
        if pids.is_empty() {
            return Ok(());
        }
        let seconds = idle.as_secs_f64();
        let params = [
            (&pids as &(dyn ToSql + Sync), Type::INT4_ARRAY),
            (&seconds, Type::FLOAT8),
        ];
        let rows = {
            let session = run.database.session().await?;
            let doing = "ending sessions that are idle in a transaction";
            session.query(tag, doing, lock::END_IDLE, &params).await?
        };
        for row in &rows {
            let ended = Ended {
                pid: row.get(0),
                user: row.get(1),
                application: row.get(2),
                idle: row.get(3),
                age: row.get(4),
                query: row.get(5),
                limit: idle,
            };
            match row.get::<_, Option<bool>>(6) {
                Some(true) => {
                    tracing::warn!(database = %run.database.name(), session = %ended, "a session in the way was ended");
                    run.locks.ended.push(ended);
                }
                None if self.forbidden.insert(ended.pid) => tracing::warn!(
                    database = %run.database.name(), pid = ended.pid, user = ended.user,
                    "a session in the way may not be seen or ended by this role: that needs the session's own role, or pg_signal_backend with pg_read_all_stats; it is waited for"
                ),
                // It has gone by itself, or was told of.
                Some(false) | None => {}
            }
        }
        Ok(())
    }
}
