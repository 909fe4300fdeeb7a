//! `confiture rollout plan`.

use super::chosen::Chosen;
use super::{not_understood, policy, text};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator};
use crate::output::{self, Format};
use proto::convert;
use proto::convert::inquiry::outlook_from_wire;
use proto::convert::request::Plan as Request;
use proto::v1;
use serde_json::{Value, json};
use shared::plan::{Outlook, StepOutlook, Strategy, Work};
use shared::rollout::Policy;
use shared::rollout::waves;
use shared::rollout::work::Exit;
use std::collections::BTreeMap;
use std::time::Duration;

const HELP: &str = "\
Each database is asked now, by an agent that serves it, and nothing is changed: which migrations are pending, what each of
their steps does there, on how many rows, and for how long. The number of rows is the planner's, and says how rows are
gone about: direct (below 100,000), batched (below 1 million), batched_off_peak (below 10 million: better in hours of
little traffic, see `windows` of a policy), online (below 100 million), blue_green (beyond: a new schema beside the old one is
worth a thought; batches do it too, for as long as it says). With --strategy, or `strategies` of a policy, it is gone about as
said there instead. In which waves the databases come is the same as in a rollout
started with the same migrations, databases and policy.

Exit codes: 0; 3 when a database refuses the migrations; 1 when one could not be asked.";

const JSON: &str = "\
JSON (--output json): databases[] {database, wave, agent, problem, refused, estimate_ms, migrations[] {version, name,
steps[] {step, title, work, strategy, strategy_said, rows, estimate_ms, basis}}}. `work` is one of nothing, catalog, scan, batches, index,
rewrite, statements, later. What is not known is null.";

/// `confiture rollout plan`
#[derive(Debug, clap::Args)]
#[command(after_help = HELP, after_long_help = format!("{HELP}\n\n{JSON}\n\n{}", policy::HELP))]
pub(crate) struct Plan {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    at: At,
}

/// What is known of one database.
struct Planned {
    database: String,
    wave: String,
    agent: String,
    outlook: Result<Outlook, String>,
}

impl Plan {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let (bundle, selector, limits) = self.chosen.read(global)?;
        let set = bundle.set.to_string();
        let request = Request {
            bundle,
            selector,
            policy: limits.clone(),
        };
        let mut operator = Operator::new(&self.at, global)?;
        let planned = ask(&mut operator, request).await?;
        match global.output {
            Format::Json => output::json(&json!({
                "set": set,
                "databases": planned.values().map(as_json).collect::<Vec<_>>(),
            })),
            Format::Text => print(&set, &planned, &limits),
        }
        let mut sizes: BTreeMap<_, (&str, usize)> = BTreeMap::new();
        for ((place, _), of) in &planned {
            sizes.entry(place).or_insert((of.wave.as_str(), 0)).1 += 1;
        }
        for remark in waves::remarks(&limits, sizes.into_values()) {
            output::note(&remark);
        }
        let outlooks = || planned.values().map(|of| of.outlook.as_ref());
        let refused = outlooks().any(|of| of.is_ok_and(|outlook| outlook.refused.is_some()));
        let unknown = outlooks().any(|of| of.is_err());
        Ok(match (refused, unknown) {
            (true, _) => Exit::Refused,
            (false, true) => Exit::Failed,
            (false, false) => Exit::Done,
        })
    }
}

/// Asks, and waits for all answers; in the order of the waves.
async fn ask(operator: &mut Operator, request: Request) -> Result<BTreeMap<(u32, String), Planned>, Failure> {
    let request = request.to_wire();
    let mut stream = operator
        .ask("plan the rollout", async |mut client| {
            client.plan_rollout(request.clone()).await
        })
        .await?;
    let mut planned = BTreeMap::new();
    loop {
        let answer = stream.message().await.map_err(|status| {
            Failure::failed(format!(
                "cannot plan the rollout: the answer broke off: {}",
                status.message()
            ))
        })?;
        let Some(answer) = answer else {
            return Ok(planned);
        };
        let place = (answer.wave_number, answer.database.clone());
        planned.insert(place, read(answer).map_err(|error| not_understood(&error))?);
    }
}

fn read(wire: v1::PlanRolloutResponse) -> Result<Planned, convert::Error> {
    let outlook = match wire.plan {
        Some(outlook) => Ok(outlook_from_wire(outlook)?),
        None => Err(wire.problem),
    };
    Ok(Planned {
        database: wire.database,
        wave: wire.wave,
        agent: wire.agent,
        outlook,
    })
}

fn print(set: &str, planned: &BTreeMap<(u32, String), Planned>, limits: &Policy) {
    let waves: BTreeMap<_, _> = planned.iter().map(|((place, _), of)| (place, &of.wave)).collect();
    let databases = text::count(u64::try_from(planned.len()).unwrap_or(u64::MAX), "database");
    output::data(&format!(
        "set {set} for {databases} in {}, {}",
        text::count(u64::try_from(waves.len()).unwrap_or(u64::MAX), "wave"),
        text::policy(limits),
    ));
    let mut wave = None;
    for ((place, _), of) in planned {
        if wave != Some(place) {
            wave = Some(place);
            output::data(&format!("wave {}", of.wave));
        }
        output::data(&one(of));
    }
    let largest = (planned.values())
        .filter_map(|of| of.outlook.as_ref().ok())
        .flat_map(steps)
        .filter(|step| step.said.is_none())
        .filter_map(StepOutlook::strategy)
        .max();
    match largest {
        Some(Strategy::OffPeak | Strategy::Online) if limits.windows.is_empty() => output::note(
            "large tables are changed: hours of little traffic are kept to with `windows` in a policy",
        ),
        Some(Strategy::BlueGreen) => output::note(
            "a table of more than 100 million rows is changed: see whether a new schema beside the old one is cheaper",
        ),
        _ => {}
    }
    output::note("nothing was changed");
}

fn steps(outlook: &Outlook) -> impl Iterator<Item = &StepOutlook> {
    outlook.migrations.iter().flat_map(|migration| &migration.steps)
}

/// One database: a line, and one for each step that is more than a change of the catalog.
fn one(of: &Planned) -> String {
    let name = &of.database;
    let outlook = match &of.outlook {
        Err(problem) => return format!("  {name}: not known: {}", text::first_line(problem)),
        Ok(Outlook {
            refused: Some(refused),
            ..
        }) => return format!("  {name}: refused:\n{}", text::indented(&text::indented(refused))),
        Ok(outlook) if outlook.migrations.is_empty() => return format!("  {name}: nothing to do"),
        Ok(outlook) => outlook,
    };
    let count = |number: usize, what| text::count(u64::try_from(number).unwrap_or(u64::MAX), what);
    let mut lines = vec![format!(
        "  {name}: {}, {}, {}",
        count(outlook.migrations.len(), "migration"),
        count(steps(outlook).count(), "step"),
        match total(outlook) {
            Some(time) => about(time),
            None => "for how long is not known".to_owned(),
        }
    )];
    for migration in &outlook.migrations {
        lines.push(format!("    {} {}", migration.version, migration.name));
        lines.extend(
            (migration.steps.iter())
                .map(|step| format!("      {}. {}: {}", step.number, step.title, how(step))),
        );
    }
    lines.join("\n")
}

/// How a step goes about it, in words.
fn how(step: &StepOutlook) -> String {
    let rows = match step.rows {
        0 => String::new(),
        rows => format!(", about {}", text::count(rows, "row")),
    };
    let time = match step.estimate {
        Some(time) if step.rows > 0 => format!(", {} ({})", about(time), step.basis),
        Some(_) => String::new(),
        None => format!(" ({})", step.basis),
    };
    let what = match step.work {
        Work::Nothing => "nothing to do here",
        Work::Catalog => "the catalog alone",
        Work::Scan => "reads rows, and nobody waits",
        Work::Batches => step.strategy().map_or("batches", Strategy::as_str),
        Work::Index => "builds an index beside the applications",
        Work::Rewrite => "shuts all others out while it writes the table anew",
        Work::Statements => "statements as written",
        Work::Later => "planned when its turn comes",
    };
    let said = step.said.map_or("", |_| " as said");
    format!("{what}{said}{rows}{time}")
}

fn about(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        "moments".to_owned()
    } else {
        format!("about {}", text::elapsed(time))
    }
}

/// How long all steps take; `None` where that of one is not known.
fn total(outlook: &Outlook) -> Option<Duration> {
    steps(outlook).map(|step| step.estimate).sum()
}

fn as_json(of: &Planned) -> Value {
    let outlook = of.outlook.as_ref().ok();
    json!({
        "database": of.database,
        "wave": of.wave,
        "agent": Some(&of.agent).filter(|agent| !agent.is_empty()),
        "problem": of.outlook.as_ref().err(),
        "refused": outlook.and_then(|outlook| outlook.refused.as_ref()),
        "estimate_ms": outlook.and_then(total).map(milliseconds),
        "migrations": outlook.map(|outlook| outlook.migrations.iter().map(|migration| json!({
            "version": migration.version,
            "name": migration.name,
            "steps": migration.steps.iter().map(step_json).collect::<Vec<_>>(),
        })).collect::<Vec<_>>()),
    })
}

fn step_json(step: &StepOutlook) -> Value {
    json!({
        "step": step.number,
        "title": step.title,
        "work": step.work.as_str(),
        "strategy": step.strategy().map(Strategy::as_str),
        "strategy_said": step.said.is_some(),
        "rows": Some(step.rows).filter(|rows| *rows > 0),
        "estimate_ms": step.estimate.map(milliseconds),
        "basis": Some(&step.basis).filter(|basis| !basis.is_empty()),
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
