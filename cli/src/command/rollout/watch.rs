//! `confiture rollout watch`: what happens until a rollout has ended, over as many streams as it takes.

use super::board::Board;
use super::display::Display;
use super::{not_understood, required, text, view};
use crate::context::Global;
use crate::failure::Failure;
use crate::operator::{At, Operator, Patience};
use proto::{convert, v1};
use shared::rollout::view::{Assignment, Rollout, State};
use shared::rollout::work::Exit;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// How often what is shown is brought up to date without news: the time that has passed.
const TICK: Duration = Duration::from_secs(1);

/// `confiture rollout watch ID`
#[derive(Debug, clap::Args)]
#[command(after_long_help = view::HELP)]
pub(crate) struct Watch {
    /// Its id, or the beginning of it
    #[arg(value_name = "ID")]
    rollout: String,
    #[command(flatten)]
    at: At,
}

impl Watch {
    pub(super) async fn run(self, global: &Global) -> Result<Exit, Failure> {
        let mut operator = Operator::new(&self.at, global)?;
        to_the_end(&mut operator, &self.rollout, Display::new(global.output)).await
    }
}

/// Watches until the rollout has ended; the exit code says how.
pub(super) async fn to_the_end(
    operator: &mut Operator,
    id: &str,
    mut display: Display,
) -> Result<Exit, Failure> {
    let stop = runtime::shutdown::token()?;
    let watched = watch(operator, id, &mut display, &stop).await;
    display.end();
    match watched? {
        Watched::Ended(board) => {
            display.summary(&board);
            verdict(&board)
        }
        Watched::Stopped => Err(goes_on(id, "stopped watching")),
    }
}

/// Whether nothing will happen any more without someone.
fn is_over(rollout: &Rollout) -> bool {
    rollout.state.is_ended() || (rollout.halted && rollout.databases.running == 0)
}

enum Watched {
    Ended(Box<Board>),
    /// The user wants no more of it.
    Stopped,
}

async fn watch(
    operator: &mut Operator,
    id: &str,
    display: &mut Display,
    stop: &CancellationToken,
) -> Result<Watched, Failure> {
    let doing = format!("watch rollout {id}");
    let mut board: Option<Board> = None;
    let mut patience = operator.patience();
    loop {
        let streamed = tokio::select! {
            streamed = stream(operator, id, &mut board, display, &mut patience) => streamed,
            () = stop.cancelled() => return Ok(Watched::Stopped),
        };
        let status = match streamed {
            Ok(()) => Status::unavailable("it ended the stream before the rollout had ended"),
            Err(Trouble::Answer(failure)) => return Err(failure),
            Err(Trouble::Status(status)) => *status,
        };
        if let Some(board) = board.take_if(|board| is_over(&board.rollout)) {
            return Ok(Watched::Ended(Box::new(board)));
        }
        let taken = tokio::select! {
            taken = operator.take(&status, &doing, &mut patience, |text| display.note(text)) => taken,
            () = stop.cancelled() => return Ok(Watched::Stopped),
        };
        if let Err(failure) = taken {
            // What has been seen once is known to exist: whoever lost sight of it can look again.
            return Err(match board {
                Some(_) if failure.exit == Exit::Failed => goes_on(id, &failure.message),
                Some(_) | None => failure,
            });
        }
    }
}

enum Trouble {
    Status(Box<Status>),
    Answer(Failure),
}

impl From<Status> for Trouble {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

/// One stream, until it or the rollout ends.
async fn stream(
    operator: &mut Operator,
    id: &str,
    board: &mut Option<Board>,
    display: &mut Display,
    patience: &mut Patience,
) -> Result<(), Trouble> {
    let mut client = operator.client().await?;
    let request = v1::WatchRolloutRequest { id: id.to_owned() };
    let mut updates = client.watch_rollout(request).await?.into_inner();
    let mut tick = tokio::time::interval(TICK);
    loop {
        let update = tokio::select! {
            update = updates.message() => update?,
            _ = tick.tick() => {
                display.tick();
                continue;
            }
        };
        let Some(update) = update else { return Ok(()) };
        *patience = operator.patience();
        take(update, board, display).map_err(Trouble::Answer)?;
        if board.as_ref().is_some_and(|board| is_over(&board.rollout)) {
            return Ok(());
        }
    }
}

fn take(
    update: v1::WatchRolloutResponse,
    board: &mut Option<Board>,
    display: &mut Display,
) -> Result<(), Failure> {
    let rollout = convert::view::rollout_from_wire(required(update.rollout, "rollout")?)
        .map_err(|error| not_understood(&error))?;
    let assignments: Vec<Assignment> = update
        .changed
        .into_iter()
        .map(convert::view::assignment_from_wire)
        .collect::<Result<_, _>>()
        .map_err(|error| not_understood(&error))?;
    let board = board.get_or_insert_with(|| Board::new(rollout.clone()));
    let changes = board.update(rollout, assignments);
    display.show(board, &changes);
    Ok(())
}

/// How the rollout ended, as an exit code.
fn verdict(board: &Board) -> Result<Exit, Failure> {
    let rollout = &board.rollout;
    let errors = text::errors(board.assignments.values());
    let errors = if errors.is_empty() {
        String::new()
    } else {
        format!("\n{errors}")
    };
    match rollout.state {
        State::Done => Ok(Exit::Done),
        State::Failed => Err(Failure::failed(format!(
            "{} of {} failed{errors}\n  help: what is done stays done; once the cause is mended, `confiture rollout retry {}` tries the others again",
            rollout.databases.failed,
            text::count(rollout.databases.total.into(), "database"),
            rollout.id,
        ))),
        State::Paused => Err(Failure {
            message: format!(
                "the rollout is paused ({}), {} of {} are done{errors}\n  help: mend the cause and use `confiture rollout retry {id}`, leave databases out with `confiture rollout skip {id} DATABASE` and then, or all the same, go on with `confiture rollout resume {id}` (which asks a check that did not pass again, unless you say --ignore-checks), or end it with `confiture rollout abort {id}`",
                rollout.reason,
                rollout.databases.done,
                text::count(rollout.databases.total.into(), "database"),
                id = rollout.id,
            ),
            exit: Exit::Stopped,
        }),
        State::Aborted | State::Running | State::Aborting => Err(Failure {
            message: format!(
                "the rollout was aborted{}, {} of {} are done{errors}\n  help: start the rollout again to go on where it stopped",
                if rollout.reason.is_empty() {
                    String::new()
                } else {
                    format!(" ({})", rollout.reason)
                },
                rollout.databases.done,
                text::count(rollout.databases.total.into(), "database"),
            ),
            exit: Exit::Stopped,
        }),
    }
}

/// Nobody watches any more, but the fleet works on.
fn goes_on(id: &str, why: &str) -> Failure {
    Failure {
        message: format!(
            "{why}\n  help: the rollout goes on without being watched; `confiture rollout watch {id}` shows it again, `confiture rollout abort {id}` ends it"
        ),
        exit: Exit::Stopped,
    }
}
