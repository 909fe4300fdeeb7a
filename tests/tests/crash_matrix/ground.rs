//! The databases that cases are met on. One is emptied rather than made anew, its ledger included, and looked at over a
//! session that stays open: a new database, and each new session in one, costs more than most steps.

use anyhow::{Context as _, ensure};
use shared::sql::audit::INVARIANTS;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tests::postgres::{Database, Server, Session};
use tests::steps::Step;
use tokio_postgres::SimpleQueryMessage;

/// What is left when a case is over goes, and sessions of dead processes end first.
const EMPTY: &str = "
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid();
DELETE FROM confiture.batch;
DELETE FROM confiture.shard;
DELETE FROM confiture.step;
DELETE FROM confiture.run;
DELETE FROM confiture.script;
DELETE FROM confiture.holder;
DELETE FROM confiture.fence;
DO $$ DECLARE found text; BEGIN
  FOR found IN
    SELECT format('TABLE %s', oid::regclass) FROM pg_class
     WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
    UNION ALL SELECT format('ROUTINE %s', oid::regprocedure) FROM pg_proc
     WHERE pronamespace IN ('public'::regnamespace, 'confiture'::regnamespace)
    UNION ALL SELECT format('TYPE %s', oid::regtype) FROM pg_type
     WHERE typnamespace = 'public'::regnamespace AND typtype = 'e'
  LOOP EXECUTE format('DROP %s CASCADE', found); END LOOP;
END $$";

/// Every object that there is but for the ledger's, whatever its kind, and how tables, their indexes, constraints and
/// triggers, functions and enums are defined. Numbers that the server gave are left out of names.
const CATALOG: &str = r"
SELECT regexp_replace(line, '\d{5,}', '#', 'g') FROM (
  SELECT i.type || ' ' || i.identity AS line
    FROM (SELECT DISTINCT classid, objid FROM pg_depend WHERE objid >= 16384) d, pg_identify_object(classid, objid, 0) i
   WHERE i.schema IS DISTINCT FROM 'confiture' AND i.identity !~ '\mconfiture\.' AND i.identity <> 'confiture'
     AND i.schema IS DISTINCT FROM 'pg_toast'
  UNION ALL
  SELECT format('%s.%s %s %s, default %s, not null %s, %s %s', c.relname, a.attname,
                row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), format_type(a.atttypid, a.atttypmod),
                pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.attidentity, a.attgenerated)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
   WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
  UNION ALL
  SELECT format('%s, valid %s, primary %s, identity %s', pg_get_indexdef(indexrelid), indisvalid, indisprimary, indisreplident)
    FROM pg_index JOIN pg_class ON oid = indrelid WHERE relnamespace = 'public'::regnamespace
  UNION ALL
  SELECT format('%s: %s %s, validated %s', conrelid::regclass, conname, pg_get_constraintdef(oid), convalidated)
    FROM pg_constraint WHERE connamespace = 'public'::regnamespace
  UNION ALL
  SELECT format('%s, enabled %s', pg_get_triggerdef(t.oid), tgenabled)
    FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid WHERE relnamespace = 'public'::regnamespace AND NOT tgisinternal
  UNION ALL
  SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace
  UNION ALL
  SELECT format('%s: %s', enumtypid::regtype, string_agg(enumlabel, ', ' ORDER BY enumsortorder)) FROM pg_enum GROUP BY enumtypid
) l ORDER BY 1";

/// One database.
pub(crate) struct Ground {
    pub(crate) database: Database,
    session: Session,
}

impl Ground {
    /// What a step is met on, where there has never been a ledger.
    pub(crate) async fn new(server: &Server, step: &Step) -> anyhow::Result<Self> {
        let database = server.fresh_database().await?;
        let session = database.connect().await?;
        // The user is named as the ledger's schema is, which would come first.
        session
            .batch_execute("SET search_path = public; SET client_min_messages = error")
            .await?;
        let ground = Self { database, session };
        ground.become_that_of(step).await?;
        Ok(ground)
    }

    async fn become_that_of(&self, step: &Step) -> anyhow::Result<()> {
        let made = self.session.batch_execute(&step.ground()).await;
        made.with_context(|| format!("making what {} is met on", step.name))
    }

    /// Every row was changed once, and the ledger is as it must be.
    pub(crate) async fn is_done_once(&self, step: &Step) -> anyhow::Result<()> {
        let wrong = self.session.number(step.wrong).await?;
        ensure!(wrong == 0, "changed more or less than once: {wrong}");
        for invariant in INVARIANTS {
            let found = self.lines(invariant.query).await?;
            ensure!(found.is_empty(), "{}: {found:?}", invariant.sentence);
        }
        Ok(())
    }

    pub(crate) async fn catalog(&self) -> anyhow::Result<Vec<String>> {
        self.lines(CATALOG).await
    }

    /// The one column of text that a query gives.
    async fn lines(&self, query: &str) -> anyhow::Result<Vec<String>> {
        let answer = self.session.simple_query(query).await;
        let answer = answer.with_context(|| format!("asking {query}"))?;
        let row = |message: &SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        };
        Ok(answer.iter().filter_map(row).collect())
    }
}

/// Those that have an empty ledger and nothing else. Whether a case has one of them or a new one is chance; what happens
/// while a ledger is created has a test of its own.
#[derive(Default)]
pub(crate) struct Grounds {
    spare: Mutex<Vec<Ground>>,
}

impl Grounds {
    fn spare(&self) -> MutexGuard<'_, Vec<Ground>> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a step is met on.
    pub(crate) async fn take(&self, server: &Server, step: &Step) -> anyhow::Result<Ground> {
        let left = self.spare().pop();
        match left {
            Some(ground) => {
                ground.become_that_of(step).await?;
                Ok(ground)
            }
            None => Ground::new(server, step).await,
        }
    }

    pub(crate) async fn give_back(&self, ground: Ground) -> anyhow::Result<()> {
        let emptied = ground.session.batch_execute(EMPTY).await;
        emptied.context("emptying a database")?;
        self.spare().push(ground);
        Ok(())
    }
}
