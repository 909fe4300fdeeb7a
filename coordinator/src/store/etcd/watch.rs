//! The hint that something changed: a watch on the prefix, rebuilt whenever it ends.
//!
//! It only hints, so it always watches from now on and hints once when it stands: whatever happened before is covered
//! by that, and a compaction cannot hurt it.

use super::call::Choice;
use super::connect::Members;
use etcd_client::{Error, GetOptions, WatchOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch::Sender;
use tokio_util::sync::CancellationToken;

/// How long a watch may take to stand.
const PATIENCE: Duration = Duration::from_secs(3);

/// The first pause before a watch is rebuilt; doubled each time in vain.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause: about the time in which readers look without a hint.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Why a watch ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("etcd could not be asked")]
    Failed(#[from] Error),
    #[error("etcd gave no answer")]
    Late(#[from] tokio::time::error::Elapsed),
    #[error("etcd ended it: {0}")]
    Cancelled(String),
    #[error("the connection ended")]
    Disconnected,
}

/// Follows the changes below a prefix until it is stopped.
pub(super) struct Watch {
    pub(super) members: Arc<Members>,
    pub(super) choice: Arc<Choice>,
    pub(super) prefix: String,
    pub(super) hint: Sender<u64>,
    pub(super) stop: CancellationToken,
}

impl Watch {
    /// Runs until it is stopped.
    pub(super) async fn run(self) {
        let stop = self.stop.clone();
        let mut pause = FIRST_PAUSE;
        loop {
            let mut stood = false;
            let member = self.choice.current();
            let ended = tokio::select! {
                () = stop.cancelled() => return,
                ended = self.follow(member, &mut stood) => ended,
            };
            self.choice.after(member);
            pause = if stood {
                FIRST_PAUSE
            } else {
                (pause * 2).min(LONGEST_PAUSE)
            };
            log(&self.prefix, &ended);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Builds one watch and follows it until it ends. `stood` tells whether it ever stood.
    async fn follow(&self, member: usize, stood: &mut bool) -> Ended {
        let ended = self.try_follow(member, stood).await;
        ended.map_or_else(|ended| ended, |never| match never {})
    }

    async fn try_follow(&self, member: usize, stood: &mut bool) -> Result<std::convert::Infallible, Ended> {
        let client = tokio::time::timeout(PATIENCE, self.members.client(member)).await??;
        // The client renews an expired login only for calls with an answer; a watch would be refused for ever.
        let nothing = GetOptions::new().with_keys_only().with_limit(1);
        let mut kv = client.kv_client();
        tokio::time::timeout(PATIENCE, kv.get(self.prefix.as_str(), Some(nothing))).await??;

        let options = WatchOptions::new().with_prefix().with_fragment();
        let mut client = client.watch_client();
        let opening = client.watch(self.prefix.as_str(), Some(options));
        let mut watch = tokio::time::timeout(PATIENCE, opening).await??;
        loop {
            let message = if *stood {
                watch.message().await?
            } else {
                tokio::time::timeout(PATIENCE, watch.message()).await??
            };
            let message = message.ok_or(Ended::Disconnected)?;
            if message.canceled() {
                return Err(Ended::Cancelled(message.cancel_reason().to_owned()));
            }
            *stood |= message.created();
            self.hint.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}

fn log(prefix: &str, ended: &Ended) {
    let cause: &(dyn std::error::Error + 'static) = ended;
    tracing::debug!(
        prefix,
        error = cause,
        "the watch on etcd ended; it will be rebuilt"
    );
}
