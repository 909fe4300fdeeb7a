//! Founding a rollout: whether it may be, and what it is.

use super::command::{FoundedBy, Refusal, Wish};
use shared::id::{Digest, RolloutId, SetName};
use shared::rollout::waves::{self, Wave};
use shared::rollout::work::Aim;
use shared::rollout::{Book, Policy, Selector, Spec, Time, undo};
use std::collections::{BTreeMap, BTreeSet};

/// How many names or labels a message lists.
const LISTED: usize = 20;

/// A rollout to be founded, or founded before by the same request.
pub(super) enum Finding {
    New(Box<Spec>),
    Known(RolloutId),
}

impl Finding {
    pub(super) fn by(&self) -> FoundedBy {
        match self {
            Self::New(_) => FoundedBy::This,
            Self::Known(_) => FoundedBy::Earlier,
        }
    }
}

/// What a wish becomes. `random` gives bits for ids.
pub(super) fn found(
    book: &Book,
    wish: Wish,
    now: Time,
    random: impl FnMut() -> u64,
) -> Result<Finding, Refusal> {
    if let Some(known) = book.founded_by(&wish.request) {
        let spec = known.spec();
        let same = spec.bundle == wish.bundle && spec.selector == wish.selector && spec.policy == wish.policy;
        if same {
            return Ok(Finding::Known(spec.id.clone()));
        }
        return Err(Refusal::OtherContent {
            request: wish.request,
            rollout: spec.id.clone(),
        });
    }
    let waves = waves(book, &wish.set, wish.bundle, &wish.selector, &wish.policy)?;
    let id = new_id(book, random);
    Ok(Finding::New(Box::new(Spec {
        id,
        request: wish.request,
        number: book.next_number(),
        set: wish.set,
        bundle: wish.bundle,
        versions: wish.versions,
        aim: Aim::Apply,
        selector: wish.selector,
        policy: wish.policy,
        created_by: wish.created_by,
        reason: String::new(),
        created_at: now,
        trace: wish.trace,
        waves,
    })))
}

/// The waves of a rollout over the fleet as it is now.
pub(crate) fn waves(
    book: &Book,
    set: &SetName,
    bundle: Digest,
    selector: &Selector,
    policy: &Policy,
) -> Result<Vec<Wave>, Refusal> {
    let fleet = book.fleet().databases();
    let matching = fleet
        .iter()
        .filter(|(_, database)| selector.matches(&database.labels()));
    let databases: BTreeMap<_, _> = matching
        .map(|(name, database)| (name.clone(), database.labels()))
        .collect();
    if databases.is_empty() {
        return Err(Refusal::NoMatch {
            selector: selector.clone(),
            known: known(book, selector),
        });
    }
    // The same migrations over the same fleet have the same canaries, so that a plan says which.
    let seed = format!("{set} {bundle}");
    waves::plan(policy, &databases, &seed).map_err(Refusal::Waves)
}

/// What taking back a rollout becomes: a rollout of its own, or one that is under way.
pub(super) fn undo(
    book: &Book,
    of: &RolloutId,
    wish: undo::Wish,
    now: Time,
    random: impl FnMut() -> u64,
) -> Result<Finding, Refusal> {
    if let Some(known) = book.founded_by(&wish.request) {
        let id = known.spec().id.clone();
        return if known.spec().undoes() == Some(of) {
            Ok(Finding::Known(id))
        } else {
            Err(Refusal::OtherContent {
                request: wish.request,
                rollout: id,
            })
        };
    }
    if let Some(known) = book.undo_under_way(of).or_else(|| book.undone_by(of)) {
        return Ok(Finding::Known(known.spec().id.clone()));
    }
    let undone = book.find(of.as_str())?;
    let spec = book.undo(undone, wish, new_id(book, random), now)?;
    Ok(Finding::New(Box::new(spec)))
}

fn new_id(book: &Book, mut random: impl FnMut() -> u64) -> RolloutId {
    loop {
        let id = RolloutId::from_random(random());
        if !book.rollouts().contains_key(&id) {
            return id;
        }
    }
}

/// What there is to choose from, for one who chose nothing.
fn known(book: &Book, selector: &Selector) -> String {
    let databases = book.fleet().databases();
    if databases.is_empty() {
        return "no agent has registered any database yet (is an agent running, and does it reach a coordinator?)"
            .to_owned();
    }
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for database in databases.values() {
        for (label, value) in database.labels() {
            labels.entry(label).or_default().insert(value);
        }
    }
    let wanted = match selector {
        Selector::All => BTreeMap::new(),
        Selector::Labels(wanted) => wanted.clone(),
    };
    // The labels that were asked for come first: most often a value is misspelt.
    let (asked, other): (Vec<_>, Vec<_>) = labels
        .into_iter()
        .partition(|(label, _)| wanted.contains_key(label));
    let pairs = asked.into_iter().chain(other).flat_map(|(label, values)| {
        values
            .into_iter()
            .map(move |value| format!("{label}={value}"))
            .collect::<Vec<_>>()
    });
    let labels = list(pairs.collect());
    let names = list(databases.keys().map(ToString::to_string).collect());
    if labels.is_empty() {
        format!("no database has labels (databases: {names})")
    } else {
        format!("known labels are {labels} (databases: {names})")
    }
}

fn list(mut all: Vec<String>) -> String {
    let more = all.len().saturating_sub(LISTED);
    all.truncate(LISTED);
    let listed = all.join(", ");
    if more == 0 {
        listed
    } else {
        format!("{listed} and {more} more")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::{AgentId, DatabaseName, Instance, RequestId};
    use shared::rollout::message::Hello;

    fn book() -> Book {
        let mut book = Book::default();
        let labels = |env: &str| BTreeMap::from([("env".to_owned(), env.to_owned())]);
        let hello = Hello {
            agent: AgentId::try_from("x").unwrap(),
            instance: Instance(uuid::Uuid::nil()),
            version: String::new(),
            databases: BTreeMap::from([
                (DatabaseName::try_from("orders").unwrap(), labels("prod")),
                (DatabaseName::try_from("billing").unwrap(), labels("test")),
            ]),
            lease: None,
            held: Vec::new(),
        };
        book.attach(&hello, 1, Time(0));
        book
    }

    fn wish(selector: &str) -> Wish {
        Wish {
            request: RequestId::try_from("r").unwrap(),
            set: SetName::default_set(),
            bundle: Digest::of(b"a"),
            versions: Vec::new(),
            selector: if selector == "all" {
                Selector::All
            } else {
                Selector::parse(selector).unwrap()
            },
            policy: Policy::default(),
            created_by: String::new(),
            trace: None,
        }
    }

    fn new(book: &Book, wish: Wish) -> Spec {
        match found(book, wish, Time(0), || 7) {
            Ok(Finding::New(spec)) => *spec,
            Ok(Finding::Known(id)) => panic!("known: {id}"),
            Err(refusal) => panic!("{refusal}"),
        }
    }

    fn refused(book: &Book, wish: Wish) -> Refusal {
        match found(book, wish, Time(0), || 7) {
            Ok(_) => panic!("not refused"),
            Err(refusal) => refusal,
        }
    }

    #[test]
    fn a_rollout_gets_the_databases_that_match() {
        let spec = new(&book(), wish("env=prod"));
        assert_eq!(
            spec.databases().map(DatabaseName::as_str).collect::<Vec<_>>(),
            ["orders"]
        );
        assert_eq!(new(&book(), wish("all")).size(), 2);
    }

    #[test]
    fn a_selector_that_matches_nothing_is_told_what_there_is() {
        let text = refused(&book(), wish("env=prd")).to_string();
        for part in ["env=prd", "env=prod", "env=test", "orders", "billing"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let text = refused(&Book::default(), wish("all")).to_string();
        assert!(text.contains("no agent has registered"), "{text}");
    }

    #[test]
    fn the_same_request_is_the_same_rollout_and_another_content_is_refused() {
        let mut book = book();
        let spec = new(&book, wish("all"));
        let id = spec.id.clone();
        book.found(spec);
        let again = found(&book, wish("all"), Time(0), || 8).ok();
        assert!(matches!(again, Some(Finding::Known(known)) if known == id));
        let other = refused(&book, wish("env=prod"));
        assert!(matches!(other, Refusal::OtherContent { .. }), "{other}");
    }

    #[test]
    fn an_id_that_is_taken_is_not_given_again() {
        let mut book = book();
        book.found(new(&book, wish("all")));
        let wish = Wish {
            request: RequestId::try_from("other").unwrap(),
            ..wish("all")
        };
        let mut bits = [7, 8].into_iter();
        let Ok(Finding::New(spec)) = found(&book, wish, Time(0), || bits.next().unwrap()) else {
            panic!()
        };
        assert_eq!(spec.id, RolloutId::from_random(8));
        assert_eq!(spec.number, 2);
    }

    #[test]
    fn long_lists_are_cut_short() {
        let text = list((0..25).map(|n| n.to_string()).collect());
        assert!(text.ends_with("and 5 more"), "{text}");
    }
}
