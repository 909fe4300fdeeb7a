//! An index of a partitioned table to be there: that of the table, then one partition after the other.

use super::super::{Part, Place, record, transaction};
use super::create;
use super::observe;
use crate::error::Error;
use crate::run::Run;
use shared::index::{Create, NextPart, Published};
use shared::lock::Mode;
use shared::plan::{Refusal, Transaction};
use shared::sql::index as texts;

pub(super) async fn run(run: &mut Run<'_>, place: Place<'_>, whole: &Create) -> Result<(), Error> {
    let tag = place.tag(run);
    let wanted = observe::essence(run, &tag, whole).await?;
    let mut begun = place.has_begun();
    loop {
        run.stop_if_asked()?;
        // What has the name and is something else is refused here, whoever made it and whenever.
        whole.may_go_on(&observe::seen(run, &tag, &create::names(whole), &wanted).await?)?;
        let tree = observe::parts(run, &tag, whole).await?;
        let next = whole.next_part(&tree);
        let first = if begun { Part::Middle } else { Part::First };
        match next {
            NextPart::Done => {
                let part = if begun { Part::Last } else { Part::Whole };
                return record::only(run, place, part).await;
            }
            NextPart::Broken(index) => {
                return Err(Refusal::Unsafe {
                    what: format!(
                        "index {} cannot become valid: {index}, which is attached to it, is not",
                        whole.full_name()
                    ),
                    advice: Some("repair that one with `confiture index repair --yes`, then run the same command again".to_owned()),
                }
                .into());
            }
            NextPart::Root => {
                let statement = texts::create_on_parent(&whole.name, &whole.full_table(), &whole.definition);
                let create = Transaction::bounded(statement).locking(Mode::ShareRowExclusive);
                transaction::run(run, place, first, &create).await?;
                begun = true;
            }
            NextPart::Inner(inner) => {
                let Published::Part { of } = &inner.published else {
                    return Err(Error::Broken("a part of an index without a whole"));
                };
                let statements = vec![
                    texts::create_on_parent(&inner.name, &inner.full_table(), &inner.definition),
                    texts::attach(of, &inner.full_name()),
                ];
                let create = Transaction::bounded_all(statements).locking(Mode::ShareRowExclusive);
                transaction::run(run, place, first, &create).await?;
                begun = true;
            }
            NextPart::Leaf(leaf) => {
                if !begun {
                    record::only(run, place, Part::First).await?;
                    begun = true;
                }
                Box::pin(create::published(run, place, &leaf, Part::Middle, &mut begun)).await?;
            }
        }
    }
}
