//! A VACUUM between batches: plain, so that applications read and write meanwhile, and never with the exclusive lock for
//! which PostgreSQL asks to cut empty blocks off.

use super::milliseconds;
use std::time::Duration;

/// A table's owner, the database's owner and, from this version on, who has the privilege MAINTAIN may vacuum it.
const MAINTAIN: u32 = 170_000;

/// Whether our role may vacuum a relation: one boolean, or no row where it is gone. To others VACUUM gives a warning and
/// success. Parameter: the relation (oid).
pub fn allowed(server_version: u32) -> String {
    let maintains = if server_version >= MAINTAIN {
        " OR pg_catalog.has_table_privilege(c.oid, 'MAINTAIN')"
    } else {
        ""
    };
    format!(
        "SELECT pg_catalog.pg_has_role(c.relowner, 'USAGE') OR pg_catalog.pg_has_role(d.datdba, 'USAGE'){maintains} \
         FROM pg_catalog.pg_class c, pg_catalog.pg_database d \
         WHERE c.oid = $1 AND d.datname = pg_catalog.current_database()"
    )
}

/// What a connection for a VACUUM is opened with, as the `options` of libpq. A VACUUM runs in no transaction, so its
/// settings are the session's, and such a session must not be a pooler's. It takes as long as it takes.
pub fn options(lock: Duration, cost_delay: Duration) -> String {
    format!(
        "-c lock_timeout={} -c statement_timeout=0 -c vacuum_cost_delay={}us",
        milliseconds(lock),
        cost_delay.as_micros().min(100_000)
    )
}

/// Who the session is: its backend (int4).
pub const BACKEND: &str = "SELECT pg_catalog.pg_backend_pid()";

/// Lets the server notice by itself that its client is gone; only on a session that is ours alone. Not before PostgreSQL 14, and not on every platform.
pub const NOTICE_THE_END: &str = "SET client_connection_check_interval = '1s'";

/// The statement. `relation` is quoted in full. Workers of a parallel one would be sessions that nobody counts.
pub fn vacuum(relation: &str) -> String {
    format!("VACUUM (TRUNCATE false, PARALLEL 0) {relation}")
}

/// Ends a VACUUM of ours. Parameters: its backend (int4), what its statement begins with (text). A row while it runs.
pub const CANCEL: &str = r"
SELECT pg_catalog.pg_cancel_backend(pid) FROM pg_catalog.pg_stat_activity
 WHERE pid = $1 AND pg_catalog.starts_with(query, $2) AND state <> 'idle'
   AND datname = pg_catalog.current_database()";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_is_asked_as_the_version_has_it() {
        assert!(!allowed(160_004).contains("MAINTAIN"));
        assert!(allowed(170_000).contains("MAINTAIN"));
    }

    #[test]
    fn it_asks_for_no_exclusive_lock() {
        assert_eq!(
            vacuum("\"s\".\"t\""),
            "VACUUM (TRUNCATE false, PARALLEL 0) \"s\".\"t\""
        );
    }

    #[test]
    fn settings_carry_their_units() {
        assert_eq!(
            options(Duration::from_millis(300), Duration::from_micros(2_500)),
            "-c lock_timeout=300 -c statement_timeout=0 -c vacuum_cost_delay=2500us"
        );
    }
}
