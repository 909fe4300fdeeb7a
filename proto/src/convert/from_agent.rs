//! What an agent says, on the wire.

use super::work::{
    finish_from_wire, finish_to_wire, look_from_wire, look_to_wire, progress_from_wire, progress_to_wire,
};
use super::{Error, inquiry, name, required, story, uuid};
use crate::v1::{self, agent_message::Message};
use shared::id::Instance;
use shared::rollout::message::{FromAgent, Hello, Holding, Located};
use shared::rollout::work::Identity;
use std::collections::BTreeMap;

/// As sent.
pub fn to_wire(message: FromAgent) -> v1::AgentMessage {
    let message = match message {
        FromAgent::Hello(hello) => Message::Hello(hello_to_wire(hello)),
        FromAgent::Heartbeat { sequence, lease } => Message::Heartbeat(v1::Heartbeat {
            sequence,
            lease_id: lease,
        }),
        FromAgent::Inventory(located) => Message::Inventory(v1::Inventory {
            entries: located.into_iter().map(located_to_wire).collect(),
        }),
        FromAgent::Looked {
            look,
            database,
            result,
        } => Message::LookResult(v1::LookResult {
            look_id: look,
            database: database.into(),
            result: Some(look_to_wire(result)),
        }),
        FromAgent::Progress { of, progress } => Message::Progress(v1::ProgressReport {
            rollout: of.rollout.into(),
            database: of.database.into(),
            token: of.token,
            progress: Some(progress_to_wire(progress)),
        }),
        FromAgent::Finished { of, finish } => {
            let (outcome, spent) = finish_to_wire(finish);
            Message::Finished(v1::Finished {
                rollout: of.rollout.into(),
                database: of.database.into(),
                token: of.token,
                outcome: Some(outcome),
                spent,
            })
        }
        FromAgent::Answered {
            inquiry,
            database,
            result,
        } => Message::Inquiry(inquiry::report_to_wire(inquiry, database, result)),
        FromAgent::Told { of, story } => Message::Told(v1::Told {
            rollout: of.rollout.into(),
            database: of.database.into(),
            token: of.token,
            story: Some(story::to_wire(story)),
        }),
        FromAgent::Leaving => Message::Leaving(v1::Leaving {}),
    };
    v1::AgentMessage {
        message: Some(message),
    }
}

/// As received.
pub fn from_wire(wire: v1::AgentMessage) -> Result<FromAgent, Error> {
    Ok(match required("message", wire.message)? {
        Message::Hello(hello) => FromAgent::Hello(hello_from_wire(hello)?),
        Message::Heartbeat(beat) => FromAgent::Heartbeat {
            sequence: beat.sequence,
            lease: beat.lease_id,
        },
        Message::Inventory(inventory) => FromAgent::Inventory(
            inventory
                .entries
                .into_iter()
                .map(located_from_wire)
                .collect::<Result<_, _>>()?,
        ),
        Message::LookResult(looked) => FromAgent::Looked {
            look: looked.look_id,
            database: name("look_result.database", looked.database)?,
            result: look_from_wire(required("look_result.result", looked.result)?)?,
        },
        Message::Progress(report) => FromAgent::Progress {
            of: holding(report.rollout, report.database, report.token)?,
            progress: progress_from_wire(required("progress.progress", report.progress)?)?,
        },
        Message::Finished(finished) => FromAgent::Finished {
            of: holding(finished.rollout, finished.database, finished.token)?,
            finish: finish_from_wire(finished.outcome, finished.spent)?,
        },
        Message::Inquiry(report) => FromAgent::Answered {
            inquiry: report.inquiry_id,
            database: name("inquiry.database", report.database)?,
            result: inquiry::answer_from_wire(report.result)?,
        },
        Message::Told(told) => FromAgent::Told {
            of: holding(told.rollout, told.database, told.token)?,
            story: story::from_wire(required("told.story", told.story)?)?,
        },
        Message::Leaving(v1::Leaving {}) => FromAgent::Leaving,
    })
}

pub(super) fn holding(rollout: String, database: String, token: i64) -> Result<Holding, Error> {
    Ok(Holding {
        rollout: name("rollout", rollout)?,
        database: name("database", database)?,
        token,
    })
}

fn hello_to_wire(hello: Hello) -> v1::Hello {
    let databases = hello
        .databases
        .into_iter()
        .map(|(name, labels)| v1::ServedDatabase {
            name: name.into(),
            labels: labels.into_iter().collect(),
        });
    let held = hello.held.into_iter().map(|held| v1::HeldAssignment {
        rollout: held.rollout.into(),
        database: held.database.into(),
        token: held.token,
    });
    v1::Hello {
        agent_id: hello.agent.into(),
        instance: hello.instance.to_string(),
        version: hello.version,
        databases: databases.collect(),
        lease_id: hello.lease.unwrap_or(0),
        held: held.collect(),
    }
}

fn hello_from_wire(wire: v1::Hello) -> Result<Hello, Error> {
    let mut databases = BTreeMap::new();
    for served in wire.databases {
        databases.insert(
            name("hello.databases.name", served.name)?,
            served.labels.into_iter().collect(),
        );
    }
    let held = wire
        .held
        .into_iter()
        .map(|held| holding(held.rollout, held.database, held.token));
    Ok(Hello {
        agent: name("hello.agent_id", wire.agent_id)?,
        instance: Instance(uuid("hello.instance", &wire.instance)?),
        version: wire.version,
        databases,
        lease: Some(wire.lease_id).filter(|lease| *lease != 0),
        held: held.collect::<Result<_, _>>()?,
    })
}

fn located_to_wire(located: Located) -> v1::InventoryEntry {
    let database = located.database.into();
    match located.identity {
        Ok(identity) => v1::InventoryEntry {
            database,
            system_identifier: identity.system,
            database_oid: identity.database,
            problem: String::new(),
            fence_epoch: located.epoch.unwrap_or(0),
        },
        Err(problem) => v1::InventoryEntry {
            database,
            system_identifier: 0,
            database_oid: 0,
            fence_epoch: 0,
            // An empty text would read as "could be asked".
            problem: if problem.is_empty() {
                "the database could not be asked".to_owned()
            } else {
                problem
            },
        },
    }
}

fn located_from_wire(wire: v1::InventoryEntry) -> Result<Located, Error> {
    let epoch = Some(wire.fence_epoch).filter(|epoch| *epoch != 0);
    let identity = if wire.problem.is_empty() {
        Ok(Identity {
            system: wire.system_identifier,
            database: wire.database_oid,
        })
    } else {
        Err(wire.problem)
    };
    Ok(Located {
        database: name("inventory.database", wire.database)?,
        identity,
        epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::{AgentId, DatabaseName, RolloutId};
    use shared::rollout::work::{Finish, Look, Progress, Summary};

    fn database() -> DatabaseName {
        DatabaseName::try_from("orders").unwrap()
    }

    fn of() -> Holding {
        Holding {
            rollout: RolloutId::from_random(7),
            database: database(),
            token: 42,
        }
    }

    #[test]
    fn every_message_of_an_agent_survives_the_wire() {
        let labels = BTreeMap::from([("env".to_owned(), "prod".to_owned())]);
        let hello = Hello {
            agent: AgentId::try_from("a").unwrap(),
            instance: Instance(::uuid::Uuid::from_u128(5)),
            version: "0.1.0".to_owned(),
            databases: BTreeMap::from([(database(), labels)]),
            lease: Some(9),
            held: vec![of()],
        };
        let messages = [
            FromAgent::Hello(hello.clone()),
            FromAgent::Hello(Hello {
                lease: None,
                held: Vec::new(),
                ..hello
            }),
            FromAgent::Heartbeat {
                sequence: 3,
                lease: 9,
            },
            FromAgent::Inventory(vec![
                Located {
                    database: database(),
                    identity: Ok(Identity {
                        system: -5,
                        database: 16_384,
                    }),
                    epoch: None,
                },
                Located {
                    database: database(),
                    identity: Err("connection refused".to_owned()),
                    epoch: None,
                },
            ]),
            FromAgent::Looked {
                look: 1,
                database: database(),
                result: Look::Held { by: "x".to_owned() },
            },
            FromAgent::Progress {
                of: of(),
                progress: Progress::default(),
            },
            FromAgent::Told {
                of: of(),
                story: story::sample(),
            },
            FromAgent::Leaving,
            FromAgent::Answered {
                inquiry: 7,
                database: database(),
                result: Err("server down".to_owned()),
            },
            FromAgent::Finished {
                of: of(),
                finish: Finish::Stopped(Summary::default()),
            },
        ];
        for message in messages {
            assert_eq!(from_wire(to_wire(message.clone())).unwrap(), message);
        }
    }

    #[test]
    fn an_empty_message_is_refused() {
        assert!(from_wire(v1::AgentMessage::default()).is_err());
    }

    #[test]
    fn a_hello_without_an_instance_is_refused() {
        let hello = v1::Hello {
            agent_id: "a".to_owned(),
            ..Default::default()
        };
        let error = from_wire(v1::AgentMessage {
            message: Some(Message::Hello(hello)),
        })
        .unwrap_err();
        assert!(error.chain().contains("hello.instance"), "{}", error.chain());
    }
}
