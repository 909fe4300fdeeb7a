//! Shows how far a run is: a bar on a terminal, lines elsewhere, events as JSON where the output is JSON.

use crate::output::{self, Format};
use agent::work::StepResult;
use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};
use serde_json::json;
use shared::batch::Outlook;
use shared::lock::Ended;
use shared::rollout::work::Progress;
use std::future::Future;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// How often a long step is spoken of where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// The same, for machines.
const EVENT_INTERVAL: Duration = Duration::from_secs(1);

/// From this time on it is told how long a step waited for locks.
const WORTH_TELLING: Duration = Duration::from_millis(20);

/// Steps that may be done and not yet shown.
pub(super) const STEPS_AHEAD: usize = 64;

/// Runs `work` and shows its progress on standard error beside it.
pub(super) async fn beside<T>(
    work: impl Future<Output = T>,
    mut progress: watch::Receiver<Progress>,
    mut steps: mpsc::Receiver<StepResult>,
    format: Format,
) -> T {
    let mut display = Display::new(format);
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            biased;
            Some(step) = steps.recv() => display.step_done(&step),
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                display.show(&now);
            }
            done = &mut work => {
                while let Ok(step) = steps.try_recv() {
                    display.step_done(&step);
                }
                display.end();
                return done;
            }
        }
    }
}

struct Display {
    to: To,
    started: Instant,
    outlook: Outlook,
    /// What was last spoken of.
    step: (String, u32),
    said: Instant,
}

enum To {
    Bar(ProgressBar),
    Lines,
    Events,
}

impl Display {
    fn new(format: Format) -> Self {
        let to = match format {
            Format::Json => To::Events,
            Format::Text if std::io::stderr().is_terminal() => {
                let style = ProgressStyle::with_template("{spinner} {wide_msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner());
                let bar = ProgressBar::new_spinner().with_style(style);
                bar.enable_steady_tick(Duration::from_millis(100));
                To::Bar(bar)
            }
            Format::Text => To::Lines,
        };
        Self {
            to,
            started: Instant::now(),
            outlook: Outlook::default(),
            step: (String::new(), 0),
            said: Instant::now(),
        }
    }

    fn show(&mut self, progress: &Progress) {
        let Some(version) = progress.version.as_ref().filter(|_| progress.step > 0) else {
            return;
        };
        let now = (version.to_string(), progress.step);
        let is_new = self.step != now;
        if is_new {
            self.outlook = Outlook::default();
        }
        self.outlook.observe(self.started.elapsed(), progress.rows);
        let interval = match &self.to {
            To::Bar(bar) => {
                bar.set_message(line(progress, &self.outlook));
                return;
            }
            To::Lines => INTERVAL,
            To::Events => EVENT_INTERVAL,
        };
        if !is_new && self.said.elapsed() < interval {
            return;
        }
        (self.step, self.said) = (now, Instant::now());
        if matches!(self.to, To::Events) {
            output::note(&event(progress, &self.outlook).to_string());
        } else {
            output::note(&line(progress, &self.outlook));
        }
    }

    fn step_done(&self, step: &StepResult) {
        match &self.to {
            To::Events => output::note(&step_event(step).to_string()),
            // Other steps are as long as their line.
            To::Bar(_) | To::Lines
                if step.batches == 0 && step.lock_wait < WORTH_TELLING && step.ended.is_empty() => {}
            To::Bar(bar) => bar.suspend(|| output::note(&step_line(step))),
            To::Lines => output::note(&step_line(step)),
        }
    }

    fn end(&self) {
        if let To::Bar(bar) = &self.to {
            bar.finish_and_clear();
        }
    }
}

fn line(progress: &Progress, outlook: &Outlook) -> String {
    let version = progress.version.as_ref().map_or("", |version| version.as_str());
    let rows = match (progress.rows, progress.estimated_rows) {
        (0, 0) => String::new(),
        (rows, 0) => format!(", {rows} rows"),
        (rows, estimated) => format!(", {rows} of about {estimated} rows"),
    };
    let rate = outlook.rate().filter(|rate| *rate > 0.0);
    let rate = rate.map_or(String::new(), |rate| format!(", {rate:.0}/s"));
    let left = left(progress, outlook).map_or(String::new(), |(least, most)| {
        if least == most {
            format!(", {} left", duration(least))
        } else {
            format!(", {} to {} left", duration(least), duration(most))
        }
    });
    let pace = match (progress.pace.as_str(), progress.workers) {
        ("", _) => String::new(),
        (pace, 0 | 1) => format!("{}, {pace}", batches(progress)),
        (pace, workers) => format!(", {workers} workers{}, {pace}", batches(progress)),
    };
    format!(
        "{version} {}: step {} of {}: {}{rows}{rate}{left}{pace}",
        progress.migration, progress.step, progress.steps, progress.title
    )
}

/// The size of batches and how many were tried again.
fn batches(progress: &Progress) -> String {
    let size = match progress.batch_rows {
        0 => String::new(),
        1 => ", batches of 1 row".to_owned(),
        rows => format!(", batches of {rows} rows"),
    };
    size + &retries(progress.retries)
}

fn retries(retries: u64) -> String {
    match retries {
        0 => String::new(),
        1 => ", 1 retry".to_owned(),
        retries => format!(", {retries} retries"),
    }
}

/// Seconds left, at least and at most.
fn left(progress: &Progress, outlook: &Outlook) -> Option<(u64, u64)> {
    let rows = progress.estimated_rows.checked_sub(progress.rows)?;
    let left = outlook.left(rows)?;
    Some((left.start().as_secs(), left.end().as_secs()))
}

fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn step_line(step: &StepResult) -> String {
    let wal = (step.wal_bytes).map_or(String::new(), |bytes| {
        format!(", {} of WAL by the whole server meanwhile", HumanBytes(bytes))
    });
    let retries = retries(step.retries);
    let vacuums = match step.vacuums {
        0 => String::new(),
        1 => ", 1 vacuum".to_owned(),
        vacuums => format!(", {vacuums} vacuums"),
    };
    let verified = step.evidence.map_or(String::new(), |found| {
        format!(
            ", verified: {} rows, {} differ, {} left out, digest {:016x}",
            HumanCount(found.rows),
            HumanCount(found.differing),
            HumanCount(found.remaining),
            found.digest
        )
    });
    let rows = match step.batches {
        0 => String::new(),
        batches => format!(
            "{} row{} in {} batch{}, ",
            HumanCount(step.rows),
            if step.rows == 1 { "" } else { "s" },
            HumanCount(batches),
            if batches == 1 { "" } else { "es" },
        ),
    };
    format!(
        "{} {}: step {} of {} done: {rows}{:.1} s{retries}{vacuums}{wal}{verified}{}",
        step.version,
        step.migration,
        step.step,
        step.steps,
        step.elapsed.as_secs_f64(),
        locks(step),
    )
}

/// A session that was in the way.
fn ended(ended: &Ended) -> serde_json::Value {
    json!({
        "pid": ended.pid,
        "user": ended.user,
        "application": ended.application,
        "idle_s": ended.idle,
        "transaction_s": ended.age,
        "query": ended.query,
        "reason": ended.reason(),
    })
}

/// What getting locks took, where that is worth telling.
fn locks(step: &StepResult) -> String {
    let sessions: Vec<String> = (step.ended.iter())
        .map(|session| format!("; ended a session in the way: {session}"))
        .collect();
    let sessions = sessions.concat();
    if step.lock_wait < WORTH_TELLING && step.stall.is_zero() {
        return sessions;
    }
    let stall = match step.stall {
        Duration::ZERO => "nobody waited behind it".to_owned(),
        stall => format!("others waited {:.2} s behind it", stall.as_secs_f64()),
    };
    format!(
        ", waited {:.2} s for locks in {} {}, {stall}{sessions}",
        step.lock_wait.as_secs_f64(),
        step.lock_tries,
        if step.lock_tries == 1 { "try" } else { "tries" },
    )
}

fn event(progress: &Progress, outlook: &Outlook) -> serde_json::Value {
    let left = left(progress, outlook);
    json!({
        "event": "progress",
        "version": progress.version,
        "migration": progress.migration,
        "step": progress.step,
        "steps": progress.steps,
        "title": progress.title,
        "rows": progress.rows,
        "estimated_rows": progress.estimated_rows,
        "rows_per_second": outlook.rate(),
        "left_least_s": left.map(|left| left.0),
        "left_most_s": left.map(|left| left.1),
        "workers": progress.workers,
        "batch_rows": progress.batch_rows,
        "retries": progress.retries,
        "pace": progress.pace,
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn step_event(step: &StepResult) -> serde_json::Value {
    json!({
        "event": "step_done",
        "version": step.version,
        "migration": step.migration,
        "step": step.step,
        "steps": step.steps,
        "title": step.title,
        "rows": step.rows,
        "batches": step.batches,
        "retries": step.retries,
        "vacuums": step.vacuums,
        "wal_bytes": step.wal_bytes,
        "evidence": step.evidence,
        "lock_tries": step.lock_tries,
        "lock_wait_ms": milliseconds(step.lock_wait),
        "stall_ms": milliseconds(step.stall),
        "ended_sessions": step.ended.iter().map(ended).collect::<Vec<_>>(),
        "elapsed_ms": milliseconds(step.elapsed),
    })
}
