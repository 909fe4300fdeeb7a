//! Which tables a statement names that it takes a lock on which others wait for.
//!
//! It is only said to look who is in the way before the first try, so what is not known here is left out: the statement
//! is then tried at once. A mode is never said stronger than it is, or readers would be waited for who are in nobody's way.

use super::statement::{child, has};
use crate::lock::Mode;
use crate::migration::parser::{has_token, path};
use crate::name::{Ident, Table};
use squawk_syntax::{SyntaxKind, SyntaxNode};
use std::collections::BTreeSet;

/// The nodes that name a relation which is there already.
const NAMES: [SyntaxKind; 4] = [
    SyntaxKind::TABLE_NAME_REF,
    SyntaxKind::RELATION_NAME_REF,
    SyntaxKind::VIEW_REF,
    SyntaxKind::INDEX_REF,
];

/// The names in a statement with the locks it takes on them.
pub(super) fn of(statement: &SyntaxNode) -> Vec<(Mode, Table)> {
    let all = |mode: Mode| named(statement, mode).collect();
    match statement.kind() {
        SyntaxKind::ALTER_TABLE => alter_table(statement),
        SyntaxKind::CREATE_TABLE => create_table(statement),
        SyntaxKind::DROP_TABLE
        | SyntaxKind::DROP_VIEW
        | SyntaxKind::DROP_MATERIALIZED_VIEW
        | SyntaxKind::DROP_INDEX
        | SyntaxKind::DROP_TRIGGER
        | SyntaxKind::DROP_RULE
        | SyntaxKind::DROP_POLICY
        | SyntaxKind::ALTER_POLICY => all(Mode::AccessExclusive),
        SyntaxKind::TRUNCATE => below(statement, SyntaxKind::TABLE_LIST, Mode::AccessExclusive),
        SyntaxKind::CREATE_RULE => below(statement, SyntaxKind::RULE_ON, Mode::AccessExclusive),
        SyntaxKind::CREATE_POLICY => below(statement, SyntaxKind::ON_TABLE, Mode::AccessExclusive),
        SyntaxKind::CREATE_TRIGGER => below(statement, SyntaxKind::ON_RELATION, Mode::ShareRowExclusive),
        SyntaxKind::CREATE_INDEX => below(statement, SyntaxKind::TABLE_RELATION_NAME, Mode::Share),
        SyntaxKind::REFRESH if !has_token(statement, SyntaxKind::CONCURRENTLY_KW) => {
            all(Mode::AccessExclusive)
        }
        SyntaxKind::LOCK => lock(statement),
        SyntaxKind::VACUUM | SyntaxKind::CLUSTER if rewrites(statement) => all(Mode::AccessExclusive),
        SyntaxKind::REINDEX if rewrites(statement) => {
            match child(statement, SyntaxKind::REINDEX_TARGET_INDEX) {
                Some(index) => named(&index, Mode::AccessExclusive).collect(),
                None => below(statement, SyntaxKind::REINDEX_TARGET_TABLE, Mode::Share),
            }
        }
        _ => Vec::new(),
    }
}

/// The tables that the statements of a text have made so far: nobody else knows them before its transaction commits.
#[derive(Default)]
pub(super) struct Made(BTreeSet<Table>);

impl Made {
    /// The locks on what was there before.
    pub(super) fn others(&self, mut locks: Vec<(Mode, Table)>) -> Vec<(Mode, Table)> {
        locks.retain(|(_, table)| !self.0.contains(table));
        locks
    }

    /// Whether the next statement surely only creates a table or type, or is about tables that were made here. What is not
    /// known is left out.
    pub(super) fn is_added_to_by(&mut self, statement: &SyntaxNode) -> bool {
        let names = statement
            .descendants()
            .filter(|node| NAMES.contains(&node.kind()));
        let names: Vec<_> = names.map(|name| table(path(&name))).collect();
        let made = |name: &Option<Table>| name.as_ref().is_some_and(|name| self.0.contains(name));
        let all_made = names.iter().all(made);
        match statement.kind() {
            SyntaxKind::CREATE_TABLE if all_made => {
                self.0.extend(made_by(statement));
                true
            }
            SyntaxKind::CREATE_TYPE | SyntaxKind::CREATE_DOMAIN => all_made,
            SyntaxKind::CREATE_INDEX | SyntaxKind::CREATE_TRIGGER => all_made && !names.is_empty(),
            // Under its old name another one may be found.
            SyntaxKind::ALTER_TABLE => {
                let moves = [SyntaxKind::TABLE_RENAME_TO, SyntaxKind::SET_SCHEMA];
                all_made && !names.is_empty() && !moves.iter().any(|moves| has(statement, *moves))
            }
            SyntaxKind::COMMENT_ON => made(&commented(statement)),
            _ => false,
        }
    }
}

/// The table that a CREATE TABLE makes for sure, and that its name leads to from then on: the system's come first.
fn made_by(statement: &SyntaxNode) -> Option<Table> {
    let name = child(statement, SyntaxKind::TABLE_NAME)?;
    let made = table(path(&name))?;
    (!has(statement, SyntaxKind::IF_NOT_EXISTS) && !made.name.as_str().starts_with("pg_")).then_some(made)
}

/// The table that a comment is on, or on a column of.
fn commented(statement: &SyntaxNode) -> Option<Table> {
    if let Some(object) = child(statement, SyntaxKind::OBJECT_TABLE) {
        return table(path(&object));
    }
    let mut column = path(&child(statement, SyntaxKind::OBJECT_COLUMN)?);
    column.pop()?;
    table(column)
}

/// Whether it writes tables or indexes anew, with all others shut out: VACUUM FULL, CLUSTER, REINDEX. What these do
/// CONCURRENTLY is not meant.
pub(super) fn rewrites(statement: &SyntaxNode) -> bool {
    let concurrently = || {
        let tokens = statement.descendants_with_tokens();
        tokens
            .filter_map(squawk_syntax::SyntaxElement::into_token)
            .any(|token| token.text().eq_ignore_ascii_case("concurrently"))
    };
    match statement.kind() {
        SyntaxKind::CLUSTER => true,
        SyntaxKind::REPACK | SyntaxKind::REINDEX => !concurrently(),
        SyntaxKind::VACUUM => has_token(statement, SyntaxKind::FULL_KW) || is_full(statement),
        _ => false,
    }
}

/// Whether `VACUUM (..)` says FULL, and does not take it back.
fn is_full(statement: &SyntaxNode) -> bool {
    let options = child(statement, SyntaxKind::VACUUM_OPTION_LIST);
    let options = options.iter().flat_map(SyntaxNode::children);
    options
        .map(|option| option.text().to_string().to_ascii_lowercase())
        .any(|option| {
            let mut words = option.split_whitespace();
            words.next() == Some("full") && !matches!(words.next(), Some("false" | "off" | "no" | "0"))
        })
}

fn alter_table(statement: &SyntaxNode) -> Vec<(Mode, Table)> {
    let actions = statement.children().filter_map(|action| action_mode(&action));
    let Some(mode) = actions.max() else {
        return Vec::new();
    };
    let mut locks = below(statement, SyntaxKind::TABLE_RELATION_NAME, mode);
    locks.truncate(1);
    locks.extend(references(statement));
    let moved = [SyntaxKind::ATTACH_PARTITION, SyntaxKind::DETACH_PARTITION];
    for action in statement.children().filter(|node| moved.contains(&node.kind())) {
        locks.extend(named(&action, Mode::AccessExclusive));
    }
    locks
}

/// The lock that an action takes on its table; `None` where it is weak or not known.
fn action_mode(action: &SyntaxNode) -> Option<Mode> {
    Some(match action.kind() {
        SyntaxKind::ADD_CONSTRAINT if has(action, SyntaxKind::FOREIGN_KEY_CONSTRAINT) => {
            Mode::ShareRowExclusive
        }
        SyntaxKind::ALTER_COLUMN if !alters_rows(action) => return None,
        SyntaxKind::ADD_COLUMN
        | SyntaxKind::ADD_CONSTRAINT
        | SyntaxKind::ALTER_COLUMN
        | SyntaxKind::DROP_COLUMN
        | SyntaxKind::DROP_CONSTRAINT
        | SyntaxKind::RENAME_COLUMN
        | SyntaxKind::RENAME_CONSTRAINT
        | SyntaxKind::TABLE_RENAME_TO
        | SyntaxKind::SET_SCHEMA
        | SyntaxKind::OWNER_TO
        | SyntaxKind::SET_TABLESPACE
        | SyntaxKind::SET_LOGGED
        | SyntaxKind::SET_UNLOGGED
        | SyntaxKind::ENABLE_RLS
        | SyntaxKind::DISABLE_RLS
        | SyntaxKind::FORCE_RLS
        | SyntaxKind::NO_FORCE_RLS
        | SyntaxKind::DETACH_PARTITION => Mode::AccessExclusive,
        SyntaxKind::ENABLE_TRIGGER | SyntaxKind::DISABLE_TRIGGER => Mode::ShareRowExclusive,
        SyntaxKind::VALIDATE_CONSTRAINT | SyntaxKind::ATTACH_PARTITION => Mode::ShareUpdateExclusive,
        _ => return None,
    })
}

/// Whether an ALTER COLUMN is one of those that nobody may read beside.
fn alters_rows(action: &SyntaxNode) -> bool {
    [
        SyntaxKind::SET_TYPE,
        SyntaxKind::SET_NOT_NULL,
        SyntaxKind::DROP_NOT_NULL,
        SyntaxKind::SET_DEFAULT,
        SyntaxKind::DROP_DEFAULT,
    ]
    .into_iter()
    .any(|option| has(action, option))
}

fn create_table(statement: &SyntaxNode) -> Vec<(Mode, Table)> {
    let mut locks = references(statement);
    let of = child(statement, SyntaxKind::PARTITION_OF);
    locks.extend(of.iter().flat_map(|of| named(of, Mode::AccessExclusive)));
    locks
}

/// The tables that foreign keys of a statement reference.
fn references(statement: &SyntaxNode) -> Vec<(Mode, Table)> {
    let keys = [
        SyntaxKind::FOREIGN_KEY_CONSTRAINT,
        SyntaxKind::REFERENCES_CONSTRAINT,
    ];
    let keys = statement.descendants().filter(|node| keys.contains(&node.kind()));
    keys.flat_map(|key| named(&key, Mode::ShareRowExclusive).collect::<Vec<_>>())
        .collect()
}

fn lock(statement: &SyntaxNode) -> Vec<(Mode, Table)> {
    let mode = match child(statement, SyntaxKind::LOCK_MODE_CLAUSE) {
        None => Mode::AccessExclusive,
        Some(mode) if has(&mode, SyntaxKind::ACCESS_EXCLUSIVE) => Mode::AccessExclusive,
        Some(mode) if has(&mode, SyntaxKind::SHARE_ROW_EXCLUSIVE) => Mode::ShareRowExclusive,
        Some(mode) if has(&mode, SyntaxKind::SHARE_UPDATE_EXCLUSIVE) => Mode::ShareUpdateExclusive,
        Some(_) => return Vec::new(),
    };
    below(statement, SyntaxKind::RELATION_LIST, mode)
}

/// The names below the parts of a kind.
fn below(statement: &SyntaxNode, kind: SyntaxKind, mode: Mode) -> Vec<(Mode, Table)> {
    let parts = statement.children().filter(|part| part.kind() == kind);
    parts
        .flat_map(|part| named(&part, mode).collect::<Vec<_>>())
        .collect()
}

/// The relations that a part of a statement names.
fn named(part: &SyntaxNode, mode: Mode) -> impl Iterator<Item = (Mode, Table)> {
    let names = part.descendants().filter(|node| NAMES.contains(&node.kind()));
    names.filter_map(move |name| Some((mode, table(path(&name))?)))
}

fn table(mut parts: Vec<String>) -> Option<Table> {
    let name = Ident::exact(parts.pop()?).ok()?;
    let schema = parts.pop().map(Ident::exact).transpose().ok()?;
    Some(Table { schema, name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::parser;

    fn locks(text: &str) -> Vec<String> {
        let statement = parser::parse(text).root.first_child().unwrap();
        let locks = of(&statement);
        locks
            .iter()
            .map(|(mode, table)| format!("{mode:?} {table}"))
            .collect()
    }

    #[test]
    fn each_statement_names_its_tables_with_the_lock_it_takes() {
        for (text, expected) in [
            (
                "ALTER TABLE ONLY s.t ADD COLUMN a int",
                &["AccessExclusive \"s\".\"t\""][..],
            ),
            (
                "ALTER TABLE T VALIDATE CONSTRAINT c",
                &["ShareUpdateExclusive \"t\""],
            ),
            (
                "ALTER TABLE t VALIDATE CONSTRAINT c, ALTER a SET NOT NULL",
                &["AccessExclusive \"t\""],
            ),
            (
                "ALTER TABLE t ADD FOREIGN KEY (a) REFERENCES u (id)",
                &["ShareRowExclusive \"t\"", "ShareRowExclusive \"u\""],
            ),
            (
                "ALTER TABLE t ADD a int REFERENCES u",
                &["AccessExclusive \"t\"", "ShareRowExclusive \"u\""],
            ),
            ("ALTER TABLE t ALTER a SET STATISTICS 5", &[]),
            ("ALTER TABLE t ALTER a TYPE bigint", &["AccessExclusive \"t\""]),
            ("ALTER TABLE t RENAME TO u", &["AccessExclusive \"t\""]),
            ("ALTER TABLE t RENAME a TO b", &["AccessExclusive \"t\""]),
            (
                "ALTER TABLE t ATTACH PARTITION p DEFAULT",
                &["ShareUpdateExclusive \"t\"", "AccessExclusive \"p\""],
            ),
            (
                "CREATE TABLE p PARTITION OF t DEFAULT",
                &["AccessExclusive \"t\""],
            ),
            (
                "CREATE TABLE n (a int REFERENCES t)",
                &["ShareRowExclusive \"t\""],
            ),
            (
                "DROP TABLE IF EXISTS t, s.u CASCADE",
                &["AccessExclusive \"t\"", "AccessExclusive \"s\".\"u\""],
            ),
            ("DROP INDEX i", &["AccessExclusive \"i\""]),
            ("DROP MATERIALIZED VIEW m", &["AccessExclusive \"m\""]),
            (
                "TRUNCATE t, ONLY u",
                &["AccessExclusive \"t\"", "AccessExclusive \"u\""],
            ),
            ("CREATE UNIQUE INDEX i ON t (a) WHERE b IN (1)", &["Share \"t\""]),
            (
                "CREATE TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
                &["ShareRowExclusive \"t\""],
            ),
            ("DROP TRIGGER x ON t", &["AccessExclusive \"t\""]),
            (
                "CREATE POLICY p ON t USING (a IN (SELECT b FROM u))",
                &["AccessExclusive \"t\""],
            ),
            ("LOCK TABLE t", &["AccessExclusive \"t\""]),
            ("LOCK t IN SHARE ROW EXCLUSIVE MODE", &["ShareRowExclusive \"t\""]),
            ("LOCK t IN SHARE MODE", &[]),
            ("REFRESH MATERIALIZED VIEW m", &["AccessExclusive \"m\""]),
            ("REFRESH MATERIALIZED VIEW CONCURRENTLY m", &[]),
            ("UPDATE t SET a = 1", &[]),
            ("VACUUM FULL t", &["AccessExclusive \"t\""]),
            (
                "VACUUM (ANALYZE, FULL) t (a), u",
                &["AccessExclusive \"t\"", "AccessExclusive \"u\""],
            ),
            ("VACUUM (FULL off) t", &[]),
            ("VACUUM (ANALYZE) t", &[]),
            ("CLUSTER t", &["AccessExclusive \"t\""]),
            ("REINDEX TABLE t", &["Share \"t\""]),
            ("REINDEX INDEX i", &["AccessExclusive \"i\""]),
            ("REINDEX (CONCURRENTLY) TABLE t", &[]),
            ("CREATE VIEW v AS SELECT 1 FROM t", &[]),
        ] {
            assert_eq!(locks(text), expected, "{text}");
        }
    }

    /// What is said of each statement of a text.
    fn only_created(text: &str) -> Vec<bool> {
        let tree = parser::parse(text);
        assert_eq!(tree.errors, [], "{text}");
        let mut made = Made::default();
        let statements = tree.root.children();
        statements.map(|node| made.is_added_to_by(&node)).collect()
    }

    #[test]
    fn only_what_is_new_and_refers_to_no_relation_is_only_created() {
        for text in [
            "CREATE TABLE n (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, a text UNIQUE DEFAULT 'x', CHECK (a > ''))",
            "CREATE TABLE IF NOT EXISTS s.n (a s.kind NOT NULL, b int[] DEFAULT array_fill(0, ARRAY[3]))",
            "CREATE TABLE n (a int, b text) PARTITION BY RANGE (a)",
            "CREATE TYPE mood AS ENUM ('a', 'b')",
            "CREATE TYPE pair AS (a int, b text)",
            "CREATE DOMAIN d AS int CHECK (VALUE > 0)",
        ] {
            assert_eq!(only_created(text), [true], "{text}");
        }
        for text in [
            "CREATE TABLE n (a int REFERENCES t)",
            "CREATE TABLE n (a int, FOREIGN KEY (a) REFERENCES s.t (id))",
            "CREATE TABLE n (a int) INHERITS (t)",
            "CREATE TABLE n (LIKE t INCLUDING ALL)",
            "CREATE TABLE n (a int, LIKE s.t)",
            "CREATE TABLE n PARTITION OF t DEFAULT",
            "CREATE TABLE n PARTITION OF t FOR VALUES FROM (1) TO (2)",
            "CREATE TABLE n AS SELECT * FROM t",
            "CREATE SEQUENCE s OWNED BY t.a",
            "CREATE INDEX i ON t (a)",
            "CREATE VIEW v AS SELECT 1",
            "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "ALTER TABLE t ADD a int",
            "COMMENT ON TABLE t IS 'x'",
            "COMMENT ON COLUMN t.a IS 'x'",
            "COMMENT ON SCHEMA t IS 'x'",
            "INSERT INTO t VALUES (1)",
            "DO 'BEGIN END'",
        ] {
            assert_eq!(only_created(text), [false], "{text}");
        }
    }

    #[test]
    fn what_the_text_made_before_is_new_to_all_others() {
        for then in [
            "CREATE INDEX ON n (a)",
            "CREATE UNIQUE INDEX IF NOT EXISTS i ON ONLY N (lower(b)) WHERE a > 0",
            "CREATE TABLE p PARTITION OF n DEFAULT",
            "CREATE TABLE m (a int REFERENCES n (a), LIKE n)",
            "ALTER TABLE n ADD c int, ADD FOREIGN KEY (a) REFERENCES n (a)",
            "CREATE TRIGGER x AFTER INSERT ON n FOR EACH ROW EXECUTE FUNCTION s.f()",
            "COMMENT ON TABLE \"n\" IS 'x'",
            "COMMENT ON COLUMN n.a IS 'x'",
        ] {
            let text = format!("CREATE TABLE n (a int UNIQUE, b text); {then}");
            assert_eq!(only_created(&text), [true, true], "{then}");
            let other = text.replacen("TABLE n", "TABLE s.n", 1);
            assert_eq!(only_created(&other), [true, false], "{other}");
            let doubtful = text.replacen("TABLE n", "TABLE IF NOT EXISTS n", 1);
            assert_eq!(only_created(&doubtful), [true, false], "{doubtful}");
        }
        for then in [
            "CREATE TABLE m (a int REFERENCES n (a), b int REFERENCES t)",
            "ALTER TABLE n ADD FOREIGN KEY (a) REFERENCES t",
            "ALTER TABLE n RENAME TO m",
            "ALTER TABLE n SET SCHEMA s",
            "COMMENT ON COLUMN s.n.a IS 'x'",
            "DROP TABLE n",
            "INSERT INTO n VALUES (1, 'x')",
        ] {
            let text = format!("CREATE TABLE n (a int UNIQUE, b text); {then}");
            assert_eq!(only_created(&text), [true, false], "{then}");
        }
        // This index is on the system's.
        let system = "CREATE TABLE pg_class (a int); CREATE INDEX ON pg_class (a)";
        assert_eq!(only_created(system), [true, false]);
    }

    #[test]
    fn a_table_that_the_text_made_is_not_looked_at_before() {
        let tree = parser::parse(
            "CREATE TABLE n (a int REFERENCES t); CREATE TABLE m (a int); ALTER TABLE m ADD b int REFERENCES t",
        );
        let mut made = Made::default();
        let mut locks = Vec::new();
        for statement in tree.root.children() {
            locks.extend(made.others(of(&statement)));
            made.is_added_to_by(&statement);
        }
        let t = Table {
            schema: None,
            name: Ident::exact("t".to_owned()).unwrap(),
        };
        assert_eq!(
            locks,
            [(Mode::ShareRowExclusive, t.clone()), (Mode::ShareRowExclusive, t)]
        );
    }
}
