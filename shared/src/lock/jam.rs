//! Who waits for whom, as a tree: under each session those who wait for it.

use super::blocker::Blocker;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// A session that waits for a lock.
#[derive(Debug, Clone, PartialEq)]
pub struct Waiting {
    /// Its process.
    pub pid: i32,
    /// Its role.
    pub user: Option<String>,
    /// Its `application_name`.
    pub application: Option<String>,
    /// What kind of thing it waits for, as `pg_locks` spells it.
    pub lock_type: String,
    /// The mode it asks for.
    pub mode: String,
    /// What it waits for.
    pub object: String,
    /// For how long, in seconds.
    pub waited: Option<f64>,
    /// How long its transaction has been open, in seconds.
    pub age: Option<f64>,
    /// The beginning of its statement.
    pub query: Option<String>,
    /// Whom it waits for; 0 is a prepared transaction.
    pub blocked_by: Vec<i32>,
}

/// All who wait in one database, and those whom they wait for and who do not wait themselves.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Jam {
    /// Those who wait longest first.
    pub waiting: Vec<Waiting>,
    /// Oldest transactions first.
    pub holders: Vec<Blocker>,
}

impl Jam {
    /// Under each holder those who wait for it, and under each of them those who wait for them. Who waits for several is
    /// put under the one next before it in the queue.
    pub fn tree(&self) -> String {
        let mut children: BTreeMap<i32, Vec<&Waiting>> = BTreeMap::new();
        for waiting in &self.waiting {
            if let Some(parent) = self.parent(waiting) {
                children.entry(parent).or_default().push(waiting);
            }
        }
        let mut text = String::new();
        let mut seen = BTreeSet::new();
        for holder in &self.holders {
            let pid = holder.pid.unwrap_or(0);
            let _ = writeln!(text, "{holder}");
            if seen.insert(pid) {
                under(&children, pid, 1, &mut seen, &mut text);
            }
        }
        // What is left waits in a circle, which PostgreSQL ends after `deadlock_timeout`, or for somebody who has just gone.
        for waiting in &self.waiting {
            if seen.insert(waiting.pid) {
                let _ = writeln!(text, "{}", line(waiting));
                under(&children, waiting.pid, 1, &mut seen, &mut text);
            }
        }
        text
    }

    fn parent(&self, waiting: &Waiting) -> Option<i32> {
        let ahead = |pid: &i32| {
            let other = self.waiting.iter().find(|other| other.pid == *pid)?;
            Some((other.waited.unwrap_or_default(), *pid))
        };
        let next = (waiting.blocked_by.iter())
            .filter_map(ahead)
            .min_by(|a, b| a.0.total_cmp(&b.0));
        next.map(|(_, pid)| pid)
            .or_else(|| waiting.blocked_by.first().copied())
    }
}

fn under(
    children: &BTreeMap<i32, Vec<&Waiting>>,
    pid: i32,
    depth: usize,
    seen: &mut BTreeSet<i32>,
    text: &mut String,
) {
    for waiting in children.get(&pid).into_iter().flatten() {
        if seen.insert(waiting.pid) {
            let _ = writeln!(text, "{:width$}{}", "", line(waiting), width = 2 * depth);
            under(children, waiting.pid, depth + 1, seen, text);
        }
    }
}

fn line(waiting: &Waiting) -> String {
    let query = waiting.query.as_deref().unwrap_or_default();
    format!(
        "pid {} has waited {:.1} s for {} on {}: {}",
        waiting.pid,
        waiting.waited.unwrap_or_default(),
        waiting.mode,
        waiting.object,
        query.split_whitespace().collect::<Vec<_>>().join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::super::blocker::Kind;
    use super::*;

    fn waiting(pid: i32, waited: f64, blocked_by: &[i32]) -> Waiting {
        Waiting {
            pid,
            user: None,
            application: None,
            lock_type: "relation".to_owned(),
            mode: "AccessShareLock".to_owned(),
            object: "orders".to_owned(),
            waited: Some(waited),
            age: None,
            query: Some(format!("SELECT\n {pid}")),
            blocked_by: blocked_by.to_vec(),
        }
    }

    fn holder(pid: i32) -> Blocker {
        Blocker {
            kind: Kind::Session,
            pid: Some(pid),
            user: Some("app".to_owned()),
            application: None,
            state: Some("idle in transaction".to_owned()),
            age: Some(31.0),
            query: Some("SELECT 1".to_owned()),
        }
    }

    fn shape(jam: &Jam) -> Vec<String> {
        let tree = jam.tree();
        let short = |line: &str| {
            let indent = line.len() - line.trim_start().len();
            let pid = line.split_whitespace().nth(1).unwrap_or_default();
            format!("{}{}", " ".repeat(indent), pid.trim_end_matches(','))
        };
        tree.lines().map(short).collect()
    }

    #[test]
    fn who_waits_stands_under_the_one_next_before_it() {
        let jam = Jam {
            waiting: vec![
                waiting(2, 3.0, &[1]),
                waiting(3, 2.0, &[2]),
                waiting(4, 1.0, &[1, 2, 3]),
            ],
            holders: vec![holder(1)],
        };
        assert_eq!(shape(&jam), ["1", "  2", "    3", "      4"]);
        assert!(
            jam.tree()
                .contains("pid 3 has waited 2.0 s for AccessShareLock on orders: SELECT 3")
        );
    }

    #[test]
    fn a_circle_and_those_whose_holder_has_gone_are_told_once() {
        let jam = Jam {
            waiting: vec![
                waiting(1, 2.0, &[2]),
                waiting(2, 1.0, &[1]),
                waiting(3, 1.0, &[9]),
            ],
            holders: Vec::new(),
        };
        assert_eq!(shape(&jam), ["1", "  2", "3"]);
    }
}
