//! One question about many databases: who is asked, and the answers as they come, each once.

use super::Context;
use crate::inquiries::Found;
use crate::reign::Command;
use crate::seat::Reigning;
use shared::id::DatabaseName;
use shared::inquiry::{Inquiry, Whom};
use shared::rollout::Bundle;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tonic::Status;

/// An inquiry ends after this, whatever is missing.
const LONGEST: Duration = Duration::from_mins(1);

/// Answers on their way to whoever asked.
const OUTBOX: usize = 16;

impl Context {
    /// Asks about these databases, with the bundle that the question names. Each is found once, or once for each agent that
    /// is to answer; the channel then ends.
    pub(super) async fn inquire(
        self: &Arc<Self>,
        reigning: &Reigning,
        databases: Vec<DatabaseName>,
        what: Inquiry,
        bundle: Option<Arc<Bundle>>,
    ) -> Result<mpsc::Receiver<Found>, Status> {
        let book = reigning.book.borrow().clone();
        let known = book.fleet().databases().keys().cloned().collect();
        let answers = match what.whom() {
            Whom::Any => databases.len(),
            Whom::Each => (databases.iter())
                .map(|database| book.fleet().claims(database).count())
                .sum(),
        };
        let asking = self.inquiries.begin(&what, answers, &known);
        let inquiry = asking.number;
        let asked = self
            .ask(reigning, |reply| Command::Inquire {
                inquiry,
                databases,
                what,
                bundle,
                reply,
            })
            .await?;
        let (outbox, found) = mpsc::channel(OUTBOX);
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            // Whoever asked may have gone; if it is us who go, it sees the end of the channel.
            let _: Option<()> = stop
                .run_until_cancelled(asking.collect(asked, LONGEST, outbox))
                .await;
        });
        Ok(found)
    }
}
