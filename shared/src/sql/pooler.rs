//! How a server session of our own is told from one that a pooler lends us for a transaction.
//!
//! A connection is opened with a mark, in a parameter of ours. PostgreSQL keeps it in the session. A pooler refuses such
//! a parameter or leaves it out, and where it passed one on, a session that it lends has somebody else's mark or is lent
//! to others later with ours: so marks are random. Nothing is set on a session that is open, so nothing stays behind.

/// The mark as an option of libpq.
pub fn option(mark: &str) -> String {
    format!("-c confiture.session={mark}")
}

/// The mark of the session that answers (text); NULL where it has none.
pub const MARK: &str = "SELECT pg_catalog.current_setting('confiture.session', true)";
