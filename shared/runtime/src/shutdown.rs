//! Signals: the first asks for an orderly end, the second ends the process at once.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The exit code after a second signal: what a shell reports for an interrupted program.
const EXIT_INTERRUPTED: i32 = 130;

/// Signals cannot be listened to.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for signals")]
pub struct Error(#[source] std::io::Error);

/// A token that SIGINT or SIGTERM cancels. A second one of either ends the process with exit code 130.
///
/// Call it once, at the start of `main`. The listening task has no owner on purpose: it must answer the second signal
/// even when everything else hangs, and it ends with the runtime.
///
/// # Errors
/// When the system refuses to install the handlers.
///
/// # Panics
/// When called outside a tokio runtime.
pub fn token() -> Result<CancellationToken, Error> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Error)?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = next(&mut interrupt, &mut terminate).await;
        tracing::info!(signal = first, "stopping; send the signal again to end at once");
        cancelled.cancel();
        let second = next(&mut interrupt, &mut terminate).await;
        tracing::warn!(signal = second, "ended at once by a second signal");
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(token)
}

/// Waits for one of the two and says which.
async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Signal as Number, getpid, kill_process};
    use std::time::Duration;

    #[tokio::test]
    async fn the_first_signal_cancels_the_token() {
        let token = token().unwrap();
        assert!(!token.is_cancelled());
        kill_process(getpid(), Number::TERM).unwrap();
        tokio::time::timeout(Duration::from_secs(5), token.cancelled())
            .await
            .unwrap();
    }
}
