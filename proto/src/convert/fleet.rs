//! Agents and databases themselves, on the wire.

use super::{Error, name};
use crate::v1;
use shared::id::DatabaseName;
use shared::rollout::Time;
use shared::rollout::drain::{Drain, Running};
use shared::rollout::forget::Forgotten;
use shared::survey::schema::Part;
use shared::survey::{Detail, Schema, Survey, Versions};

/// As sent.
pub fn drain_to_wire(drain: Drain) -> v1::Drain {
    v1::Drain {
        by: drain.by,
        reason: drain.reason,
        at_unix_ms: drain.at.0,
        now: drain.running == Running::Stops,
    }
}

/// As received.
pub fn drain_from_wire(wire: v1::Drain) -> Drain {
    Drain {
        by: wire.by,
        reason: wire.reason,
        at: Time(wire.at_unix_ms),
        running: running_from_wire(wire.now),
    }
}

/// As sent.
pub fn forgotten_to_wire(database: DatabaseName, forgotten: Forgotten) -> v1::Forgotten {
    v1::Forgotten {
        database: database.into(),
        by: forgotten.by,
        reason: forgotten.reason,
        at_unix_ms: forgotten.at.0,
    }
}

/// As received.
pub fn forgotten_from_wire(wire: v1::Forgotten) -> Result<(DatabaseName, Forgotten), Error> {
    let database = name("forgotten.database", wire.database)?;
    let forgotten = Forgotten {
        by: wire.by,
        reason: wire.reason,
        at: Time(wire.at_unix_ms),
    };
    Ok((database, forgotten))
}

/// What becomes of work in progress, by a request's `now`.
pub fn running_from_wire(now: bool) -> Running {
    if now { Running::Stops } else { Running::Finishes }
}

/// How much is asked for, by a request's `schema`.
pub fn detail_from_wire(schema: bool) -> Detail {
    if schema {
        Detail::Schema
    } else {
        Detail::Fingerprint
    }
}

/// What a database looks like, as sent.
pub fn survey_to_wire(survey: Survey) -> v1::Survey {
    v1::Survey {
        fingerprint: survey.fingerprint.to_string(),
        sets: survey.sets.into_iter().map(versions_to_wire).collect(),
        schema: survey.schema.map(|schema| v1::Schema {
            parts: schema.parts().map(part_to_wire).collect(),
        }),
    }
}

/// What a database looks like, as received.
pub fn survey_from_wire(wire: v1::Survey) -> Result<Survey, Error> {
    Ok(Survey {
        fingerprint: name("survey.fingerprint", wire.fingerprint)?,
        sets: wire.sets.into_iter().map(versions_from_wire).collect(),
        schema: wire.schema.map(|schema| -> Schema {
            let parts = schema.parts.into_iter();
            parts.map(part_from_wire).collect()
        }),
    })
}

fn versions_to_wire(versions: Versions) -> v1::SetVersions {
    v1::SetVersions {
        set: versions.set,
        applied: versions.applied,
        partial: versions.partial,
    }
}

fn versions_from_wire(wire: v1::SetVersions) -> Versions {
    Versions {
        set: wire.set,
        applied: wire.applied,
        partial: wire.partial,
    }
}

fn part_to_wire(part: Part) -> v1::SchemaPart {
    v1::SchemaPart {
        object: part.object,
        part: part.part,
        definition: part.definition,
    }
}

fn part_from_wire(wire: v1::SchemaPart) -> Part {
    Part {
        object: wire.object,
        part: wire.part,
        definition: wire.definition,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::convert) fn survey() -> Survey {
        let part = Part {
            object: "table public.orders".to_owned(),
            part: "column total".to_owned(),
            definition: "numeric".to_owned(),
        };
        let schema: Schema = [part].into_iter().collect();
        Survey {
            fingerprint: schema.fingerprint(),
            sets: vec![Versions {
                set: "default".to_owned(),
                applied: vec!["001".to_owned()],
                partial: vec!["002".to_owned()],
            }],
            schema: Some(schema),
        }
    }

    #[test]
    fn a_survey_without_a_fingerprint_is_refused() {
        let error = survey_from_wire(v1::Survey::default()).unwrap_err();
        assert!(error.chain().contains("survey.fingerprint"), "{}", error.chain());
    }
}
