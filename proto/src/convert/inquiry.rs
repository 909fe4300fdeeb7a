//! What is asked about a database, and the answers, on the wire.

use super::fleet::{detail_from_wire, survey_from_wire, survey_to_wire};
use super::policy::{strategies_from_wire, strategies_to_wire};
use super::pool::{pools_from_wire, pools_to_wire};
use super::{Error, name, required};
use crate::v1::{self, inquiry_report, inquiry_request};
use shared::id::DatabaseName;
use shared::inquiry::{Answer, Checked, Inquiry};
use shared::plan::{MigrationOutlook, Outlook, StepOutlook, Strategy, Work};
use shared::survey::Detail;
use std::time::Duration;

pub(super) fn inquiry_to_wire(what: Inquiry) -> inquiry_request::What {
    match what {
        Inquiry::Survey(detail) => inquiry_request::What::Survey(inquiry_request::Survey {
            schema: detail == Detail::Schema,
        }),
        Inquiry::Plan { bundle, strategies } => inquiry_request::What::Plan(inquiry_request::Plan {
            bundle: bundle.to_string(),
            strategies: strategies_to_wire(&strategies),
        }),
        Inquiry::Check(query) => inquiry_request::What::Check(inquiry_request::Check { query }),
        Inquiry::Pools => inquiry_request::What::Pools(inquiry_request::ShowPools {}),
    }
}

pub(super) fn inquiry_from_wire(wire: Option<inquiry_request::What>) -> Result<Inquiry, Error> {
    Ok(match required("inquiry.what", wire)? {
        inquiry_request::What::Survey(survey) => Inquiry::Survey(detail_from_wire(survey.schema)),
        inquiry_request::What::Plan(plan) => Inquiry::Plan {
            bundle: name("inquiry.bundle", plan.bundle)?,
            strategies: strategies_from_wire("inquiry.strategies", plan.strategies)?,
        },
        inquiry_request::What::Check(check) => Inquiry::Check(check.query),
        inquiry_request::What::Pools(_) => Inquiry::Pools,
    })
}

pub(super) fn report_to_wire(
    inquiry: u64,
    database: DatabaseName,
    result: Result<Answer, String>,
) -> v1::InquiryReport {
    v1::InquiryReport {
        inquiry_id: inquiry,
        database: database.into(),
        result: Some(match result {
            Ok(Answer::Survey(survey)) => inquiry_report::Result::Survey(survey_to_wire(survey)),
            Ok(Answer::Plan(outlook)) => inquiry_report::Result::Plan(outlook_to_wire(outlook)),
            Ok(Answer::Check(Checked::Holds)) => inquiry_report::Result::Check(true),
            Ok(Answer::Check(Checked::Fails)) => inquiry_report::Result::Check(false),
            Ok(Answer::Check(Checked::Wrong(why))) => inquiry_report::Result::WrongCheck(why),
            Ok(Answer::Pools(pools)) => inquiry_report::Result::Pools(pools_to_wire(&pools)),
            Err(problem) => inquiry_report::Result::Problem(problem),
        }),
    }
}

pub(super) fn answer_from_wire(
    wire: Option<inquiry_report::Result>,
) -> Result<Result<Answer, String>, Error> {
    Ok(match required("inquiry.result", wire)? {
        inquiry_report::Result::Survey(survey) => Ok(Answer::Survey(survey_from_wire(survey)?)),
        inquiry_report::Result::Plan(outlook) => Ok(Answer::Plan(outlook_from_wire(outlook)?)),
        inquiry_report::Result::Check(true) => Ok(Answer::Check(Checked::Holds)),
        inquiry_report::Result::Check(false) => Ok(Answer::Check(Checked::Fails)),
        inquiry_report::Result::WrongCheck(why) => Ok(Answer::Check(Checked::Wrong(why))),
        inquiry_report::Result::Pools(pools) => Ok(Answer::Pools(pools_from_wire(pools)?)),
        inquiry_report::Result::Problem(problem) => Err(problem),
    })
}

/// What a set would do, as sent.
pub fn outlook_to_wire(outlook: Outlook) -> v1::Outlook {
    let migrations = outlook.migrations.into_iter();
    v1::Outlook {
        migrations: migrations
            .map(|migration| v1::MigrationOutlook {
                version: migration.version.into(),
                name: migration.name,
                steps: migration.steps.into_iter().map(step_to_wire).collect(),
            })
            .collect(),
        refused: outlook.refused.unwrap_or_default(),
    }
}

/// What a set would do, as received.
pub fn outlook_from_wire(wire: v1::Outlook) -> Result<Outlook, Error> {
    let migration = |wire: v1::MigrationOutlook| {
        let steps = wire.steps.into_iter().map(step_from_wire);
        Ok(MigrationOutlook {
            version: name("outlook.version", wire.version)?,
            name: wire.name,
            steps: steps.collect::<Result<_, Error>>()?,
        })
    };
    Ok(Outlook {
        migrations: (wire.migrations.into_iter().map(migration)).collect::<Result<_, Error>>()?,
        refused: Some(wire.refused).filter(|refused| !refused.is_empty()),
    })
}

fn step_to_wire(step: StepOutlook) -> v1::StepOutlook {
    let strategy = step.strategy().map(Strategy::as_str);
    v1::StepOutlook {
        number: step.number,
        title: step.title,
        work: step.work.as_str().to_owned(),
        rows: step.rows,
        estimate_ms: (step.estimate).map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        basis: step.basis,
        strategy: strategy.unwrap_or_default().to_owned(),
        strategy_said: step.said.is_some(),
    }
}

fn step_from_wire(wire: v1::StepOutlook) -> Result<StepOutlook, Error> {
    Ok(StepOutlook {
        number: wire.number,
        title: wire.title,
        work: Work::named(&wire.work).ok_or(Error::Missing("outlook.work"))?,
        rows: wire.rows,
        estimate: wire.estimate_ms.map(Duration::from_millis),
        basis: wire.basis,
        said: wire
            .strategy_said
            .then(|| Strategy::named(&wire.strategy).ok_or(Error::Missing("outlook.strategy")))
            .transpose()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::fleet::tests::survey;
    use shared::id::Digest;
    use shared::plan::strategy::Tables;

    #[test]
    fn every_inquiry_survives_the_wire() {
        for what in [
            Inquiry::Survey(Detail::Schema),
            Inquiry::Survey(Detail::Fingerprint),
            Inquiry::Plan {
                bundle: Digest::of(b"b"),
                strategies: [(Tables::All, Strategy::Online)].into_iter().collect(),
            },
            Inquiry::Check("SELECT true".to_owned()),
            Inquiry::Pools,
        ] {
            let wire = inquiry_to_wire(what.clone());
            assert_eq!(inquiry_from_wire(Some(wire)).unwrap(), what);
        }
        assert!(inquiry_from_wire(None).is_err());
    }

    #[test]
    fn every_answer_survives_the_wire() {
        let step = StepOutlook {
            number: 1,
            title: "backfill t".to_owned(),
            work: Work::Batches,
            rows: 1_000,
            estimate: Some(Duration::from_millis(50)),
            basis: "20000 rows/s, which is assumed".to_owned(),
            said: Some(Strategy::Online),
        };
        let planned = Outlook {
            migrations: vec![MigrationOutlook {
                version: "001".parse().unwrap(),
                name: "totals".to_owned(),
                steps: vec![step],
            }],
            refused: None,
        };
        let refused = Outlook {
            refused: Some("no".to_owned()),
            ..Outlook::default()
        };
        for answer in [
            Ok(Answer::Survey(survey())),
            Ok(Answer::Plan(planned)),
            Ok(Answer::Plan(refused)),
            Ok(Answer::Check(Checked::Holds)),
            Ok(Answer::Check(Checked::Fails)),
            Ok(Answer::Check(Checked::Wrong("no such column".to_owned()))),
            Ok(Answer::Pools(crate::convert::pool::tests::pools())),
            Err("server down".to_owned()),
        ] {
            let wire = report_to_wire(7, "orders".try_into().unwrap(), answer.clone());
            assert_eq!(answer_from_wire(wire.result).unwrap(), answer);
        }
    }
}
