//! Coordinators in this process, on a store in memory, over real gRPC; the agents are scripted by each test.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what helps a test fails as the test does"
)]

mod agent;
mod coordinator;
mod fleet;
mod leadership;
mod operators;
mod outage;
mod rollouts;

use std::time::Duration;

/// Nothing in these tests takes longer, unless it never comes.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Waits until a condition holds.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "waited in vain for {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
