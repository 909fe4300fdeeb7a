//! `confiture fleet status`.

use super::surveyed::{Answer, Missing, Surveyed};
use crate::context::Global;
use crate::failure::{Failure, chain};
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::{convert, v1};
use serde_json::{Value, json};
use shared::id::DatabaseName;
use shared::rollout::Selector;
use shared::rollout::work::Exit;
use shared::survey::census::Shape;
use shared::survey::{Difference, Schema, Survey, Versions};
use std::collections::BTreeMap;
use std::time::Duration;

/// Schemas that are compared in full; a fleet of more shapes needs another look at it.
const MOST_SHAPES: usize = 20;

/// Names and differences that are listed before the rest is only counted.
const LISTED: usize = 12;

/// `confiture fleet status`
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Each database is asked now, by an agent that serves it, in a transaction that changes nothing: which versions of which sets \
        are applied or half done, and what its schema is: tables, columns, constraints, indexes, views, functions, triggers, \
        types, sequences. Databases whose schemas are the same have one shape. What differs from the shape of the most, or from \
        that of one database, is named object by object. Confiture's own schema, members of extensions and the order of columns do \
        not count. Servers of different majors may write a view or an expression differently.\n\n\
        Exit codes: 0; with --check 1 when shapes or versions differ, or a database could not be asked.\n\n\
        JSON (--output json): databases[] {name, agent, fingerprint, sets[] {set, applied[], partial[]}, problem, \
        last_seconds_ago}, shapes[] {fingerprint, databases[], majority}, against, differences[] {databases[], \
        fingerprint, differences[] {object, text}, problem}, versions[] {database, differences[]}, drifts, missing. Of a \
        database with a problem, fingerprint and sets are those of the last answer, if any, which is as old as \
        last_seconds_ago. What is not known is null."
)]
pub(crate) struct Status {
    /// The databases whose labels hold all of these pairs [default: all]
    #[arg(long, value_name = "LABEL=VALUE,..", conflicts_with = "all")]
    select: Option<String>,
    /// All databases of the fleet; what is meant without --select too
    #[arg(long)]
    all: bool,
    /// Versions of this set only
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Compare with this database [default: with what most databases have]
    #[arg(long, value_name = "DATABASE")]
    against: Option<String>,
    /// Exit with 1 when shapes or versions differ, or a database could not be asked
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    at: At,
}

/// A shape that is not the usual one, and what is different.
struct Outlier<'a> {
    shape: &'a Shape,
    differences: Result<Vec<Difference>, String>,
}

impl Status {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        let mut answers = ask(&mut operator, self.request()?).await?;
        if let Some(set) = &self.set {
            for answer in answers.values_mut() {
                keep_set(answer, set);
            }
        }
        let against = self.against.as_deref().map(name).transpose()?;
        let surveyed = Surveyed::of(answers, against);
        let outliers = compare(&mut operator, &surveyed).await?;
        match global.output {
            Format::Json => output::json(&report(&surveyed, &outliers)),
            Format::Text => print(&surveyed, &outliers),
        }
        let failed = self.check && (surveyed.drifts() || surveyed.missing() > 0);
        Ok(if failed { Exit::Failed } else { Exit::Done })
    }

    fn request(&self) -> Result<v1::SurveyDatabasesRequest, Failure> {
        let labels = match &self.select {
            None => BTreeMap::new(),
            Some(text) => match Selector::parse(text) {
                Ok(Selector::Labels(labels)) => labels,
                Ok(Selector::All) => BTreeMap::new(),
                Err(error) => return Err(Failure::usage(format!("--select: {error}"))),
            },
        };
        Ok(v1::SurveyDatabasesRequest {
            all: labels.is_empty(),
            labels: labels.into_iter().collect(),
            databases: self.against.iter().cloned().collect(),
            schema: false,
        })
    }
}

fn name(given: &str) -> Result<DatabaseName, Failure> {
    DatabaseName::try_from(given).map_err(|error| Failure::usage(format!("--against: {error}")))
}

/// Asks, and waits for all answers.
async fn ask(
    operator: &mut Operator,
    request: v1::SurveyDatabasesRequest,
) -> Result<BTreeMap<DatabaseName, Answer>, Failure> {
    let mut stream = operator
        .ask_fleet("survey the databases", async |mut fleet| {
            fleet.survey_databases(request.clone()).await
        })
        .await?;
    let broken = |why: &str| {
        Failure::failed(format!(
            "cannot survey the databases: the answer broke off: {why}"
        ))
    };
    let mut answers = BTreeMap::new();
    while let Some(wire) = stream
        .message()
        .await
        .map_err(|status| broken(status.message()))?
    {
        let (name, answer) = read(wire).map_err(|error| broken(&chain(&error)))?;
        answers.insert(name, answer);
    }
    Ok(answers)
}

fn read(wire: v1::SurveyDatabasesResponse) -> Result<(DatabaseName, Answer), convert::Error> {
    let invalid = |source| convert::Error::Invalid {
        field: "database",
        source: Box::new(source),
    };
    let name = DatabaseName::try_from(wire.database).map_err(invalid)?;
    let survey = wire.survey.map(convert::fleet::survey_from_wire).transpose()?;
    let result = match (wire.problem.is_empty(), survey) {
        (true, Some(survey)) => Ok(survey),
        (true, None) => return Err(convert::Error::Missing("survey")),
        (false, survey) => Err(Missing {
            problem: wire.problem,
            last: survey.map(|survey| (Duration::from_millis(wire.age_ms), survey)),
        }),
    };
    let agent = Some(wire.agent).filter(|agent| !agent.is_empty());
    Ok((name, Answer { agent, result }))
}

fn keep_set(answer: &mut Answer, set: &str) {
    let survey = match &mut answer.result {
        Ok(survey) => Some(survey),
        Err(missing) => missing.last.as_mut().map(|(_, survey)| survey),
    };
    if let Some(survey) = survey {
        survey.sets.retain(|versions| versions.set == set);
    }
}

/// Reads one schema of each shape, and compares.
async fn compare<'a>(operator: &mut Operator, surveyed: &'a Surveyed) -> Result<Vec<Outlier<'a>>, Failure> {
    let (Some(baseline), outliers) = (surveyed.baseline(), surveyed.outliers()) else {
        return Ok(Vec::new());
    };
    if outliers.is_empty() {
        return Ok(Vec::new());
    }
    let compared = outliers.iter().take(MOST_SHAPES).copied();
    let databases = std::iter::once(baseline).chain(compared).map(one_of);
    let request = v1::SurveyDatabasesRequest {
        databases: databases.map(ToString::to_string).collect(),
        schema: true,
        ..v1::SurveyDatabasesRequest::default()
    };
    let schemas = ask(operator, request).await?;
    let usual = schema_of(&schemas, baseline);
    let outlier = |(place, shape): (usize, &'a Shape)| Outlier {
        shape,
        differences: if place < MOST_SHAPES {
            differences(&usual, schema_of(&schemas, shape))
        } else {
            Err(format!(
                "only {MOST_SHAPES} shapes are compared: choose fewer databases with --select"
            ))
        },
    };
    Ok(outliers.into_iter().enumerate().map(outlier).collect())
}

fn differences(
    usual: &Result<&Schema, String>,
    found: Result<&Schema, String>,
) -> Result<Vec<Difference>, String> {
    Ok(found?.differences(usual.clone()?))
}

/// The database of a shape whose schema is read.
fn one_of(shape: &Shape) -> &DatabaseName {
    &shape.databases[0]
}

fn schema_of<'a>(schemas: &'a BTreeMap<DatabaseName, Answer>, shape: &Shape) -> Result<&'a Schema, String> {
    let database = one_of(shape);
    match schemas.get(database).map(|answer| &answer.result) {
        Some(Ok(survey)) if survey.fingerprint == shape.fingerprint => survey
            .schema
            .as_ref()
            .ok_or_else(|| format!("the agent of {database} does not send schemas")),
        Some(Ok(_)) => Err(format!("{database} changed while it was looked at: ask again")),
        Some(Err(missing)) => Err(format!("{database}: {}", missing.problem)),
        None => Err(format!("{database} was not answered: ask again")),
    }
}

fn print(surveyed: &Surveyed, outliers: &[Outlier<'_>]) {
    if surveyed.answers.is_empty() {
        return output::note("no agent has offered a database yet");
    }
    let rows: Vec<_> = surveyed.answers.iter().map(row).collect();
    output::data(&output::table(
        &["DATABASE", "AGENT", "SHAPE", "VERSIONS", "PROBLEM"],
        &rows,
    ));
    output::data(&headline(surveyed));
    let baseline = surveyed.baseline();
    for shape in &surveyed.census.shapes {
        let mark = match (baseline == Some(shape), &surveyed.against) {
            (true, None) => ", the majority",
            (true, Some(_)) => ", compared with",
            (false, _) => "",
        };
        output::data(&format!(
            "  {} ({}{mark}): {}",
            shape.fingerprint.short(),
            shape.databases.len(),
            listed(&shape.databases)
        ));
    }
    for outlier in outliers {
        let verb = match outlier.shape.databases.len() {
            1 => "differs",
            _ => "differ",
        };
        output::data(&format!("{} {verb}:", listed(&outlier.shape.databases)));
        match &outlier.differences {
            Ok(differences) => list(differences),
            Err(problem) => output::data(&format!("  unknown how: {problem}")),
        }
    }
    for (database, differences) in surveyed.other_versions() {
        output::data(&format!("{database} has other versions:"));
        list(&differences);
    }
    match (&surveyed.against, baseline) {
        (Some(database), None) => {
            output::note(&format!(
                "{database} could not be asked: nothing is compared with it"
            ));
        }
        (None, None) if surveyed.census.shapes.len() > 1 => {
            output::note("no shape has a majority: name a database to compare with, --against DATABASE");
        }
        (_, Some(_)) | (None, None) => {}
    }
}

fn headline(surveyed: &Surveyed) -> String {
    let count = |n: usize, what: &str| {
        if n == 1 {
            format!("1 {what}")
        } else {
            format!("{n} {what}s")
        }
    };
    let missing = match surveyed.missing() {
        0 => String::new(),
        missing => format!("; {missing} could not be asked"),
    };
    format!(
        "{} in {}{missing}",
        count(surveyed.census.databases(), "database"),
        count(surveyed.census.shapes.len(), "shape")
    )
}

fn list<T: ToString>(lines: &[T]) {
    for line in lines.iter().take(LISTED) {
        output::data(&format!("  {}", line.to_string()));
    }
    if lines.len() > LISTED {
        let more = lines.len() - LISTED;
        output::data(&format!("  and {more} more: --output json lists all"));
    }
}

fn listed(databases: &[DatabaseName]) -> String {
    let named: Vec<_> = databases.iter().take(LISTED).map(DatabaseName::as_str).collect();
    let more = match databases.len().saturating_sub(LISTED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", named.join(", "))
}

fn row((name, answer): (&DatabaseName, &Answer)) -> Vec<String> {
    let (survey, problem) = match &answer.result {
        Ok(survey) => (Some(survey), String::new()),
        Err(missing) => {
            let line = missing.problem.lines().next().unwrap_or_default();
            let age = missing
                .last
                .as_ref()
                .map(|(age, _)| format!(" (shape and versions are of {} s ago)", age.as_secs()));
            (
                missing.last.as_ref().map(|(_, survey)| survey),
                format!("{line}{}", age.unwrap_or_default()),
            )
        }
    };
    let or_dash = |text: Option<String>| {
        text.filter(|text| !text.is_empty())
            .unwrap_or_else(|| "-".to_owned())
    };
    vec![
        name.to_string(),
        or_dash(answer.agent.clone()),
        or_dash(survey.map(|survey| survey.fingerprint.short())),
        or_dash(survey.map(versions)),
        problem,
    ]
}

/// Each set in a few words: `default: 12 applied, the last 012; half done: 013`.
fn versions(survey: &Survey) -> String {
    let set = |versions: &Versions| {
        let last = versions.applied.last().map(|last| format!(", the last {last}"));
        let partial = if versions.partial.is_empty() {
            String::new()
        } else {
            format!(", half done: {}", versions.partial.join(", "))
        };
        format!(
            "{}: {} applied{}{partial}",
            versions.set,
            versions.applied.len(),
            last.unwrap_or_default()
        )
    };
    survey.sets.iter().map(set).collect::<Vec<_>>().join("; ")
}

fn report(surveyed: &Surveyed, outliers: &[Outlier<'_>]) -> Value {
    let majority = surveyed.census.majority();
    let shape = |shape: &Shape| {
        json!({
            "fingerprint": shape.fingerprint,
            "databases": shape.databases,
            "majority": Some(shape) == majority,
        })
    };
    let outlier = |outlier: &Outlier<'_>| {
        let text = |difference: &Difference| json!({ "object": difference.object(), "text": difference.to_string() });
        json!({
            "databases": outlier.shape.databases,
            "fingerprint": outlier.shape.fingerprint,
            "differences": outlier.differences.as_ref().ok().map(|all| all.iter().map(text).collect::<Vec<_>>()),
            "problem": outlier.differences.as_ref().err(),
        })
    };
    let versions = |(database, differences)| json!({ "database": database, "differences": differences });
    json!({
        "databases": surveyed.answers.iter().map(database_json).collect::<Vec<_>>(),
        "shapes": surveyed.census.shapes.iter().map(shape).collect::<Vec<_>>(),
        "against": surveyed.against,
        "differences": outliers.iter().map(outlier).collect::<Vec<_>>(),
        "versions": surveyed.other_versions().into_iter().map(versions).collect::<Vec<_>>(),
        "drifts": surveyed.drifts(),
        "missing": surveyed.missing(),
    })
}

fn database_json((name, answer): (&DatabaseName, &Answer)) -> Value {
    let (survey, missing) = match &answer.result {
        Ok(survey) => (Some(survey), None),
        Err(missing) => (missing.last.as_ref().map(|(_, survey)| survey), Some(missing)),
    };
    let set = |versions: &Versions| json!({ "set": versions.set, "applied": versions.applied, "partial": versions.partial });
    json!({
        "name": name,
        "agent": answer.agent,
        "fingerprint": survey.map(|survey| survey.fingerprint),
        "sets": survey.map(|survey| survey.sets.iter().map(set).collect::<Vec<_>>()),
        "problem": missing.map(|missing| &missing.problem),
        "last_seconds_ago": missing.and_then(|missing| Some(missing.last.as_ref()?.0.as_secs())),
    })
}
