//! Rollouts and events for tests.

use super::control::Verb;
use super::event::Event;
use super::machine::Rollout;
use super::message::Hello;
use super::policy::Policy;
use super::selector::Selector;
use super::spec::Spec;
use super::time::Time;
use super::waves::Wave;
use super::work::{Aim, Exit, Failure, Finish};
use crate::id::{AgentId, DatabaseName, Digest, Holder, Instance, RequestId, RolloutId, SetName};
use crate::retry::Retryability;
use std::collections::BTreeMap;
use std::time::Duration;
use uuid::Uuid;

pub(crate) fn agent(name: &str) -> AgentId {
    AgentId::try_from(name).unwrap()
}

pub(crate) fn database(name: &str) -> DatabaseName {
    DatabaseName::try_from(name).unwrap()
}

/// An agent that comes for the first time.
pub(crate) fn hello<'a>(name: &str, databases: impl IntoIterator<Item = &'a str>) -> Hello {
    Hello {
        agent: agent(name),
        instance: Instance(Uuid::nil()),
        version: "1".to_owned(),
        databases: databases
            .into_iter()
            .map(|name| (database(name), BTreeMap::new()))
            .collect(),
        lease: None,
        held: Vec::new(),
    }
}

pub(crate) fn spec(number: u64, databases: &[&str], policy: Policy) -> Spec {
    Spec {
        id: RolloutId::try_from(format!("r{number}")).unwrap(),
        request: RequestId::try_from(format!("q{number}")).unwrap(),
        number,
        set: SetName::default_set(),
        bundle: Digest::of(&number.to_be_bytes()),
        versions: vec!["001".parse().unwrap()],
        aim: Aim::Apply,
        selector: Selector::All,
        policy,
        created_by: "ada".to_owned(),
        reason: String::new(),
        created_at: Time(0),
        trace: None,
        waves: vec![wave("rest", databases)],
    }
}

pub(crate) fn wave(name: &str, databases: &[&str]) -> Wave {
    Wave {
        name: name.to_owned(),
        databases: databases.iter().map(|name| database(name)).collect(),
        soak: Duration::ZERO,
        approval: false,
        failure_budget: None,
        checks: Vec::new(),
    }
}

pub(crate) fn asked(verb: Verb) -> Event {
    Event::Asked {
        verb,
        by: "ada".to_owned(),
        reason: "why not".to_owned(),
    }
}

pub(crate) fn rollout(number: u64, databases: &[&str], policy: Policy) -> Rollout {
    Rollout::new(spec(number, databases, policy))
}

pub(crate) fn failure(retry: Retryability) -> Failure {
    Failure {
        message: "it broke".to_owned(),
        retry,
        exit: Exit::Failed,
    }
}

pub(crate) fn leased(name: &str, by: &str) -> Event {
    Event::Leased {
        database: database(name),
        agent: agent(by),
        lease: 1,
        server: None,
        holder: Holder(Uuid::from_u128(1)),
    }
}

pub(crate) fn granted(name: &str, token: i64) -> Event {
    Event::Granted {
        database: database(name),
        token,
    }
}

pub(crate) fn finished(name: &str, token: i64, finish: Finish) -> Event {
    Event::Finished {
        database: database(name),
        token,
        finish,
        progress: None,
    }
}

pub(crate) fn look_failed(name: &str) -> Event {
    Event::LookFailed {
        database: database(name),
        agent: agent("a"),
        failure: failure(Retryability::GiveUp),
    }
}

pub(crate) fn up_to_date(name: &str) -> Event {
    Event::FoundUpToDate {
        database: database(name),
        agent: agent("a"),
    }
}
