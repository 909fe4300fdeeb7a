//! The bundles this agent has received, by digest, bounded in number.
//!
//! A coordinator sends a bundle once per stream before the first message that needs it. The content is checked against
//! its digest and parsed by whoever needs it first, off the loop that answers heartbeats.

use shared::id::Digest;
use shared::migration::Set;
use shared::retry::Retryability;
use shared::rollout::Bundle as Content;
use shared::rollout::work::{Exit, Failure};
use std::sync::Arc;
use tokio::sync::OnceCell;

/// How many bundles are kept. Rollouts on one agent at the same time are few; each has one bundle.
const KEPT: usize = 32;

/// The bundles, the one used last at the end.
#[derive(Debug, Default)]
pub(super) struct Bundles(Vec<Arc<Bundle>>);

impl Bundles {
    /// Keeps a bundle; what is known of the same digest is replaced, since it may have arrived damaged before.
    pub(super) fn insert(&mut self, bundle: Bundle) {
        self.0.retain(|kept| kept.digest != bundle.digest);
        if self.0.len() == KEPT {
            self.0.remove(0);
        }
        self.0.push(Arc::new(bundle));
    }

    /// The bundle of a digest, if it is here.
    pub(super) fn find(&mut self, digest: Digest) -> Option<Arc<Bundle>> {
        let at = self.0.iter().position(|bundle| bundle.digest == digest)?;
        let bundle = self.0.remove(at);
        self.0.push(bundle.clone());
        Some(bundle)
    }
}

/// The files of one migration set, as a coordinator sent them.
#[derive(Debug)]
pub(super) struct Bundle {
    digest: Digest,
    content: Arc<Content>,
    parsed: OnceCell<Result<Arc<Set>, Failure>>,
}

impl Bundle {
    pub(super) fn new(digest: Digest, content: Content) -> Self {
        Self {
            digest,
            content: Arc::new(content),
            parsed: OnceCell::new(),
        }
    }

    /// The set, checked and parsed; the first call does the work.
    ///
    /// # Errors
    /// When the files do not hash to the digest, or are no set that this version understands.
    ///
    /// # Cancel safety
    /// The next call starts over.
    pub(super) async fn set(&self) -> Result<Arc<Set>, Failure> {
        self.parsed
            .get_or_init(|| async {
                let (digest, content) = (self.digest, self.content.clone());
                // Parsing hundreds of files takes longer than a task may hold its thread.
                tokio::task::spawn_blocking(move || parse(digest, &content))
                    .await
                    .unwrap_or_else(|_| {
                        Err(failure(format!(
                            "reading the migrations of bundle {} ended unexpectedly",
                            digest.short()
                        )))
                    })
            })
            .await
            .clone()
    }
}

fn parse(digest: Digest, content: &Content) -> Result<Arc<Set>, Failure> {
    let found = content.digest();
    if found != digest {
        return Err(Failure {
            retry: Retryability::Retry,
            ..failure(format!(
                "the bundle {} arrived damaged: its content has the digest {}",
                digest.short(),
                found.short()
            ))
        });
    }
    Set::parse(Some(content.set.clone()), &content.files)
        .map(Arc::new)
        .map_err(|problems| Failure {
            exit: Exit::Usage,
            ..failure(format!(
                "this agent (version {}) cannot read the migrations:\n{problems}",
                env!("CARGO_PKG_VERSION")
            ))
        })
}

fn failure(message: String) -> Failure {
    Failure {
        message,
        retry: Retryability::GiveUp,
        exit: Exit::Failed,
    }
}
