//! Shows how far a run is: a bar on a terminal, lines elsewhere.

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use shared::rollout::work::Progress;
use std::future::Future;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How often a long step is spoken of where there is no terminal.
const INTERVAL: Duration = Duration::from_secs(10);

/// Runs `work` and shows its progress on standard error beside it.
pub(super) async fn beside<T>(work: impl Future<Output = T>, mut progress: watch::Receiver<Progress>) -> T {
    let mut display = Display::new();
    let mut work = std::pin::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => {
                display.end();
                return done;
            }
            Ok(()) = progress.changed() => {
                let now = progress.borrow_and_update().clone();
                display.show(&now);
            }
        }
    }
}

enum Display {
    Bar(ProgressBar),
    Lines { step: (String, u32), said: Instant },
}

impl Display {
    fn new() -> Self {
        if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = ProgressBar::new_spinner().with_style(style);
            bar.enable_steady_tick(Duration::from_millis(100));
            Self::Bar(bar)
        } else {
            Self::Lines {
                step: (String::new(), 0),
                said: Instant::now(),
            }
        }
    }

    fn show(&mut self, progress: &Progress) {
        let Some(version) = progress.version.as_ref().filter(|_| progress.step > 0) else {
            return;
        };
        let line = line(progress);
        match self {
            Self::Bar(bar) => bar.set_message(line),
            Self::Lines { step, said } => {
                let now = (version.to_string(), progress.step);
                if *step != now || said.elapsed() >= INTERVAL {
                    (*step, *said) = (now, Instant::now());
                    output::note(&line);
                }
            }
        }
    }

    fn end(&self) {
        if let Self::Bar(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn line(progress: &Progress) -> String {
    let version = progress.version.as_ref().map_or("", |version| version.as_str());
    let rows = match (progress.rows, progress.estimated_rows) {
        (0, 0) => String::new(),
        (rows, 0) => format!(", {rows} rows"),
        (rows, estimated) => format!(", {rows} of about {estimated} rows"),
    };
    format!(
        "{version} {}: step {} of {}: {}{rows}",
        progress.migration, progress.step, progress.steps, progress.title
    )
}
