//! An agent, and the databases it serves.

use super::daemon::Daemon;
use crate::postgres::{Database, Server};
use crate::process::Confiture;
use serde_json::{Value, json};
use std::ops::{Deref, DerefMut};

/// A database under its name in the fleet.
#[derive(Debug, Clone)]
pub struct Member {
    /// The fleet's name for it.
    pub name: String,
    /// Where it is.
    pub database: Database,
    /// What selectors choose by.
    pub labels: Vec<(String, String)>,
}

/// Creates `names` on a server; each is a member under the same name, without labels.
pub async fn members(server: &Server, names: &[&str]) -> anyhow::Result<Vec<Member>> {
    let mut members = Vec::new();
    for name in names {
        members.push(Member::new(name, server.database(name).await?));
    }
    Ok(members)
}

impl Member {
    /// Without labels.
    pub fn new(name: &str, database: Database) -> Self {
        Self {
            name: name.to_owned(),
            database,
            labels: Vec::new(),
        }
    }

    /// With one more label.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.push((key.to_owned(), value.to_owned()));
        self
    }

    fn settings(&self) -> Value {
        let labels: serde_json::Map<_, _> = self
            .labels
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        json!({ "name": self.name, "url": self.database.url(), "labels": labels })
    }
}

/// A running (or killed) agent; its process is the [`Daemon`] it derefs to.
#[derive(Debug)]
pub struct Agent {
    daemon: Daemon,
}

impl Agent {
    /// Starts one that serves `members` for the coordinators at these URLs.
    pub fn start(id: &str, coordinators: &[&str], members: &[Member]) -> anyhow::Result<Self> {
        Self::start_with(id, coordinators, members, |_| {})
    }

    /// Starts one whose settings are changed first.
    pub fn start_with(
        id: &str,
        coordinators: &[&str],
        members: &[Member],
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        Self::start_program(&Confiture::default(), id, coordinators, members, change)
    }

    /// Starts one of another build, or with an environment: a call without arguments.
    pub fn start_program(
        program: &Confiture,
        id: &str,
        coordinators: &[&str],
        members: &[Member],
        change: impl FnOnce(&mut Value),
    ) -> anyhow::Result<Self> {
        let databases: Vec<Value> = members.iter().map(Member::settings).collect();
        let mut settings =
            json!({ "agent": { "id": id, "coordinator": coordinators }, "databases": databases });
        change(&mut settings);
        let mut daemon = Daemon::new(program, id, "agent", &settings)?;
        daemon.launch(&[])?;
        Ok(Self { daemon })
    }

    /// Starts it again with its old settings.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.daemon.launch(&[])
    }
}

impl Deref for Agent {
    type Target = Daemon;
    fn deref(&self) -> &Daemon {
        &self.daemon
    }
}

impl DerefMut for Agent {
    fn deref_mut(&mut self) -> &mut Daemon {
        &mut self.daemon
    }
}
