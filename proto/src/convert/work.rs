//! The values of [`shared::rollout::work`] on the wire.

use super::{Error, required};
use crate::v1;
use shared::ledger::DataLoss;
use shared::migration::Version;
use shared::retry::Retryability;
use shared::rollout::work::{Aim, Cost, Exit, Failure, Finish, Look, Newer, Progress, Summary};

pub(super) fn aim_to_wire(aim: Aim) -> v1::Aim {
    let aim = match aim {
        Aim::Apply => v1::aim::Aim::Apply(v1::aim::Apply {}),
        Aim::Undo { rollout, data_loss } => v1::aim::Aim::Undo(v1::aim::Undo {
            rollout: rollout.into(),
            allow_data_loss: data_loss == DataLoss::Allowed,
        }),
    };
    v1::Aim { aim: Some(aim) }
}

pub(super) fn aim_from_wire(wire: Option<v1::Aim>) -> Result<Aim, Error> {
    let aim = required("aim", wire.and_then(|wire| wire.aim))?;
    Ok(match aim {
        v1::aim::Aim::Apply(_) => Aim::Apply,
        v1::aim::Aim::Undo(undo) => Aim::Undo {
            rollout: super::name("aim.rollout", undo.rollout)?,
            data_loss: data_loss(undo.allow_data_loss),
        },
    })
}

pub(super) fn data_loss(allowed: bool) -> DataLoss {
    if allowed {
        DataLoss::Allowed
    } else {
        DataLoss::Refused
    }
}

pub(super) fn failure_to_wire(failure: Failure) -> v1::Failure {
    let retry = match failure.retry {
        Retryability::Retry => v1::Retryability::Retry,
        Retryability::GiveUp => v1::Retryability::GiveUp,
        Retryability::StopRollout => v1::Retryability::StopRollout,
    };
    v1::Failure {
        message: failure.message,
        retry: retry.into(),
        exit_code: failure.exit.code().into(),
    }
}

pub(super) fn failure_from_wire(wire: v1::Failure) -> Result<Failure, Error> {
    let unknown = || Error::Unknown {
        field: "failure.retry",
        value: wire.retry,
    };
    let retry = match v1::Retryability::try_from(wire.retry).map_err(|_| unknown())? {
        v1::Retryability::Unspecified => return Err(unknown()),
        v1::Retryability::Retry => Retryability::Retry,
        v1::Retryability::GiveUp => Retryability::GiveUp,
        v1::Retryability::StopRollout => Retryability::StopRollout,
    };
    let exit = match wire.exit_code {
        0 => Exit::Done,
        2 => Exit::Usage,
        3 => Exit::Refused,
        4 => Exit::Stopped,
        // 1 and whatever a newer agent may say: it failed.
        _ => Exit::Failed,
    };
    Ok(Failure {
        message: wire.message,
        retry,
        exit,
    })
}

fn versions_to_wire(versions: Vec<Version>) -> Vec<String> {
    versions.into_iter().map(String::from).collect()
}

pub(super) fn versions_from_wire(field: &'static str, wire: Vec<String>) -> Result<Vec<Version>, Error> {
    wire.into_iter()
        .map(|version| super::name(field, version))
        .collect()
}

pub(super) fn look_to_wire(look: Look) -> v1::look_result::Result {
    match look {
        Look::UpToDate { ahead } => v1::look_result::Result::UpToDate(v1::look_result::UpToDate {
            ahead: versions_to_wire(ahead),
        }),
        Look::Pending { versions } => v1::look_result::Result::Pending(v1::look_result::Pending {
            versions: versions_to_wire(versions),
        }),
        Look::Held { by } => v1::look_result::Result::Held(v1::look_result::Held { by }),
        Look::Declined { why } => v1::look_result::Result::Declined(v1::look_result::Declined { why }),
        Look::Failed(failure) => v1::look_result::Result::Failed(failure_to_wire(failure)),
    }
}

pub(super) fn look_from_wire(wire: v1::look_result::Result) -> Result<Look, Error> {
    Ok(match wire {
        v1::look_result::Result::UpToDate(found) => Look::UpToDate {
            ahead: versions_from_wire("up_to_date.ahead", found.ahead)?,
        },
        v1::look_result::Result::Pending(found) => Look::Pending {
            versions: versions_from_wire("pending.versions", found.versions)?,
        },
        v1::look_result::Result::Held(held) => Look::Held { by: held.by },
        v1::look_result::Result::Declined(declined) => Look::Declined { why: declined.why },
        v1::look_result::Result::Failed(failure) => Look::Failed(failure_from_wire(failure)?),
    })
}

pub(super) fn progress_to_wire(progress: Progress) -> v1::Progress {
    v1::Progress {
        version: progress.version.map(String::from).unwrap_or_default(),
        migration: progress.migration,
        step: progress.step,
        steps: progress.steps,
        title: progress.title,
        rows: progress.rows,
        estimated_rows: progress.estimated_rows,
        migrations_done: progress.migrations_done,
        migrations: progress.migrations,
        workers: progress.workers,
        pace: progress.pace,
        batch_rows: progress.batch_rows,
        retries: progress.retries,
        spent: Some(summary_to_wire(progress.spent)),
    }
}

pub(super) fn progress_from_wire(wire: v1::Progress) -> Result<Progress, Error> {
    Ok(Progress {
        version: super::name_or_none("progress.version", wire.version)?,
        migration: wire.migration,
        step: wire.step,
        steps: wire.steps,
        title: wire.title,
        rows: wire.rows,
        estimated_rows: wire.estimated_rows,
        migrations_done: wire.migrations_done,
        migrations: wire.migrations,
        workers: wire.workers,
        pace: wire.pace,
        batch_rows: wire.batch_rows,
        retries: wire.retries,
        spent: wire.spent.map(summary_from_wire).unwrap_or_default(),
    })
}

/// How it ended, and what was spent where it is not done.
pub(super) fn finish_to_wire(finish: Finish) -> (v1::finished::Outcome, Option<v1::Summary>) {
    let (outcome, spent) = match finish {
        Finish::Done(summary) => return (v1::finished::Outcome::Done(summary_to_wire(summary)), None),
        Finish::Failed(failure, spent) => (v1::finished::Outcome::Failed(failure_to_wire(failure)), spent),
        Finish::Replaced { by, newer, spent } => {
            let by_lease = newer == Newer::Lease;
            let replaced = v1::finished::Replaced { by, by_lease };
            (v1::finished::Outcome::Replaced(replaced), spent)
        }
        Finish::Stopped(spent) => (v1::finished::Outcome::Stopped(v1::finished::Stopped {}), spent),
    };
    (outcome, Some(summary_to_wire(spent)))
}

pub(super) fn summary_to_wire(of: Summary) -> v1::Summary {
    v1::Summary {
        migrations: of.migrations,
        steps: of.steps,
        rows: of.rows,
        batches: of.cost.batches,
        retries: of.cost.retries,
        lock_wait_ms: of.cost.lock_wait_ms,
        stall_ms: of.cost.stall_ms,
        wal_bytes: of.cost.wal_bytes,
        verified_rows: of.cost.verified_rows,
        differing_rows: of.cost.differing_rows,
        open_rows: of.open_rows,
        worked_ms: of.worked_ms,
    }
}

pub(super) fn summary_from_wire(wire: v1::Summary) -> Summary {
    Summary {
        migrations: wire.migrations,
        steps: wire.steps,
        rows: wire.rows,
        open_rows: wire.open_rows,
        worked_ms: wire.worked_ms,
        cost: Cost {
            batches: wire.batches,
            retries: wire.retries,
            lock_wait_ms: wire.lock_wait_ms,
            stall_ms: wire.stall_ms,
            wal_bytes: wire.wal_bytes,
            verified_rows: wire.verified_rows,
            differing_rows: wire.differing_rows,
        },
    }
}

pub(super) fn finish_from_wire(
    wire: Option<v1::finished::Outcome>,
    spent: Option<v1::Summary>,
) -> Result<Finish, Error> {
    // Agents of an earlier version do not tell it.
    let spent = spent.map(summary_from_wire).unwrap_or_default();
    Ok(match required("finished.outcome", wire)? {
        v1::finished::Outcome::Done(done) => Finish::Done(summary_from_wire(done)),
        v1::finished::Outcome::Failed(failure) => Finish::Failed(failure_from_wire(failure)?, spent),
        v1::finished::Outcome::Replaced(replaced) => Finish::Replaced {
            by: replaced.by,
            newer: if replaced.by_lease {
                Newer::Lease
            } else {
                Newer::Local
            },
            spent,
        },
        v1::finished::Outcome::Stopped(v1::finished::Stopped {}) => Finish::Stopped(spent),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(retry: Retryability, exit: Exit) -> Failure {
        Failure {
            message: "cannot add column\nhelp: drop it".to_owned(),
            retry,
            exit,
        }
    }

    #[test]
    fn every_end_survives_the_wire() {
        let spent = Summary {
            rows: 180,
            open_rows: 180,
            ..Summary::default()
        };
        let ends = [
            Finish::Done(Summary {
                migrations: 1,
                steps: 2,
                rows: 3,
                open_rows: 0,
                worked_ms: 11,
                cost: Cost {
                    batches: 4,
                    retries: 5,
                    lock_wait_ms: 6,
                    stall_ms: 7,
                    wal_bytes: 8,
                    verified_rows: 9,
                    differing_rows: 10,
                },
            }),
            Finish::Failed(failure(Retryability::Retry, Exit::Failed), spent),
            Finish::Failed(failure(Retryability::GiveUp, Exit::Refused), spent),
            Finish::Failed(failure(Retryability::StopRollout, Exit::Stopped), spent),
            Finish::Replaced {
                by: "agent-b".to_owned(),
                newer: Newer::Lease,
                spent,
            },
            Finish::Replaced {
                by: "somebody".to_owned(),
                newer: Newer::Local,
                spent,
            },
            Finish::Stopped(spent),
        ];
        for end in ends {
            let (outcome, spent) = finish_to_wire(end.clone());
            assert_eq!(finish_from_wire(Some(outcome), spent).unwrap(), end);
        }
        assert!(finish_from_wire(None, None).is_err());
    }

    #[test]
    fn every_finding_survives_the_wire() {
        let version: Version = "007".parse().unwrap();
        let findings = [
            Look::UpToDate {
                ahead: vec![version.clone()],
            },
            Look::Pending {
                versions: vec![version],
            },
            Look::Held {
                by: "migrate up on host x".to_owned(),
            },
            Look::Failed(failure(Retryability::GiveUp, Exit::Usage)),
        ];
        for finding in findings {
            assert_eq!(look_from_wire(look_to_wire(finding.clone())).unwrap(), finding);
        }
    }

    #[test]
    fn progress_survives_the_wire_with_and_without_a_version() {
        let progress = Progress {
            version: Some("12".parse().unwrap()),
            rows: 9,
            title: "t".to_owned(),
            workers: 2,
            pace: "at full speed".to_owned(),
            ..Default::default()
        };
        assert_eq!(
            progress_from_wire(progress_to_wire(progress.clone())).unwrap(),
            progress
        );
        assert_eq!(
            progress_from_wire(v1::Progress::default()).unwrap(),
            Progress::default()
        );
    }

    #[test]
    fn every_aim_survives_the_wire() {
        let rollout = shared::id::RolloutId::try_from("r").unwrap();
        let undo = |data_loss| Aim::Undo {
            rollout: rollout.clone(),
            data_loss,
        };
        for aim in [Aim::Apply, undo(DataLoss::Allowed), undo(DataLoss::Refused)] {
            assert_eq!(aim_from_wire(Some(aim_to_wire(aim.clone()))).unwrap(), aim);
        }
        assert!(aim_from_wire(None).is_err());
        assert!(aim_from_wire(Some(v1::Aim::default())).is_err());
    }
}
