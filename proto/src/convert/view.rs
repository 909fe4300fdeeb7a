//! What operators read, on the wire.

use super::control::{action_from_wire, action_to_wire};
use super::fleet::{drain_from_wire, drain_to_wire};
use super::policy::{policy_from_wire, policy_to_wire};
use super::request::{selector_from_wire, selector_to_wire};
use super::work::{
    progress_from_wire, progress_to_wire, summary_from_wire, summary_to_wire, versions_from_wire,
};
use super::{Error, name, name_or_none, required};
use crate::v1;
use shared::rollout::Time;
use shared::rollout::view::{
    Agent, Approval, Assignment, AssignmentState, Counts, Database, Rollout, State, Stretch, StretchKind,
    Wave,
};
use shared::rollout::work::Identity;

fn time_to_wire(time: Option<Time>) -> u64 {
    time.map_or(0, |time| time.0)
}

fn time_from_wire(wire: u64) -> Option<Time> {
    Some(Time(wire)).filter(|time| time.0 != 0)
}

/// One rollout, as sent.
pub fn rollout_to_wire(rollout: Rollout) -> v1::Rollout {
    let state = match rollout.state {
        State::Running => v1::RolloutState::Running,
        State::Paused => v1::RolloutState::Paused,
        State::Aborting => v1::RolloutState::Aborting,
        State::Done => v1::RolloutState::Done,
        State::Failed => v1::RolloutState::Failed,
        State::Aborted => v1::RolloutState::Aborted,
    };
    v1::Rollout {
        id: rollout.id.into(),
        set: rollout.set.into(),
        bundle: rollout.bundle.to_string(),
        versions: rollout.versions.into_iter().map(String::from).collect(),
        selector: Some(selector_to_wire(rollout.selector)),
        policy: Some(policy_to_wire(rollout.policy)),
        created_by: rollout.created_by,
        created_reason: rollout.created_reason,
        created_at_unix_ms: rollout.created_at.0,
        ended_at_unix_ms: time_to_wire(rollout.ended_at),
        state: state.into(),
        reason: rollout.reason,
        halted: rollout.halted,
        undoes: rollout.undoes.map(String::from).unwrap_or_default(),
        total_databases: rollout.databases.total,
        waiting_databases: rollout.databases.waiting,
        running_databases: rollout.databases.running,
        done_databases: rollout.databases.done,
        failed_databases: rollout.databases.failed,
        aborted_databases: rollout.databases.aborted,
        skipped_databases: rollout.databases.skipped,
        waves: rollout.waves.into_iter().map(wave_to_wire).collect(),
        actions: rollout.actions.into_iter().map(action_to_wire).collect(),
    }
}

fn wave_to_wire(wave: Wave) -> v1::Wave {
    v1::Wave {
        name: wave.name,
        begun: wave.begun,
        blocked: wave.blocked,
        total_databases: wave.databases.total,
        waiting_databases: wave.databases.waiting,
        running_databases: wave.databases.running,
        done_databases: wave.databases.done,
        failed_databases: wave.databases.failed,
        skipped_databases: wave.databases.skipped,
        aborted_databases: wave.databases.aborted,
        needs_approval: wave.approval != Approval::NotNeeded,
        approved: wave.approval == Approval::Given,
    }
}

fn wave_from_wire(wire: v1::Wave) -> Wave {
    Wave {
        name: wire.name,
        begun: wire.begun,
        blocked: wire.blocked,
        approval: match (wire.needs_approval, wire.approved) {
            (false, _) => Approval::NotNeeded,
            (true, false) => Approval::Awaited,
            (true, true) => Approval::Given,
        },
        databases: Counts {
            total: wire.total_databases,
            waiting: wire.waiting_databases,
            running: wire.running_databases,
            done: wire.done_databases,
            failed: wire.failed_databases,
            skipped: wire.skipped_databases,
            aborted: wire.aborted_databases,
        },
    }
}

/// One rollout, as received.
pub fn rollout_from_wire(wire: v1::Rollout) -> Result<Rollout, Error> {
    let unknown = || Error::Unknown {
        field: "rollout.state",
        value: wire.state,
    };
    let state = match v1::RolloutState::try_from(wire.state).map_err(|_| unknown())? {
        v1::RolloutState::Unspecified => return Err(unknown()),
        v1::RolloutState::Running => State::Running,
        v1::RolloutState::Paused => State::Paused,
        v1::RolloutState::Aborting => State::Aborting,
        v1::RolloutState::Done => State::Done,
        v1::RolloutState::Failed => State::Failed,
        v1::RolloutState::Aborted => State::Aborted,
    };
    Ok(Rollout {
        id: name("rollout.id", wire.id)?,
        set: name("rollout.set", wire.set)?,
        bundle: name("rollout.bundle", wire.bundle)?,
        versions: versions_from_wire("rollout.versions", wire.versions)?,
        selector: selector_from_wire(required("rollout.selector", wire.selector)?)?,
        policy: policy_from_wire(required("rollout.policy", wire.policy)?)?,
        created_by: wire.created_by,
        created_reason: wire.created_reason,
        created_at: Time(wire.created_at_unix_ms),
        ended_at: time_from_wire(wire.ended_at_unix_ms),
        state,
        reason: wire.reason,
        halted: wire.halted,
        undoes: name_or_none("rollout.undoes", wire.undoes)?,
        databases: Counts {
            total: wire.total_databases,
            waiting: wire.waiting_databases,
            running: wire.running_databases,
            done: wire.done_databases,
            failed: wire.failed_databases,
            skipped: wire.skipped_databases,
            aborted: wire.aborted_databases,
        },
        waves: wire.waves.into_iter().map(wave_from_wire).collect(),
        actions: wire
            .actions
            .into_iter()
            .map(action_from_wire)
            .collect::<Result<_, _>>()?,
    })
}

/// A stretch of a rollout's time, as sent.
pub fn stretch_to_wire(stretch: Stretch) -> v1::Stretch {
    v1::Stretch {
        from_unix_ms: stretch.from.0,
        to_unix_ms: time_to_wire(stretch.to),
        what: stretch.kind.word().to_owned(),
        wave: stretch.wave,
        text: stretch.text,
    }
}

/// A stretch of a rollout's time, as received; `None` where it is of a kind that this version does not know.
pub fn stretch_from_wire(wire: v1::Stretch) -> Option<Stretch> {
    let mut kinds = StretchKind::ALL.into_iter();
    Some(Stretch {
        from: Time(wire.from_unix_ms),
        to: time_from_wire(wire.to_unix_ms),
        kind: kinds.find(|kind| kind.word() == wire.what)?,
        wave: wire.wave,
        text: wire.text,
    })
}

/// One database of a rollout, as sent.
pub fn assignment_to_wire(assignment: Assignment) -> v1::Assignment {
    let state = match assignment.state {
        AssignmentState::Waiting => v1::AssignmentState::Waiting,
        AssignmentState::Running => v1::AssignmentState::Running,
        AssignmentState::Done => v1::AssignmentState::Done,
        AssignmentState::Failed => v1::AssignmentState::Failed,
        AssignmentState::Skipped => v1::AssignmentState::Skipped,
        AssignmentState::Aborted => v1::AssignmentState::Aborted,
    };
    v1::Assignment {
        database: assignment.database.into(),
        state: state.into(),
        agent: assignment.agent.map(String::from).unwrap_or_default(),
        attempt: assignment.attempt,
        blocked: assignment.blocked,
        error: assignment.error,
        interrupted: assignment.interrupted,
        progress_unknown: assignment.progress_unknown,
        agent_gone_since_unix_ms: time_to_wire(assignment.agent_gone_since),
        progress: assignment.progress.map(progress_to_wire),
        started_at_unix_ms: time_to_wire(assignment.started_at),
        ended_at_unix_ms: time_to_wire(assignment.ended_at),
        summary: Some(summary_to_wire(assignment.summary)),
        token: assignment.token.unwrap_or(0),
        wave: assignment.wave,
    }
}

/// One database of a rollout, as received.
pub fn assignment_from_wire(wire: v1::Assignment) -> Result<Assignment, Error> {
    let unknown = || Error::Unknown {
        field: "assignment.state",
        value: wire.state,
    };
    let state = match v1::AssignmentState::try_from(wire.state).map_err(|_| unknown())? {
        v1::AssignmentState::Unspecified => return Err(unknown()),
        v1::AssignmentState::Waiting => AssignmentState::Waiting,
        v1::AssignmentState::Running => AssignmentState::Running,
        v1::AssignmentState::Done => AssignmentState::Done,
        v1::AssignmentState::Failed => AssignmentState::Failed,
        v1::AssignmentState::Skipped => AssignmentState::Skipped,
        v1::AssignmentState::Aborted => AssignmentState::Aborted,
    };
    Ok(Assignment {
        database: name("assignment.database", wire.database)?,
        wave: wire.wave,
        state,
        agent: name_or_none("assignment.agent", wire.agent)?,
        attempt: wire.attempt,
        blocked: wire.blocked,
        error: wire.error,
        interrupted: wire.interrupted,
        progress_unknown: wire.progress_unknown,
        agent_gone_since: time_from_wire(wire.agent_gone_since_unix_ms),
        progress: wire.progress.map(progress_from_wire).transpose()?,
        started_at: time_from_wire(wire.started_at_unix_ms),
        ended_at: time_from_wire(wire.ended_at_unix_ms),
        summary: summary_from_wire(wire.summary.unwrap_or_default()),
        token: Some(wire.token).filter(|token| *token != 0),
    })
}

/// One database of the fleet, as sent.
pub fn database_to_wire(database: Database) -> v1::Database {
    v1::Database {
        name: database.name.into(),
        labels: database.labels.into_iter().collect(),
        agents: database.agents.into_iter().map(String::from).collect(),
        system_identifier: database.identity.map_or(0, |identity| identity.system),
        database_oid: database.identity.map_or(0, |identity| identity.database),
        rollout: database.rollout.map(String::from).unwrap_or_default(),
        problem: database.problem,
    }
}

/// One database of the fleet, as received.
pub fn database_from_wire(wire: v1::Database) -> Result<Database, Error> {
    let identity = Identity {
        system: wire.system_identifier,
        database: wire.database_oid,
    };
    Ok(Database {
        name: name("database.name", wire.name)?,
        labels: wire.labels.into_iter().collect(),
        agents: names("database.agents", wire.agents)?,
        identity: Some(identity).filter(|identity| identity.database != 0),
        rollout: name_or_none("database.rollout", wire.rollout)?,
        problem: wire.problem,
    })
}

/// One agent, as sent.
pub fn agent_to_wire(agent: Agent) -> v1::AgentView {
    v1::AgentView {
        id: agent.id.into(),
        version: agent.version,
        connected: agent.connected_at.is_some(),
        connected_at_unix_ms: time_to_wire(agent.connected_at),
        databases: agent.databases.into_iter().map(String::from).collect(),
        running: agent.running.into_iter().map(String::from).collect(),
        drain: agent.drain.map(drain_to_wire),
        note: agent.note,
    }
}

/// One agent, as received.
pub fn agent_from_wire(wire: v1::AgentView) -> Result<Agent, Error> {
    Ok(Agent {
        id: name("agent.id", wire.id)?,
        version: wire.version,
        connected_at: wire.connected.then_some(Time(wire.connected_at_unix_ms)),
        databases: names("agent.databases", wire.databases)?,
        running: names("agent.running", wire.running)?,
        drain: wire.drain.map(drain_from_wire),
        note: wire.note,
    })
}

fn names<T>(field: &'static str, wire: Vec<String>) -> Result<Vec<T>, Error>
where
    T: TryFrom<String>,
    T::Error: std::error::Error + Send + Sync + 'static,
{
    wire.into_iter().map(|given| name(field, given)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::{AgentId, DatabaseName, Digest, RolloutId, SetName};
    use shared::rollout::control::{Action, Verb};
    use shared::rollout::drain::{Drain, Running};
    use shared::rollout::work::{Progress, Summary};
    use shared::rollout::{Policy, Selector};
    use std::collections::BTreeMap;

    fn counts() -> Counts {
        Counts {
            total: 21,
            waiting: 1,
            running: 2,
            done: 3,
            failed: 4,
            skipped: 5,
            aborted: 6,
        }
    }

    #[test]
    fn a_rollout_survives_the_wire_in_every_state() {
        for state in [
            State::Running,
            State::Paused,
            State::Aborting,
            State::Done,
            State::Failed,
            State::Aborted,
        ] {
            let rollout = Rollout {
                id: RolloutId::from_random(7),
                set: SetName::default_set(),
                bundle: Digest::of(b"b"),
                versions: vec!["001".parse().unwrap()],
                undoes: Some(RolloutId::from_random(8)),
                selector: Selector::All,
                policy: Policy::default(),
                created_by: "ada".to_owned(),
                created_reason: "too slow".to_owned(),
                created_at: Time(5),
                ended_at: state.is_ended().then_some(Time(6)),
                state,
                reason: "because".to_owned(),
                halted: true,
                databases: counts(),
                waves: vec![Wave {
                    name: "canary".to_owned(),
                    approval: Approval::Given,
                    begun: true,
                    blocked: "soaks".to_owned(),
                    databases: counts(),
                }],
                actions: vec![Action {
                    verb: Verb::Pause,
                    by: "ada".to_owned(),
                    reason: String::new(),
                    at: Time(7),
                }],
            };
            assert_eq!(
                rollout_from_wire(rollout_to_wire(rollout.clone())).unwrap(),
                rollout
            );
        }
    }

    #[test]
    fn a_timeline_survives_the_wire() {
        for kind in StretchKind::ALL {
            let stretch = Stretch {
                from: Time(3),
                to: (kind != StretchKind::Soak).then_some(Time(4)),
                kind,
                wave: "canary".to_owned(),
                text: "it took a while".to_owned(),
            };
            assert_eq!(stretch_from_wire(stretch_to_wire(stretch.clone())), Some(stretch));
        }
        assert_eq!(stretch_from_wire(v1::Stretch::default()), None);
    }

    #[test]
    fn an_assignment_survives_the_wire_in_every_state() {
        let states = [
            AssignmentState::Waiting,
            AssignmentState::Running,
            AssignmentState::Done,
            AssignmentState::Failed,
            AssignmentState::Skipped,
            AssignmentState::Aborted,
        ];
        for state in states {
            let assignment = Assignment {
                database: DatabaseName::try_from("orders").unwrap(),
                wave: "canary".to_owned(),
                state,
                agent: Some(AgentId::try_from("a").unwrap()),
                attempt: 2,
                blocked: "no agent".to_owned(),
                error: "line\nline".to_owned(),
                interrupted: "stopped".to_owned(),
                progress_unknown: true,
                agent_gone_since: Some(Time(8)),
                progress: Some(Progress {
                    rows: 4,
                    ..Default::default()
                }),
                started_at: Some(Time(1)),
                ended_at: None,
                summary: Summary {
                    migrations: 1,
                    steps: 2,
                    rows: 3,
                    ..Summary::default()
                },
                token: Some(9),
            };
            assert_eq!(
                assignment_from_wire(assignment_to_wire(assignment.clone())).unwrap(),
                assignment
            );
            let bare = Assignment {
                agent: None,
                agent_gone_since: None,
                progress: None,
                started_at: None,
                token: None,
                ..assignment
            };
            assert_eq!(
                assignment_from_wire(assignment_to_wire(bare.clone())).unwrap(),
                bare
            );
        }
    }

    #[test]
    fn the_fleet_survives_the_wire() {
        let database = Database {
            name: DatabaseName::try_from("orders").unwrap(),
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            agents: vec![AgentId::try_from("a").unwrap()],
            identity: Some(Identity {
                system: -7,
                database: 5,
            }),
            rollout: Some(RolloutId::from_random(1)),
            problem: String::new(),
        };
        assert_eq!(
            database_from_wire(database_to_wire(database.clone())).unwrap(),
            database
        );
        let agent = Agent {
            id: AgentId::try_from("a").unwrap(),
            version: "0.1.0".to_owned(),
            connected_at: Some(Time(4)),
            databases: vec![database.name.clone()],
            running: vec![database.name],
            drain: Some(Drain {
                by: "ada".to_owned(),
                reason: "a new host".to_owned(),
                at: Time(9),
                running: Running::Stops,
            }),
            note: "older".to_owned(),
        };
        assert_eq!(agent_from_wire(agent_to_wire(agent.clone())).unwrap(), agent);
        let away = Agent {
            connected_at: None,
            drain: None,
            ..agent
        };
        assert_eq!(agent_from_wire(agent_to_wire(away.clone())).unwrap(), away);
    }
}
