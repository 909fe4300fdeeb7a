//! The records of runs and steps, written inside fenced transactions.

use super::{Part, Place};
use crate::error::Error;
use crate::faults::{self, Point};
use crate::ledger;
use crate::run::Run;
use crate::session::Session;
use shared::id::{Direction, RolloutId};
use shared::ledger::Todo;
use shared::migration::checksum;
use shared::sql::{Tag, ledger as texts};
use tokio_postgres::types::{ToSql, Type};

/// The key of a run, owned, so that it can be a statement's parameters.
pub(super) struct Key {
    set: String,
    version: String,
    direction: &'static str,
    run: i32,
    step: i32,
}

impl Key {
    pub(super) fn of(run: &Run<'_>, todo: &Todo<'_>, step: u32) -> Self {
        Self {
            set: run.set.name.as_str().to_owned(),
            version: todo.migration.version.key().to_owned(),
            direction: todo.direction.as_str(),
            run: todo.run,
            step: i32::try_from(step).unwrap_or(i32::MAX),
        }
    }

    /// Set, version, direction, run.
    pub(super) fn run(&self) -> [(&(dyn ToSql + Sync), Type); 4] {
        [
            (&self.set, Type::TEXT),
            (&self.version, Type::TEXT),
            (&self.direction, Type::TEXT),
            (&self.run, Type::INT4),
        ]
    }

    /// Set, version, direction, run, step.
    pub(super) fn step(&self) -> [(&(dyn ToSql + Sync), Type); 5] {
        let [set, version, direction, run] = self.run();
        [set, version, direction, run, (&self.step, Type::INT4)]
    }

    /// Set, version, direction, run, step, shard.
    pub(super) fn shard<'a>(&'a self, shard: &'a i32) -> [(&'a (dyn ToSql + Sync), Type); 6] {
        let [set, version, direction, run, step] = self.step();
        [set, version, direction, run, step, (shard, Type::INT4)]
    }
}

/// What a step remembers between its parts; most remember nothing.
pub(super) type Detail<'a> = Option<&'a str>;

/// Writes the records that come before the change: the run's, and the step's. Gives the transaction's id.
pub(super) async fn before(
    run: &Run<'_>,
    place: Place<'_>,
    part: Part,
    session: &Session,
    tag: &Tag,
    detail: Detail<'_>,
) -> Result<Option<String>, Error> {
    let state = match part {
        Part::Whole => "done",
        Part::First => "begun",
        Part::Middle | Part::Last => return Ok(None),
    };
    let key = Key::of(run, place.todo, place.number());
    let [set, version, direction, number, step] = key.step();
    let (change, checksum) = (&place.step().change, place.step().checksum.to_string());
    let (kind, title) = (change.name(), change.title());
    let fence = run.claim.fence;
    let record = [
        set,
        version,
        direction,
        number,
        step,
        (&kind, Type::TEXT),
        (&title, Type::TEXT),
        (&checksum, Type::TEXT),
        (&state, Type::TEXT),
        (&detail, Type::TEXT),
        (&fence.epoch, Type::INT8),
        (&fence.token, Type::INT8),
        (&fence.local, Type::INT8),
    ];
    let begun = async {
        if place.todo.recorded || place.index > 0 {
            Ok(())
        } else {
            begin_run(run, place.todo, session, tag).await
        }
    };
    // In one flight, in this order: the step's record refers to the run's.
    let (begun, rows) = tokio::join!(
        biased;
        begun,
        session.query(tag, "recording the step", texts::RECORD_STEP, &record),
    );
    begun?;
    Ok(rows?.first().map(|row| row.get(0)))
}

/// Writes the records that come after the change: the step's end, and the run's.
pub(super) async fn after(
    run: &Run<'_>,
    place: Place<'_>,
    part: Part,
    session: &Session,
    tag: &Tag,
) -> Result<(), Error> {
    let key = Key::of(run, place.todo, place.number());
    match part {
        Part::First | Part::Middle => return Ok(()),
        Part::Whole => {}
        Part::Last => {
            let rows = session
                .query(tag, "recording the step's end", texts::FINISH_STEP, &key.step())
                .await?;
            if rows.len() != 1 {
                return Err(Error::Broken(
                    "a step that is to end has not begun, or has open shards",
                ));
            }
        }
    }
    if place.is_last() {
        complete_run(run, place.todo, session, tag).await
    } else {
        Ok(())
    }
}

async fn begin_run(run: &Run<'_>, todo: &Todo<'_>, session: &Session, tag: &Tag) -> Result<(), Error> {
    let key = Key::of(run, todo, 0);
    let [set, version, direction, number] = key.run();
    let (written, name) = (todo.migration.version.as_str(), todo.migration.name.as_str());
    let script = Scripts::of(todo);
    let scheme = checksum::SCHEME;
    let steps = i32::try_from(todo.steps.len()).unwrap_or(i32::MAX);
    let rollout = rollout_of(run);
    let by = run.claim.description.as_str();
    let record = [
        set,
        version,
        direction,
        number,
        (&written as &(dyn ToSql + Sync), Type::TEXT),
        (&name, Type::TEXT),
        (&script.checksum, Type::TEXT),
        (&scheme, Type::INT4),
        (&steps, Type::INT4),
        (&rollout, Type::TEXT),
        (&by, Type::TEXT),
        (&script.down_checksum, Type::TEXT),
    ];
    let doing = "recording the run";
    let given_up = async {
        let Some(up) = todo.gives_up else {
            return Ok(0);
        };
        let up = Key {
            direction: Direction::Up.as_str(),
            run: up,
            ..Key::of(run, todo, 0)
        };
        session.execute(tag, doing, texts::GIVE_UP_RUN, &up.run()).await
    };
    // In one flight, in this order: only one run of a version may be open.
    let (given_up, begun, kept) = tokio::join!(
        biased;
        given_up,
        session.execute(tag, doing, texts::BEGIN_RUN, &record),
        script.keep(session, tag),
    );
    given_up?;
    begun?;
    kept
}

/// Marks a run complete, with the script as it is now: steps after those that had begun may have been changed.
async fn complete_run(run: &Run<'_>, todo: &Todo<'_>, session: &Session, tag: &Tag) -> Result<(), Error> {
    let key = Key::of(run, todo, 0);
    let [set, version, direction, number] = key.run();
    let script = Scripts::of(todo);
    let steps = i32::try_from(todo.steps.len()).unwrap_or(i32::MAX);
    let rollout = rollout_of(run);
    let params = [
        set,
        version,
        direction,
        number,
        (&script.checksum as &(dyn ToSql + Sync), Type::TEXT),
        (&steps, Type::INT4),
        (&script.down_checksum, Type::TEXT),
        (&rollout, Type::TEXT),
    ];
    if todo.recorded {
        script.keep(session, tag).await?;
    }
    let released = async {
        if run.last {
            ledger::release_within(session, run.claim, tag).await
        } else {
            Ok(())
        }
    };
    // In one flight.
    let (completed, released) = tokio::join!(
        biased;
        session.execute(tag, "recording the run's end", texts::COMPLETE_RUN, &params),
        released,
    );
    match completed? {
        1 => released,
        _ => Err(Error::Broken("a run that is to end is not open")),
    }
}

fn rollout_of<'a>(run: &'a Run<'_>) -> Option<&'a str> {
    run.claim.rollout.as_ref().map(RolloutId::as_str)
}

/// The texts of a run, under their checksums.
struct Scripts<'a> {
    checksum: String,
    text: &'a str,
    /// The written down beside an up: an undo may be wanted when the file is gone.
    down_checksum: Option<String>,
    down_text: Option<&'a str>,
}

impl<'a> Scripts<'a> {
    fn of(todo: &'a Todo<'_>) -> Self {
        let down = (todo.migration.down.as_ref()).filter(|_| todo.direction == Direction::Up);
        Self {
            checksum: todo.checksum().to_string(),
            text: &todo.script.text,
            down_checksum: down.map(|down| down.checksum.to_string()),
            down_text: down.map(|down| down.text.as_str()),
        }
    }

    async fn keep(&self, session: &Session, tag: &Tag) -> Result<(), Error> {
        let keep = async |checksum: &str, text: &str| {
            let params = [
                (&checksum as &(dyn ToSql + Sync), Type::TEXT),
                (&checksum::SCHEME, Type::INT4),
                (&text, Type::TEXT),
            ];
            session
                .execute(tag, "keeping a script", texts::KEEP_SCRIPT, &params)
                .await
        };
        let down = async {
            match (&self.down_checksum, self.down_text) {
                (Some(checksum), Some(text)) => keep(checksum, text).await,
                _ => Ok(0),
            }
        };
        let (up, down) = tokio::join!(keep(&self.checksum, self.text), down);
        up?;
        down?;
        Ok(())
    }
}

/// Commits a transaction of a step.
pub(super) async fn commit(session: &mut Session, tag: &Tag) -> Result<(), Error> {
    faults::reach(Point::BeforeCommit).await?;
    session.commit(tag).await?;
    faults::reach(Point::AfterCommit).await
}

/// A step with nothing to do on this database: only its records.
pub(super) async fn only(run: &mut Run<'_>, place: Place<'_>, part: Part) -> Result<(), Error> {
    remembering(run, place, part, None).await
}

/// The same for a step that remembers something.
pub(super) async fn remembering(
    run: &mut Run<'_>,
    place: Place<'_>,
    part: Part,
    detail: Detail<'_>,
) -> Result<(), Error> {
    let tag = place.tag(run);
    let mut session = run.database.session().await?;
    ledger::begin_fenced(&mut session, run.claim, &tag, ledger::book_limits()).await?;
    before(run, place, part, &session, &tag, detail).await?;
    after(run, place, part, &session, &tag).await?;
    commit(&mut session, &tag).await?;
    run.committed();
    Ok(())
}

/// A run without any step left, or without any step at all: only its records.
pub(crate) async fn complete_empty(run: &mut Run<'_>, todo: &Todo<'_>) -> Result<(), Error> {
    let tag = run.claim.tag();
    let mut session = run.database.session().await?;
    ledger::begin_fenced(&mut session, run.claim, &tag, ledger::book_limits()).await?;
    if !todo.recorded {
        begin_run(run, todo, &session, &tag).await?;
    }
    complete_run(run, todo, &session, &tag).await?;
    commit(&mut session, &tag).await?;
    run.committed();
    Ok(())
}
