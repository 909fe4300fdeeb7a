//! Waiting for a condition, with a deadline. Nothing here sleeps for luck.

use anyhow::{anyhow, bail};
use std::future::Future;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_millis(20);

/// Asks again and again until the answer is `Ok(Some(value))`; after `deadline` fails, naming `what` was awaited.
///
/// An error of the condition counts as "not yet" (a server may be down on purpose); the last one is shown.
pub async fn eventually<T, F>(
    what: &str,
    deadline: Duration,
    mut condition: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<Option<T>>>,
{
    let end = Instant::now() + deadline;
    let mut last = None;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match tokio::time::timeout(left.max(PAUSE), condition()).await {
            Ok(Ok(Some(value))) => return Ok(value),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = last.or_else(|| Some(anyhow!("no answer in time"))),
        }
        if Instant::now() >= end {
            let last = last
                .map(|error| format!("; last answer: {error:#}"))
                .unwrap_or_default();
            bail!("waited {deadline:?} in vain for {what}{last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
