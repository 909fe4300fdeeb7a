//! Checksums of what a migration means: comments, white space and the order of keys in YAML do not count.
//!
//! SQL counts by its tokens ([`tokens`]), a step by its kind and its canonical text ([`step`]), a script by its options
//! and the checksums of its steps ([`script`]). How a `sql` step is executed is not part of it: that follows from
//! tokens and directives, and a later version of Confiture may know better without changing what was applied.

use super::lexer::{Token, is_symbol, lex, split_operators};
use super::{Options, Step};
use crate::id::Digest;
use squawk_lexer::TokenKind;
use std::fmt::{Display, Write as _};
use std::time::Duration;

/// How checksums are made; recorded beside each. It grows when the same text would get another checksum.
pub const SCHEME: i32 = 1;

/// The tokens of a SQL text, one space between them: names and keywords without quotes in lower case, everything else
/// as written, comments and white space left out.
///
/// Two texts have the same tokens exactly when these are equal: read again, the result has the same tokens.
pub fn tokens(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len());
    // Symbols that touch each other may be one operator; white space and comments between them keep them apart.
    let mut run = 0..0;
    for token in lex(sql) {
        if is_symbol(token.kind) {
            if run.is_empty() {
                run = token.at..token.at;
            }
            run.end = token.at + token.text.len();
            continue;
        }
        split_operators(&sql[run.clone()]).for_each(|operator| push(&mut out, operator));
        run = 0..0;
        match token {
            token if token.is_trivia() => {}
            Token {
                kind: TokenKind::Ident,
                text,
                ..
            } => {
                push(&mut out, text);
                let start = out.len() - text.len();
                // Only ASCII folds: what PostgreSQL does in UTF-8.
                out[start..].make_ascii_lowercase();
            }
            Token { text, .. } => push(&mut out, text),
        }
    }
    split_operators(&sql[run]).for_each(|operator| push(&mut out, operator));
    out
}

fn push(out: &mut String, token: &str) {
    if !out.is_empty() {
        out.push(' ');
    }
    out.push_str(token);
}

/// The canonical text of a step or of options: named fields in a fixed order, each with its length, so that no value
/// can be taken for another field.
#[derive(Debug, Default)]
pub struct Canonical(String);

impl Canonical {
    /// Without fields.
    pub fn new() -> Self {
        Self::default()
    }

    /// With a field.
    #[must_use]
    pub fn field(mut self, name: &str, value: impl Display) -> Self {
        let value = value.to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "{name} {}:{value}", value.len());
        self
    }

    /// With a field where there is a value; without it, nothing.
    #[must_use]
    pub fn optional(self, name: &str, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.field(name, value),
            None => self,
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }
}

/// The checksum of one step.
pub fn step(kind: &str, canonical: &str) -> Digest {
    digest(
        Canonical::new()
            .field("step", kind)
            .field("is", canonical)
            .finish()
            .as_str(),
    )
}

/// The checksum of the steps of one direction with what they override.
pub fn script(options: &Options, steps: &[Step]) -> Digest {
    let canonical = overridden(Canonical::new(), options);
    let canonical = steps.iter().fold(canonical, |canonical, step| {
        overridden(canonical.field("step", step.checksum), &step.options)
    });
    digest(&canonical.finish())
}

fn overridden(canonical: Canonical, options: &Options) -> Canonical {
    let nanoseconds = |duration: Duration| duration.as_nanos();
    canonical
        .optional("lock_timeout", options.lock_timeout.map(nanoseconds))
        .optional("statement_timeout", options.statement_timeout.map(nanoseconds))
        .optional(
            "cancel_idle_in_transaction",
            options.cancel_idle_in_transaction.map(nanoseconds),
        )
}

fn digest(canonical: &str) -> Digest {
    Digest::of(format!("confiture checksum {SCHEME}\n{canonical}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::migration::Change;
    use proptest::prelude::*;

    #[test]
    fn tokens_fold_names_and_keep_literals() {
        for (sql, expected) in [
            (
                "SELECT  A.\"B c\" , 'X' FROM t",
                "select a . \"B c\" , 'X' from t",
            ),
            ("a -- b\n/* c /* d */ e */b", "a b"),
            ("\u{feff}a\r\n", "a"),
            ("E'a\\'b' $x$ Y $x$ X'1F' 1E5", "E'a\\'b' $x$ Y $x$ X'1F' 1E5"),
            ("", ""),
        ] {
            assert_eq!(tokens(sql), expected, "{sql}");
        }
    }

    #[test]
    fn operators_are_cut_as_postgresql_cuts_them() {
        for (sql, expected) in [
            ("a=-1", "a = - 1"),
            ("a= -1", "a = - 1"),
            ("a<>b", "a <> b"),
            ("a@-b", "a @- b"),
            ("a @ -b", "a @ - b"),
            ("a||-b", "a ||- b"),
            ("a*-+b", "a * - + b"),
            ("a::int", "a :: int"),
            ("x[1:-1]", "x [ 1 : - 1 ]"),
            ("x:=1", "x := 1"),
            ("a->>'b'", "a ->> 'b'"),
            ("a=>1", "a => 1"),
            ("1..2", "1 .. 2"),
            ("a</* c */>b", "a < > b"),
        ] {
            assert_eq!(tokens(sql), expected, "{sql}");
        }
    }

    #[test]
    fn a_checksum_of_scheme_1_never_changes() {
        let step = super::step("sql", &Canonical::new().field("sql", tokens("SELECT 1")).finish());
        assert_eq!(
            step.to_string(),
            "7fca378673a5016e7301bef16f72de9fe56cfd803f98396c19980c96b50f2297"
        );
        let script = script(
            &Options {
                lock_timeout: Some(Duration::from_mins(1)),
                statement_timeout: None,
                cancel_idle_in_transaction: None,
            },
            &[],
        );
        assert_eq!(
            script.to_string(),
            "3b5033f275be1a52b397c08f5af8b5178053e6c705b44bd4c89436a1af818b50"
        );
    }

    #[test]
    fn no_value_can_be_taken_for_another_field() {
        let one = Canonical::new().field("a", "1\nb 1:2").finish();
        let two = Canonical::new().field("a", 1).field("b", 2).finish();
        assert_ne!(one, two);
        assert_eq!(Canonical::new().optional("a", None::<u8>).finish(), "");
    }

    fn change(kind: &str, yaml: &str) -> Digest {
        let body: serde_json::Value = serde_saphyr::from_str(yaml).unwrap();
        Change::deserialize(kind, body).unwrap().unwrap().checksum()
    }

    #[test]
    fn the_order_of_keys_the_pace_and_the_layout_of_sql_do_not_count() {
        let base = change(
            "backfill",
            "{table: Orders, set: {b: \"a  + 1\", c: \"2\"}, where: \"b IS NULL\"}",
        );
        for same in [
            "{where: \"B is null -- why\", set: {c: 2, B: \"A+1\"}, table: \"orders\"}",
            "{table: orders, set: {b: \"a + 1\", c: \"2\"}, where: \"b IS NULL\", batch: {size: 5}}",
        ] {
            assert_eq!(change("backfill", same), base, "{same}");
        }
        for other in [
            "{table: orders, set: {b: \"a + 1\", c: \"2\"}}",
            "{table: orders, set: {b: \"a + 2\", c: \"2\"}, where: \"b IS NULL\"}",
            "{table: orders, set: {b: \"a + 1\"}, where: \"b IS NULL\"}",
            "{table: app.orders, set: {b: \"a + 1\", c: \"2\"}, where: \"b IS NULL\"}",
            "{table: orders, set: {b: \"a + 1\", c: \"2\"}, where: \"b IS NULL\", new_rows: either}",
        ] {
            assert_ne!(change("backfill", other), base, "{other}");
        }
        assert_eq!(
            change(
                "add_column",
                "{table: t, column: a, type: \"numeric(10, 2)\", not_null: false}"
            ),
            change("add_column", "{type: \"NUMERIC(10,2)\", column: A, table: T}")
        );
        assert_ne!(
            change("set_not_null", "{table: t, column: a}"),
            change("drop_not_null", "{table: t, column: a}")
        );
    }

    /// Tokens that need no separator to be told apart from any neighbour but white space.
    fn token() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z_][a-z0-9_]{0,5}",
            "\"[ -!#-~]{1,5}\"",
            "'[ -&(-\\[\\]-~]{0,5}'",
            "[1-9][0-9]{0,4}",
            prop::sample::select(vec![
                "(", ")", ",", ";", "[", "]", "+", "<=", "->>", "::", ":=", "."
            ])
            .prop_map(str::to_owned),
            "\\$x\\$[a-z' ]{0,5}\\$x\\$",
        ]
    }

    /// What may stand between tokens.
    fn gap() -> impl Strategy<Value = String> {
        prop::collection::vec(
            prop_oneof![
                Just(" ".to_owned()),
                Just("\r\n\t".to_owned()),
                "-- [ -~]{0,8}\n",
                "/\\* [a-z';$\"-]{0,8} \\*/",
                Just("/* a /* 'b */ -- */".to_owned()),
            ],
            1..4,
        )
        .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn comments_and_white_space_never_count(
            parts in prop::collection::vec((token(), gap(), gap()), 0..12)
        ) {
            let with = |gap: fn(&(String, String, String)) -> &str| -> String {
                parts.iter().flat_map(|part| [part.0.as_str(), gap(part)]).collect()
            };
            let plain = with(|_| " ");
            prop_assert_eq!(tokens(&with(|part| &part.1)), tokens(&plain));
            prop_assert_eq!(tokens(&with(|part| &part.2)), tokens(&plain));
            let upper: String = plain
                .split_inclusive(' ')
                .map(|word| if word.starts_with(|c: char| c.is_ascii_lowercase()) { word.to_uppercase() } else { word.to_owned() })
                .collect();
            if !plain.contains(['\'', '"', '$']) {
                prop_assert_eq!(tokens(&upper), tokens(&plain));
            }
        }

        #[test]
        fn another_token_counts(
            parts in prop::collection::vec(token(), 1..12),
            index in any::<prop::sample::Index>(),
            other in token(),
        ) {
            let mut changed = parts.clone();
            let place = index.index(parts.len());
            changed[place].clone_from(&other);
            prop_assume!(changed != parts);
            prop_assert_ne!(tokens(&changed.join(" ")), tokens(&parts.join(" ")));
            let mut longer = parts.clone();
            longer.insert(place, other);
            prop_assert_ne!(tokens(&longer.join(" ")), tokens(&parts.join(" ")));
        }

        #[test]
        fn tokens_read_again_are_the_same(text in any::<String>(), sql in "[-a'\"$/*\\n (;E+=:|.1]{0,40}") {
            for text in [text, sql] {
                let once = tokens(&text);
                prop_assert_eq!(tokens(&once), once);
            }
        }
    }
}
