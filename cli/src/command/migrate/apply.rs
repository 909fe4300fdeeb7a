//! `migrate up` and `migrate down`.

use super::target::Target;
use super::{Of, plan, progress};
use crate::context::{self, Global};
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::telemetry;
use agent::local::{self, Done, Options};
use agent::story::Recorder;
use agent::work::{Control, Listener};
use agent::{Living, Overrides};
use serde_json::json;
use shared::id::{Direction, Holder};
use shared::ledger::{Goal, Order};
use shared::migration::{Set, Version};
use shared::plan::strategy::{self, Tables};
use shared::plan::{Strategies, Strategy};
use shared::rollout::work::{Exit, Progress};
use shared::settings::Settings;
use shared::settings::duration::{self, Zero};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tracing::Instrument as _;

/// `confiture migrate up`
#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    #[command(flatten)]
    of: Of,
    /// Apply up to this version only
    #[arg(long, value_name = "VERSION")]
    target: Option<Version>,
    /// Apply a pending version below an applied one too
    #[arg(long)]
    out_of_order: bool,
    #[command(flatten)]
    how: How,
}

/// `confiture migrate down`
#[derive(Debug, clap::Args)]
pub(crate) struct Down {
    #[command(flatten)]
    of: Of,
    /// How many migrations to undo
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    #[command(flatten)]
    how: How,
}

#[derive(Debug, clap::Args)]
struct How {
    /// Budget for waiting for locks, over all attempts: milliseconds, or with a unit [default: 30s]
    #[arg(long, value_name = "MS", value_parser = milliseconds)]
    lock_timeout: Option<Duration>,
    /// End sessions that stand in the way of a lock, idle in their transaction for longer than this: milliseconds, or with
    /// a unit; never superusers, replication or other databases
    #[arg(long, value_name = "TIME", value_parser = milliseconds)]
    cancel_idle_in_transaction: Option<Duration>,
    /// How rows are gone about, whatever the steps say: `direct` (at full speed), `batched` or `online` (as the server's health
    /// allows), `blue_green` (refused); of one table or of all. Can be given several times
    #[arg(long = "strategy", value_name = "[TABLE=]STRATEGY", value_parser = strategy::said)]
    strategies: Vec<(Tables, Strategy)>,
    /// How long to wait for another run on this database: seconds, or with a unit
    #[arg(long, value_name = "TIME", default_value = "10min", value_parser = seconds)]
    wait: Duration,
    /// Displace another run on this database instead of waiting for it
    #[arg(long)]
    take_over: bool,
    /// Print every statement that would run, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Write the run's metrics to this file at the end, as the node exporter's textfile collector reads them
    #[arg(long, value_name = "FILE.prom", conflicts_with = "dry_run")]
    metrics_file: Option<PathBuf>,
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    let given = duration::parse(text, Duration::from_millis(1)).map_err(|error| error.to_string())?;
    duration::bounded(given, Zero::Refused)
}

fn seconds(text: &str) -> Result<Duration, duration::Error> {
    duration::parse(text, Duration::from_secs(1))
}

impl How {
    /// What is said of tables, where it can be meant.
    fn strategies(&self, set: &Set) -> Result<Strategies, Failure> {
        if (self.strategies.iter()).any(|(_, strategy)| *strategy == Strategy::OffPeak) {
            return Err(Failure::usage(
                "--strategy batched_off_peak: a single run waits for no hour\n  help: run it in an hour of little traffic as `batched`; a rollout keeps to hours, by the `windows` of its policy",
            ));
        }
        let strategies: Strategies = self.strategies.iter().cloned().collect();
        strategies
            .fit(set)
            .map_err(|problem| Failure::usage(format!("--strategy: {problem}")))?;
        Ok(strategies)
    }
}

impl Up {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let order = if self.out_of_order {
            Order::Any
        } else {
            Order::Strict
        };
        run(
            &self.of,
            &self.how,
            Goal::Up {
                target: self.target,
                order,
            },
            Direction::Up,
            global,
        )
        .await
    }
}

impl Down {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        run(
            &self.of,
            &self.how,
            Goal::Down { steps: self.steps },
            Direction::Down,
            global,
        )
        .await
    }
}

async fn run(of: &Of, how: &How, goal: Goal, direction: Direction, global: &Global) -> Result<Exit, Failure> {
    let settings = context::settings(global, Vec::new())?;
    let telemetry = telemetry::of_command(global, &settings, how.metrics_file.clone())?;
    let span = tracing::info_span!("migrate", %direction);
    telemetry::of_caller(&span);
    let ended = migrate(of, how, goal, direction, &settings, global)
        .instrument(span)
        .await;
    let told = telemetry.end().await;
    // What became of the migrations counts for more than whether it was counted.
    if let Err(failure) = &ended
        && global.output == Format::Json
    {
        output::note(&end_event(failure).to_string());
    }
    let exit = ended?;
    told?;
    Ok(exit)
}

/// The last of the events, where it did not end well.
fn end_event(failure: &Failure) -> serde_json::Value {
    let resume = match failure.exit {
        Exit::Stopped | Exit::Failed => Some("the same command goes on where this one stopped"),
        Exit::Done | Exit::Usage | Exit::Refused => None,
    };
    json!({
        "event": if failure.exit == Exit::Stopped { "stopped" } else { "failed" },
        "exit": failure.exit.code(),
        "resume": resume,
        "message": failure.message,
    })
}

async fn migrate(
    of: &Of,
    how: &How,
    goal: Goal,
    direction: Direction,
    settings: &Settings,
    global: &Global,
) -> Result<Exit, Failure> {
    let target = Target::of(of, settings)?;
    let strategies = how.strategies(&target.set)?;
    if how.dry_run {
        let planned = local::plan(&target.database, &target.set, &goal, strategies).await?;
        plan::print(&target, &planned, global.output);
        return Ok(Exit::Done);
    }
    let options = Options {
        goal,
        overrides: Overrides {
            canary: false,
            lock_timeout: how.lock_timeout,
            cancel_idle_in_transaction: how.cancel_idle_in_transaction,
            strategies,
        },
        wait: how.wait,
        living: if how.take_over {
            Living::Displace
        } else {
            Living::Wait
        },
        description: context::who(&format!("confiture migrate {direction}")),
        holder: Holder(uuid::Uuid::new_v4()),
    };
    let (sender, receiver) = watch::channel(Progress::default());
    let (steps, steps_done) = mpsc::channel(progress::STEPS_AHEAD);
    let control = Control {
        stop: runtime::shutdown::token()?,
        progress: sender,
        // What does not fit is not shown: a thousand steps may be done at once.
        listener: Listener::new(move |step| drop(steps.try_send(step.clone()))),
        recorder: Recorder::default(),
    };
    let started = Instant::now();
    let waiting = |by: &str| {
        output::note(&match global.output {
            Format::Text => format!("waiting for {by}, which is working on this database"),
            Format::Json => json!({ "event": "waiting", "by": by }).to_string(),
        });
    };
    // A large state machine: on the heap it costs one allocation for a whole run.
    let work = Box::pin(local::migrate(
        &target.database,
        &target.set,
        &options,
        &control,
        waiting,
    ));
    let done = progress::beside(work, receiver, steps_done, global.output).await?;
    print(&target, direction, &done, started.elapsed(), global.output);
    Ok(Exit::Done)
}

fn print(target: &Target, direction: Direction, done: &Done, elapsed: Duration, format: Format) {
    let (database, set, summary) = (target.database.name(), &target.set.name, done.summary);
    let ahead: Vec<&str> = done.ahead.iter().map(Version::as_str).collect();
    let edited: Vec<&str> = done.edited_downs.iter().map(Version::as_str).collect();
    if !edited.is_empty() && format == Format::Text {
        output::note(&format!(
            "note: the way down of {} was written or changed after its way up was applied",
            edited.join(", ")
        ));
    }
    match format {
        Format::Json => output::json(&json!({
            "database": database,
            "set": set,
            "direction": direction.as_str(),
            "migrations_done": summary.migrations,
            "steps_done": summary.steps,
            "changed_rows": summary.rows,
            "elapsed_ms": u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            "ahead": ahead,
            "edited_downs": edited,
        })),
        Format::Text => {
            let verb = match direction {
                Direction::Up => "applied",
                Direction::Down => "undone",
            };
            if !ahead.is_empty() {
                output::data(&format!(
                    "{database} is ahead of these files: it has {} too",
                    ahead.join(", ")
                ));
            }
            if summary.migrations == 0 {
                output::data(&format!("{database}: nothing to do"));
            } else {
                output::data(&format!(
                    "{database}: {} migration{} {verb} ({} step{}, {} row{} changed by batches) in {:.1} s",
                    summary.migrations,
                    plural(u64::from(summary.migrations)),
                    summary.steps,
                    plural(u64::from(summary.steps)),
                    summary.rows,
                    plural(summary.rows),
                    elapsed.as_secs_f64(),
                ));
            }
        }
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}
