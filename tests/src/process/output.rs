//! What a child prints, kept line by line and open to watchers while it grows.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Data.
    Stdout,
    /// Everything else.
    Stderr,
}

/// One line, without its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was printed.
    pub stream: Stream,
    /// Its text; bytes that are no UTF-8 are replaced.
    pub text: String,
}

/// The lines of one child, from its first to its latest.
#[derive(Debug)]
pub(super) struct Output {
    lines: Mutex<Vec<Line>>,
    /// Streams that are still open; sent again with each line, so that watchers wake up.
    open: watch::Sender<usize>,
}

impl Output {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            lines: Mutex::default(),
            open: watch::Sender::new(0),
        })
    }

    /// Follows one stream on a thread of its own, to its end.
    pub(super) fn follow(
        self: &Arc<Self>,
        stream: Stream,
        from: impl Read + Send + 'static,
    ) -> JoinHandle<()> {
        self.open.send_modify(|open| *open += 1);
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut bytes = Vec::new();
            // An error means the pipe is broken, which is its end.
            while from.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&bytes)
                    .trim_end_matches(['\n', '\r'])
                    .to_owned();
                output.lines().push(Line { stream, text });
                output.open.send_modify(|_| {});
                bytes.clear();
            }
            output.open.send_modify(|open| *open -= 1);
        })
    }

    pub(super) fn lines(&self) -> MutexGuard<'_, Vec<Line>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first line that `is` wanted, as soon as it is printed; `None` when all streams ended without one.
    pub(super) async fn first(&self, is: impl Fn(&str) -> bool) -> Option<String> {
        let mut open = self.open.subscribe();
        let mut seen = 0;
        loop {
            let ended = *open.borrow_and_update() == 0;
            {
                let lines = self.lines();
                if let Some(line) = lines[seen..].iter().find(|line| is(&line.text)) {
                    return Some(line.text.clone());
                }
                seen = lines.len();
            }
            if ended || open.changed().await.is_err() {
                return None;
            }
        }
    }

    /// All lines of one stream, each with its end.
    pub(super) fn text(&self, stream: Stream) -> String {
        let lines = self.lines();
        lines
            .iter()
            .filter(|line| line.stream == stream)
            .flat_map(|line| [line.text.as_str(), "\n"])
            .collect()
    }

    /// The latest lines of both streams, for messages.
    pub(super) fn tail(&self) -> String {
        const SHOWN: usize = 40;
        let lines = self.lines();
        let hidden = lines.len().saturating_sub(SHOWN);
        lines[hidden..]
            .iter()
            .flat_map(|line| ["\n    ", line.text.as_str()])
            .collect()
    }
}
