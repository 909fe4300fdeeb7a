//! What is done with a new rollout before the reign sees it: its bundle is parsed and stored, whatever the fleet is.

use super::{Context, status};
use crate::reign::{Command, Founded, FoundedBy, Wish};
use crate::seat::{Reigning, Seat};
use proto::convert::request::Create;
use proto::{convert, v1};
use shared::ledger::{DataLoss, newest_keep_data};
use shared::migration::{Set, Version};
use shared::plan::Strategies;
use shared::rollout::{Bundle, undo};
use shared::trace::Place;
use std::time::Duration;
use tokio::sync::oneshot;
use tonic::{Request, Status};

/// Who asks is recorded up to this size.
const LONGEST_NAME_BYTES: usize = 256;

/// The longest selector that is taken, all labels and values together.
const LONGEST_SELECTOR_BYTES: usize = 8 * 1024;

/// How long the reign may take to answer; its own waiting for the store is shorter.
const ANSWER: Duration = Duration::from_secs(30);

impl Context {
    /// The reign of this coordinator, if it leads.
    pub(super) fn reigning(&self) -> Result<Reigning, Status> {
        match &*self.seat.borrow() {
            Seat::Leading(reigning) => Ok(reigning.clone()),
            Seat::Following { leader } => Err(status::not_leading(leader.as_deref())),
        }
    }

    /// Asks the reign. Its answer may be lost with it; whether it acted is seen by asking again.
    pub(super) async fn ask<T>(
        &self,
        reigning: &Reigning,
        question: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, Status> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            reigning.inbox.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(status::leadership_moved()),
            Err(_elapsed) => Err(Status::unavailable("the store takes too long; ask again")),
        }
    }

    pub(super) async fn create(
        &self,
        request: v1::CreateRolloutRequest,
        trace: Option<Place>,
    ) -> Result<v1::CreateRolloutResponse, Status> {
        let reigning = self.reigning()?;
        let create = Create::from_wire(request).map_err(|error| status::invalid(&error.chain()))?;
        check_selector(&create)?;
        // Parsing hundreds of files takes longer than a handler may hold its thread.
        let (bundle, strategies) = (create.bundle, create.policy.strategies.clone());
        let parsed = tokio::task::spawn_blocking(move || parse(bundle, &strategies)).await;
        let parsed = parsed.map_err(|_| Status::internal("reading the migrations ended unexpectedly"))??;
        let Parsed {
            bundle,
            bytes,
            versions,
        } = parsed;
        let set = bundle.set.clone();
        let kept = self.bundles.keep(reigning.term, bundle, bytes).await;
        // Not removed before the rollout is founded.
        let (bundle, _pin) = kept.map_err(|error| status::of_bundle(&error))?;
        let wish = Wish {
            request: create.request,
            set,
            bundle,
            versions,
            selector: create.selector,
            policy: create.policy,
            created_by: clip(create.created_by),
            trace,
        };
        let wish = Box::new(wish);
        let founded = self
            .ask(&reigning, |reply| Command::Found { wish, reply })
            .await?;
        let Founded { rollout, by } = founded.map_err(|refusal| status::of_refusal(&refusal))?;
        Ok(v1::CreateRolloutResponse {
            rollout: Some(convert::view::rollout_to_wire(rollout)),
            created: by == FoundedBy::This,
        })
    }
}

impl Context {
    /// Passes unless an undo is bound to be refused wherever its rollout was completed, as far as the migrations alone
    /// tell. Each database is asked again, by its ledger.
    pub(super) async fn keeps_data(
        &self,
        reigning: &Reigning,
        id: &str,
        wish: &undo::Wish,
    ) -> Result<(), Status> {
        let book = reigning.book.borrow().clone();
        let rollout = book.find(id).map_err(|error| status::of_search(&error))?;
        let of = &rollout.spec().id;
        let asked_before = book.founded_by(&wish.request).is_some();
        let begun = rollout.counts().done > 0 || rollout.in_flight() > 0;
        if wish.data_loss == DataLoss::Allowed
            || asked_before
            || !begun
            || rollout.spec().undoes().is_some()
            || book.undo_under_way(of).or_else(|| book.undone_by(of)).is_some()
        {
            return Ok(());
        }
        let newest = undo::most_migrations(rollout);
        let bundle = self.bundles.fetch(rollout.spec().bundle).await;
        let bundle = bundle.map_err(|error| status::of_bundle(&error))?;
        let judged = tokio::task::spawn_blocking(move || {
            let set = Set::parse(Some(bundle.set.clone()), &bundle.files).ok()?;
            newest_keep_data(&set, newest).err()
        });
        match judged.await {
            Ok(None) => Ok(()),
            Ok(Some(conflict)) => Err(status::refused(&format!("nothing was done, as {conflict}"))),
            Err(_) => Err(Status::internal("reading the migrations ended unexpectedly")),
        }
    }
}

/// A bundle that holds what it must.
pub(super) struct Parsed {
    pub(super) bundle: Bundle,
    bytes: Vec<u8>,
    versions: Vec<Version>,
}

/// Reads the migrations, for whose tables these strategies are said.
pub(super) fn parse(bundle: Bundle, strategies: &Strategies) -> Result<Parsed, Status> {
    let set = Set::parse(Some(bundle.set.clone()), &bundle.files)
        .map_err(|problems| status::invalid(&format!("the migrations cannot be used:\n{problems}")))?;
    if set.migrations.is_empty() {
        return Err(status::invalid("the bundle holds no migration"));
    }
    (strategies.fit(&set)).map_err(|problem| status::invalid(&problem))?;
    let versions = set
        .migrations
        .into_iter()
        .map(|migration| migration.version)
        .collect();
    Ok(Parsed {
        bytes: bundle.to_bytes(),
        bundle,
        versions,
    })
}

fn check_selector(create: &Create) -> Result<(), Status> {
    let length = create.selector.to_string().len();
    if length > LONGEST_SELECTOR_BYTES {
        let text = format!("the selector is {length} bytes long, at most {LONGEST_SELECTOR_BYTES} are taken");
        return Err(status::invalid(&text));
    }
    Ok(())
}

/// Under which span of the caller's a request was made: its `traceparent`. One that cannot be read is none, as W3C has it.
pub(super) fn caller<T>(request: &Request<T>) -> Option<Place> {
    let given = request.metadata().get("traceparent")?;
    given.to_str().ok()?.parse().ok()
}

pub(super) fn clip(mut name: String) -> String {
    name.truncate(name.floor_char_boundary(LONGEST_NAME_BYTES));
    name
}
