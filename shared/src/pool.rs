//! Pools of connections as they are seen from outside: what is counted, whether that is well, and what to change if not.

use std::fmt;
use std::time::Duration;

/// One pool at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Connections in use.
    pub active: usize,
    /// Open connections that nobody uses.
    pub idle: usize,
    /// Requests that wait for a connection; not those for which one is being opened.
    pub waiting: usize,
    /// Upper bound of the connections.
    pub max: usize,
    /// Opened since the process began.
    pub created: u64,
    /// Closed since then because they had reached their longest life.
    pub recycled: u64,
    /// Requests since then that got no connection: they waited for too long, or too many others did.
    pub given_up: u64,
    /// The longest that a request waited since then, the opening of its connection included.
    pub longest_wait: Duration,
}

/// The open connections that a process may have to one server, over all its databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// All.
    pub most: usize,
    /// Those that no connection has.
    pub free: usize,
}

/// The pools of one database in one process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pools {
    /// For transactions: the pool that the settings are about.
    pub transactions: Stats,
    /// For what cannot run in a transaction, such as builds of indexes; opened only for that.
    pub outside: Stats,
    /// On the server of the first; none where it is bounded by its pools alone.
    pub places: Option<Places>,
}

impl Stats {
    /// Open connections.
    pub fn size(&self) -> usize {
        self.active + self.idle
    }
}

/// Whether the pool of a database is well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody waits, not all connections are in use, and one is ready for the next request.
    Healthy,
    /// No connection is open and nobody asks for one: none is held without work.
    AtRest,
    /// All open ones are in use: the next request has to open one.
    NoneIdle {
        /// Open connections.
        size: usize,
    },
    /// As many as there may be are in use: the next request has to wait.
    Full {
        /// As many.
        max: usize,
    },
    /// Requests wait since as many as there may be are in use.
    Exhausted {
        /// Requests.
        waiting: usize,
        /// Connections.
        max: usize,
    },
    /// Requests wait for a place on the server, which other databases have.
    ServerFull {
        /// Requests.
        waiting: usize,
        /// Connections to the server.
        most: usize,
    },
    /// Requests wait although more connections might be open.
    Slow {
        /// Requests.
        waiting: usize,
    },
}

impl Verdict {
    /// About the pool for transactions.
    pub fn of(pools: &Pools) -> Self {
        let pool = &pools.transactions;
        let (waiting, max) = (pool.waiting, pool.max);
        let full = pools.places.filter(|places| places.free == 0);
        match (waiting, full) {
            (0, _) if pool.size() == 0 => Self::AtRest,
            (0, _) if pool.active >= max => Self::Full { max },
            (0, _) if pool.idle == 0 => Self::NoneIdle { size: pool.size() },
            (0, _) => Self::Healthy,
            _ if pool.active >= max => Self::Exhausted { waiting, max },
            (_, Some(places)) => Self::ServerFull {
                waiting,
                most: places.most,
            },
            (_, None) => Self::Slow { waiting },
        }
    }

    /// Whether nothing need be changed.
    pub fn is_healthy(&self) -> bool {
        self.advice().is_none()
    }

    /// What to change.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Healthy | Self::AtRest => None,
            Self::NoneIdle { size } => Some(format!(
                "if it stays so, raise connection.pool.min_size above {size}"
            )),
            Self::Full { max } | Self::Exhausted { max, .. } => Some(format!(
                "if it stays so, raise connection.pool.max_size above {max} as far as the server has room, or let less work at once"
            )),
            Self::ServerFull { most, .. } => Some(format!(
                "raise agent.connections_per_server above {most} as far as the server has room, or let fewer of its databases work at once (max_per_server of a rollout's policy)"
            )),
            Self::Slow { .. } => Some(
                "if it stays so, see whether the server or a pooler before it is slow to take connections"
                    .to_owned(),
            ),
        }
    }

    /// One word, for machines.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::AtRest => "at_rest",
            Self::NoneIdle { .. } => "none_idle",
            Self::Full { .. } => "full",
            Self::Exhausted { .. } => "exhausted",
            Self::ServerFull { .. } => "server_full",
            Self::Slow { .. } => "slow",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Healthy => f.write_str("healthy"),
            Self::AtRest => f.write_str("healthy: without work none is held open"),
            Self::NoneIdle { size } => write!(f, "no connection is idle: all {size} open ones are in use"),
            Self::Full { max } => write!(f, "all {max} connections are in use: the next request waits"),
            Self::Exhausted { waiting, max } => {
                write!(
                    f,
                    "exhausted: all {max} connections are in use, {}",
                    wait(*waiting)
                )
            }
            Self::ServerFull { waiting, most } => write!(
                f,
                "the server is full: all {most} connections that the agent may have to it are in use, {}",
                wait(*waiting)
            ),
            Self::Slow { waiting } => write!(f, "{} although more connections may be open", wait(*waiting)),
        }
    }
}

fn wait(requests: usize) -> String {
    match requests {
        1 => "1 request waits".to_owned(),
        _ => format!("{requests} requests wait"),
    }
}

/// What a server has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// `max_connections`.
    pub max_connections: usize,
    /// Of those, kept for superusers and privileged roles, where ours is none.
    pub reserved: usize,
    /// Connections in use, over all databases and everybody.
    pub used: usize,
    /// Of those, ours.
    pub ours: usize,
    /// The most that this role may have, where that is bounded.
    pub of_role: Option<usize>,
    /// The most that this database may have, where that is bounded.
    pub of_database: Option<usize>,
}

impl Room {
    /// What is left for us on the server.
    pub fn free(&self) -> usize {
        let taken = self.reserved + self.used.saturating_sub(self.ours);
        self.max_connections.saturating_sub(taken)
    }
}

/// Whether settings go together with what a server has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// They do.
    Fits,
    /// One pool may grow beyond what the server has left.
    PoolTooLarge {
        /// `connection.pool.max_size`.
        max_size: usize,
        /// What is left.
        free: usize,
    },
    /// .. beyond what the role, or the database, may have.
    AboveLimit {
        /// `connection.pool.max_size`.
        max_size: usize,
        /// `CONNECTION LIMIT` of the role or the database.
        limit: usize,
    },
    /// All pools of an agent may.
    AgentTooLarge {
        /// `agent.connections_per_server`.
        most: usize,
        /// What is left.
        free: usize,
    },
}

impl Fit {
    /// Of a pool's `max_size`, and an agent's `connections_per_server`.
    pub fn of(room: &Room, max_size: usize, per_server: usize) -> Self {
        let limit = room.of_role.into_iter().chain(room.of_database).min();
        let free = room.free();
        match limit {
            Some(limit) if max_size > limit && limit <= free => Self::AboveLimit { max_size, limit },
            _ if max_size > free => Self::PoolTooLarge { max_size, free },
            _ if per_server > free => Self::AgentTooLarge {
                most: per_server,
                free,
            },
            _ => Self::Fits,
        }
    }

    /// What to change; none where it fits.
    pub fn advice(&self) -> Option<String> {
        match self {
            Self::Fits => None,
            Self::PoolTooLarge { free, .. } => Some(lower("connection.pool.max_size", *free)),
            Self::AboveLimit { limit, .. } => Some(format!(
                "lower connection.pool.max_size to {limit}, or raise the CONNECTION LIMIT (ALTER ROLE, ALTER DATABASE)"
            )),
            Self::AgentTooLarge { free, .. } => Some(lower("agent.connections_per_server", *free)),
        }
    }
}

fn lower(key: &str, free: usize) -> String {
    match free {
        0 | 1 => "raise max_connections of the server, or see who has its connections (pg_stat_activity)"
            .to_owned(),
        _ => format!("lower {key} to {free}, or raise max_connections of the server"),
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fits => f.write_str("the server has room"),
            Self::PoolTooLarge { max_size, free } => write!(
                f,
                "connection.pool.max_size is {max_size}, and the server has {free} connections left"
            ),
            Self::AboveLimit { max_size, limit } => write!(
                f,
                "connection.pool.max_size is {max_size}, and this role or this database may have {limit}"
            ),
            Self::AgentTooLarge { most, free } => write!(
                f,
                "agent.connections_per_server is {most}, and the server has {free} connections left"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(active: usize, idle: usize, waiting: usize, free: Option<usize>) -> Pools {
        Pools {
            transactions: Stats {
                active,
                idle,
                waiting,
                max: 10,
                ..Stats::default()
            },
            places: free.map(|free| Places { most: 20, free }),
            ..Pools::default()
        }
    }

    #[test]
    fn what_the_guide_calls_healthy_is_and_all_else_says_what_to_change() {
        let of = |active, idle, waiting, free| Verdict::of(&pools(active, idle, waiting, free));
        assert_eq!(of(0, 2, 0, None), Verdict::Healthy);
        assert_eq!(of(9, 1, 0, Some(0)), Verdict::Healthy);
        assert_eq!(of(0, 0, 0, Some(0)), Verdict::AtRest);
        assert_eq!(of(3, 0, 0, Some(5)), Verdict::NoneIdle { size: 3 });
        assert_eq!(of(10, 0, 0, None), Verdict::Full { max: 10 });
        let (waiting, max) = (490, 10);
        assert_eq!(of(10, 0, waiting, Some(0)), Verdict::Exhausted { waiting, max });
        let full = Verdict::ServerFull { waiting: 3, most: 20 };
        assert_eq!(of(4, 0, 3, Some(0)), full);
        assert_eq!(of(0, 0, 3, Some(0)), full);
        assert_eq!(of(4, 0, 3, Some(2)), Verdict::Slow { waiting: 3 });
        assert_eq!(of(4, 0, 3, None), Verdict::Slow { waiting: 3 });
    }

    #[test]
    fn a_verdict_names_the_setting_to_change_and_its_value() {
        let of = |active, waiting, free| {
            let verdict = Verdict::of(&pools(active, 0, waiting, free));
            (verdict.to_string(), verdict.advice().unwrap_or_default())
        };
        let (said, advice) = of(10, 1, None);
        assert!(
            said.ends_with("all 10 connections are in use, 1 request waits"),
            "{said}"
        );
        assert!(advice.contains("connection.pool.max_size above 10"), "{advice}");
        let (said, advice) = of(4, 2, Some(0));
        assert!(said.ends_with("2 requests wait"), "{said}");
        assert!(
            advice.contains("agent.connections_per_server above 20"),
            "{advice}"
        );
        let (_, advice) = of(3, 0, Some(0));
        assert!(advice.contains("connection.pool.min_size above 3"), "{advice}");
    }

    #[test]
    fn settings_fit_where_the_server_the_role_and_the_database_have_room() {
        let room = Room {
            max_connections: 100,
            reserved: 3,
            used: 60,
            ours: 2,
            of_role: None,
            of_database: None,
        };
        assert_eq!(room.free(), 39);
        assert_eq!(Fit::of(&room, 10, 20), Fit::Fits);
        assert_eq!(Fit::of(&room, 39, 39), Fit::Fits);
        let (max_size, free) = (40, 39);
        assert_eq!(Fit::of(&room, max_size, 20), Fit::PoolTooLarge { max_size, free });
        assert_eq!(Fit::of(&room, 10, 40), Fit::AgentTooLarge { most: 40, free });
        let limited = Room {
            of_role: Some(8),
            of_database: Some(9),
            ..room
        };
        let (max_size, limit) = (10, 8);
        assert_eq!(
            Fit::of(&limited, max_size, 20),
            Fit::AboveLimit { max_size, limit }
        );
        let crowded = Room { used: 99, ..limited };
        let none = Fit::of(&crowded, 10, 20);
        assert_eq!(none, Fit::PoolTooLarge { max_size, free: 0 });
        assert!(none.advice().unwrap().starts_with("raise max_connections"));
    }
}
