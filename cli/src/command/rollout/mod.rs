//! `confiture rollout`: migrations over a fleet.

mod board;
mod chosen;
mod control;
mod display;
mod list;
mod plan;
mod policy;
mod report;
mod show;
mod start;
mod text;
mod trace;
mod undo;
mod view;
mod watch;

use crate::context::Global;
use crate::failure::{Failure, chain};
use crate::operator::Operator;
use clap::Subcommand;
use proto::{convert, v1};
use shared::rollout::Verb;
use shared::rollout::view::{Assignment, Rollout as Shown, Stretch};
use shared::rollout::work::Exit;

/// `confiture rollout start|plan|list|show|trace|report|watch|pause|resume|abort|retry|skip|approve|undo`
#[derive(Debug, Subcommand)]
pub(crate) enum Rollout {
    /// Bring migrations to the databases of the fleet
    Start(start::Start),
    /// Say what a rollout would do to each database, and for how long; changes nothing
    Plan(plan::Plan),
    /// List all rollouts, the newest first
    List(list::List),
    /// Show one rollout and each of its databases
    Show(show::Show),
    /// Tell why it took so long: what happened to its databases, moment by moment
    Trace(trace::Trace),
    /// Tell what a rollout did and cost, to be kept
    Report(report::Report),
    /// Show what happens until the rollout has ended; the exit code says how it ended
    Watch(watch::Watch),
    /// Begin no further database until `resume`, and stop those at work at their next safe point
    Pause(control::Ask),
    /// Go on; failures so far do not count any more
    Resume(control::Resume),
    /// Begin no further database, and stop those at work at their next safe point
    Abort(control::Ask),
    /// Try databases again that failed, also when the rollout has ended
    Retry(control::Retry),
    /// Leave databases out
    Skip(control::Skip),
    /// Let a wave begin that waits for it
    Approve(control::Approve),
    /// Take it back: abort it, and undo what it has applied
    Undo(undo::Undo),
}

impl Rollout {
    pub(crate) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        match self {
            Self::Start(start) => start.run(global).await,
            Self::Plan(plan) => plan.run(global).await,
            Self::List(list) => list.run(global).await,
            Self::Show(show) => show.run(global).await,
            Self::Trace(trace) => trace.run(global).await,
            Self::Report(report) => report.run(global).await,
            Self::Watch(watch) => watch.run(global).await,
            Self::Pause(ask) => ask.run(Verb::Pause, global).await,
            Self::Resume(resume) => resume.run(global).await,
            Self::Abort(ask) => ask.run(Verb::Abort, global).await,
            Self::Retry(retry) => retry.run(global).await,
            Self::Skip(skip) => skip.run(global).await,
            Self::Approve(approve) => approve.run(global).await,
            Self::Undo(undo) => undo.run(global).await,
        }
    }
}

/// A rollout with all its databases.
struct Whole {
    rollout: Shown,
    assignments: Vec<Assignment>,
    /// What its time went into.
    timeline: Vec<Stretch>,
}

/// A rollout by its id, or the beginning of it.
async fn whole(operator: &mut Operator, doing: &str, id: String) -> Result<Whole, Failure> {
    let request = v1::GetRolloutRequest { id };
    let answer = operator
        .ask(doing, async |mut client| {
            client.get_rollout(request.clone()).await
        })
        .await?;
    let rollout = convert::view::rollout_from_wire(required(answer.rollout, "rollout")?)
        .map_err(|error| not_understood(&error))?;
    let assignments = answer
        .assignments
        .into_iter()
        .map(convert::view::assignment_from_wire)
        .collect::<Result<_, _>>()
        .map_err(|error| not_understood(&error))?;
    let timeline = answer.timeline.into_iter();
    Ok(Whole {
        rollout,
        assignments,
        timeline: timeline.filter_map(convert::view::stretch_from_wire).collect(),
    })
}

/// An answer that is not as the protocol says: most likely of a newer coordinator.
fn not_understood(error: &convert::Error) -> Failure {
    Failure::failed(format!(
        "cannot read the coordinator's answer: {}\n  help: is `confiture` here as new as the coordinator's?",
        chain(error)
    ))
}

/// A part of an answer that must be there.
fn required<T>(part: Option<T>, what: &'static str) -> Result<T, Failure> {
    part.ok_or_else(|| not_understood(&convert::Error::Missing(what)))
}
