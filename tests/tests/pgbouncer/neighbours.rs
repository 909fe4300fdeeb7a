//! Other clients of a pool, who look with each statement whether the session that they are lent is as it should be.

use anyhow::{Context as _, ensure};
use std::time::Duration;
use tests::postgres::Session;
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;
use tokio_util::sync::CancellationToken;

/// As many as the pool has connections: all of its sessions are looked at.
const CLIENTS: usize = 2;

/// What a session must be, as one row of texts. Without parameters: a neighbour prepares nothing.
const LOOK: &str = "SELECT concat_ws(' | ',
  current_setting('lock_timeout'), current_setting('statement_timeout'),
  current_setting('idle_in_transaction_session_timeout'), current_setting('search_path'),
  current_setting('application_name'), current_setting('default_transaction_isolation'),
  current_setting('default_transaction_read_only'), current_setting('default_transaction_deferrable'),
  current_setting('synchronous_commit'), current_setting('DateStyle'), current_setting('IntervalStyle'),
  current_setting('row_security'), current_setting('vacuum_cost_delay'),
  coalesce(current_setting('client_connection_check_interval', true), '0'),
  coalesce(nullif(current_setting('confiture.session', true), ''), 'no mark'), current_user::text,
  (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_cursors),
  (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()),
  (SELECT count(*) FROM pg_listening_channels()),
  (SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'))";

/// What that row says in a session in which nobody has set anything.
const OWN: &str = r#"0 | 0 | 0 | "$user", public | shop | read committed | off | off | on | ISO, MDY | postgres | on | 0 | 0 | no mark | confiture | 0 | 0 | 0 | 0 | 0"#;

/// Some clients at work until they are asked what they have seen.
pub(crate) struct Neighbours {
    clients: JoinSet<anyhow::Result<()>>,
    stop: CancellationToken,
}

impl Neighbours {
    pub(crate) async fn start(url: &str) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let session = Session::open(&format!("{url}?application_name=shop")).await?;
            clients.spawn(look(session, stop.clone()));
        }
        Ok(Self { clients, stop })
    }

    /// That they have seen nothing but what is their own.
    pub(crate) async fn saw_nothing(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(seen) = self.clients.join_next().await {
            seen.context("a neighbour panicked")??;
        }
        Ok(())
    }
}

/// Alternates between single statements and transactions; after each some rest, in which we are lent the session.
async fn look(session: Session, stop: CancellationToken) -> anyhow::Result<()> {
    for turn in 0.. {
        if stop.is_cancelled() && turn > CLIENTS {
            break;
        }
        let in_transaction = turn % 2 == 1;
        if in_transaction {
            session.batch_execute("BEGIN").await?;
        }
        let answer = session.simple_query(LOOK).await?;
        if in_transaction {
            // Held, so that the others are lent the pool's other session.
            tokio::time::sleep(Duration::from_millis(3)).await;
            session.batch_execute("COMMIT").await?;
        }
        let row = answer.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.context("a look gave no row")?;
        let found = row.get(0).unwrap_or_default();
        ensure!(
            found == OWN,
            "a neighbour found somebody else's session:\n{found}\ninstead of\n{OWN}"
        );
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}
