use super::scanner::contained;
use super::*;
use crate::migration::lexer::lex;
use proptest::prelude::*;
use squawk_lexer::TokenKind;

fn expression(text: &str) -> Expression {
    Expression::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn columns(text: &str) -> Vec<String> {
    expression(text)
        .columns()
        .map(|name| name.as_str().to_owned())
        .collect()
}

#[test]
fn an_expression_names_the_columns_it_reads() {
    for (text, expected) in [
        ("a + B * \"C d\"", &["C d", "a", "b"][..]),
        ("t.a || s.t.b", &["a", "b"]),
        ("coalesce(a, f(b, named => c, other := d))", &["a", "b", "c", "d"]),
        ("app.f(a)", &["a"]),
        ("(a).street || (t.b).street[1].x", &["a", "b"]),
        ("a[b + 1]", &["a", "b"]),
        ("a[b:c]", &["a", "b", "c"]),
        ("row_to_json(t)", &["t"]),
        ("t.*", &["t"]),
        ("s.t.* IS NULL", &["t"]),
        ("a::my_type", &["a"]),
        ("a::geometry(Point, 4326)", &["a"]),
        ("CAST(a AS app.mood)", &["a"]),
        ("a COLLATE \"de_DE\"", &["a"]),
        ("a OPERATOR(pg_catalog.+) b", &["a", "b"]),
        ("CASE a WHEN b THEN c ELSE d END", &["a", "b", "c", "d"]),
        ("a BETWEEN b AND c", &["a", "b", "c"]),
        ("a IN (b, c)", &["a", "b", "c"]),
        ("a = ANY (b)", &["a", "b"]),
        ("a IS DISTINCT FROM b", &["a", "b"]),
        ("a AT TIME ZONE b", &["a", "b"]),
        ("ROW(a, b) = (c, d)", &["a", "b", "c", "d"]),
        ("extract(year FROM a)", &["a"]),
        ("extract(epoch FROM a)", &["a"]),
        ("substring(a FROM b FOR c)", &["a", "b", "c"]),
        ("trim(BOTH a FROM b)", &["a", "b"]),
        ("position(a IN b)", &["a", "b"]),
        ("overlay(a PLACING b FROM 1)", &["a", "b"]),
        ("normalize(a, NFC)", &["a"]),
        ("a IS NFC NORMALIZED", &["a"]),
        ("f(a, nfc)", &["a", "nfc"]),
        ("a IS JSON", &["a"]),
        ("a IS DOCUMENT", &["a"]),
        ("xmlelement(name b, a)", &["a"]),
        ("a IS NOT DOCUMENT", &["a"]),
        ("a IS UNKNOWN OR b IS NOT UNKNOWN", &["a", "b"]),
        ("a OR unknown", &["a", "unknown"]),
        ("a IS TRUE AND b IS NOT NULL AND c ISNULL", &["a", "b", "c"]),
        ("json_object('k' VALUE a, b : c)", &["a", "b", "c"]),
        ("xmlparse(DOCUMENT a)", &["a"]),
        ("a LIKE b ESCAPE 'x'", &["a", "b"]),
        ("a NOT SIMILAR TO b", &["a", "b"]),
        ("rank() WITHIN GROUP (ORDER BY a)", &["a"]),
        ("lag(a) OVER w", &["a"]),
        ("a -> 'x' ->> b", &["a", "b"]),
        ("json_build_object('k', a)", &["a"]),
        ("greatest(a, least(b, 1))", &["a", "b"]),
        (
            "sum(a) FILTER (WHERE b) OVER (PARTITION BY c ORDER BY d)",
            &["a", "b", "c", "d"],
        ),
        ("f(VARIADIC a)", &["a"]),
        ("\"current_date\"", &["current_date"]),
        ("\"now\"", &["now"]),
        ("U&\"\\0061b\"", &["ab"]),
        ("name", &["name"]),
        ("value", &["value"]),
    ] {
        assert_eq!(columns(text), expected, "{text}");
        assert!(!expression(text).has_subquery(), "{text}");
        assert!(!expression(text).is_constant(), "{text}");
    }
}

#[test]
fn functions_types_and_keywords_are_no_columns() {
    for text in [
        "now()",
        "pg_catalog.now()",
        "current_timestamp",
        "CURRENT_TIMESTAMP(0)",
        "current_date + localtime",
        "current_user || session_user || user || current_role || current_catalog || current_schema",
        "interval '1 day'",
        "count(*)",
        "nextval('s')",
        "timestamp with time zone '2020-01-01' + interval '1' year",
        "make_interval(days => 1)",
        "gen_random_uuid()",
        "'x'::my_type",
        "my_type 'x'",
        "true AND NOT false",
    ] {
        assert!(columns(text).is_empty(), "{text}: {:?}", columns(text));
    }
}

#[test]
fn columns_that_a_sub_select_does_not_name_are_known_to_be_hidden() {
    for text in [
        "(SELECT row_to_json(x) FROM t x)::text",
        "(SELECT sum(b) FROM t AS x (a, b))",
        "(WITH x (a, b) AS (SELECT * FROM t) SELECT sum(b) FROM x)",
        "(SELECT sum(b) FROM (SELECT 1 AS a, 2 AS b UNION ALL SELECT * FROM t) x)",
        "a IN (TABLE t)",
    ] {
        assert!(expression(text).hides_columns(), "{text}");
    }
    for text in [
        "a",
        "row_to_json(t)",
        "(SELECT count(*) FROM t x WHERE x.a = t.a)",
        "EXISTS (SELECT * FROM t x WHERE x.a = t.a)",
        "(SELECT sum(x.b) FROM t AS x)",
    ] {
        assert!(!expression(text).hides_columns(), "{text}");
    }
}

#[test]
fn names_in_sub_selects_are_among_the_columns_and_relations_are_not() {
    let text =
        "a + (SELECT max(o.id) FROM app.\"Other\" o JOIN x USING (q) WHERE o.a = t.b AND c IN (TABLE y))";
    let expression = expression(text);
    assert!(expression.has_subquery());
    assert_eq!(columns(text), ["a", "b", "c", "id", "q"]);
    let relations: Vec<String> = expression.relations().map(ToString::to_string).collect();
    assert_eq!(relations, ["\"x\"", "\"y\"", "\"app\".\"Other\""]);
    for text in [
        "EXISTS (SELECT)",
        "ARRAY(VALUES (1))",
        "(SELECT 1)",
        "a IN (SELECT 1)",
        "a > ALL (SELECT 1)",
    ] {
        assert!(super::Expression::parse(text).unwrap().has_subquery(), "{text}");
    }
}

#[test]
fn constants_are_literals_signs_casts_and_arrays() {
    for text in [
        "1",
        "-1.5e3",
        "+ - 1",
        "'x'",
        "E'x'",
        "$$x$$",
        "NULL",
        "TRUE",
        "(false)",
        "'x'::text",
        "'{}'::jsonb",
        "CAST('a' AS app.mood)",
        "DATE '2020-01-01'",
        "timestamp(3) with time zone '2020-01-01'",
        "interval '1' day",
        "interval '1' hour to minute",
        "ARRAY[1, 2]",
        "ARRAY[[1], [-2]]::int[]",
        "'x'::\"My Type\"(3)::varchar(10)",
        "B'101'",
    ] {
        assert!(expression(text).is_constant(), "{text}");
    }
    for text in [
        "a",
        "now()",
        "current_date",
        "1 + 1",
        "NOT true",
        "ARRAY(SELECT 1)",
        "(SELECT 1)",
        "ARRAY[a]",
        "a::int",
        "f(1)",
        "@ -1",
        "ROW(1)",
        "random()::int",
    ] {
        assert!(!expression(text).is_constant(), "{text}");
    }
}

#[test]
fn what_is_not_exactly_one_expression_is_refused() {
    for text in [
        "",
        " ",
        "-- a",
        "/* a */",
        "1; DROP TABLE x",
        "1;",
        ";",
        "a, b",
        "1) , (2",
        "1\n) , (2",
        ")(",
        "1)",
        "(1",
        "a[1",
        "(a]",
        "'a",
        "E'a\\'",
        "\"a",
        "$$a",
        "$a$ $b$",
        "1 /* a",
        "1 */",
        "DEFAULT",
        "f(DEFAULT)",
        "$1",
        "a = $1",
        ":a",
        ":'a'",
        "1 AS b",
        "1 b",
        "a b",
        "*",
        "DISTINCT a",
        "SELECT 1",
        "1 FROM t",
        "1 WHERE true",
        "1 UNION SELECT 2",
        "1) UNION SELECT (2",
        "1 ORDER BY 2",
        "a :: ",
        "a +",
        "a IS",
        "NOT a IS NOT",
        "a[1] AND",
        "(a) OR",
        "a.[1]",
        "(a).",
        "\\d",
        "1 \\gexec",
        "a\0b",
        "1abc",
        "'a' 'b'",
        "(SELECT 1 FOR UPDATE)",
        "(SELECT 1 INTO x)",
        "(WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x)",
        "(INSERT INTO t VALUES (1))",
        "set_config('a.b', 'c', false)",
        "pg_catalog.\"set_config\"('a.b', 'c', false)",
        "'a\\'",
        "'a\\''b'",
        "E'a'\n'b\\'",
        "U&'\\'",
        "a.\"\"",
    ] {
        assert!(Expression::parse(text).is_err(), "{text:?}");
    }
    let long = format!("\"{}\"", "x".repeat(64));
    assert!(
        Expression::parse(&long)
            .unwrap_err()
            .to_string()
            .contains("63 bytes")
    );
    assert!(Expression::parse(&"(".repeat(100_000)).is_err());
}

#[test]
fn the_text_is_kept_as_written() {
    assert_eq!(expression(" a  +\n1 -- b\n").text(), "a  +\n1 -- b");
    assert_eq!(expression("'a\\d+'").text(), "'a\\d+'");
    assert_eq!(expression("1 -- ) /* '").text(), "1 -- ) /* '");
}

#[test]
fn a_refusal_says_where_and_why() {
    assert_eq!(
        Expression::parse("a +\n 1;").unwrap_err().to_string(),
        "`a +\n 1;` is not a SQL expression that can stand here: remove the `;` (line 2, column 3 of it)"
    );
    assert_eq!(
        Expression::parse("").unwrap_err().to_string(),
        "a SQL expression is expected, and there is nothing"
    );
    assert_eq!(
        Query::parse("DELETE FROM t").unwrap_err().to_string(),
        "`DELETE FROM t` is not a query that can stand here: it must be exactly one SELECT (line 1, column 1 of it)"
    );
}

#[test]
fn any_yaml_scalar_is_an_expression() {
    #[derive(Debug, Deserialize)]
    struct Row {
        value: Option<Expression>,
    }
    for (yaml, text) in [
        ("5", Some("5")),
        ("-5", Some("-5")),
        ("0.25", Some("0.25")),
        ("true", Some("TRUE")),
        ("\"total * 1.2\"", Some("total * 1.2")),
        ("total * 1.2", Some("total * 1.2")),
        ("18446744073709551615", Some("18446744073709551615")),
        ("null", None),
    ] {
        let row: Row = serde_saphyr::from_str(&format!("value: {yaml}")).unwrap();
        assert_eq!(row.value.as_ref().map(Expression::text), text, "{yaml}");
    }
    let null: Expression = serde_json::from_str("null").unwrap();
    assert_eq!(null.text(), "NULL");
    assert!(null.is_constant());
    assert!(serde_json::from_str::<Expression>("[1]").is_err());
    assert!(serde_saphyr::from_str::<Row>("value: .nan").is_err());
    assert!(serde_json::from_str::<Query>("\"SELECT 1;\"").is_err());
}

#[test]
fn a_query_is_one_select_that_changes_and_locks_nothing() {
    for text in [
        "SELECT true",
        "SELECT count(*) = 0 FROM t WHERE a IS NULL -- none",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "WITH RECURSIVE x AS (SELECT 1 UNION ALL SELECT 2) SELECT * FROM x",
        "VALUES (true)",
        "TABLE t",
        "(SELECT true)",
        "SELECT true UNION SELECT false",
        "SELECT ';', $$;$$, \";\" FROM t",
        "SELECT 'a\\d'",
    ] {
        assert_eq!(Query::parse(text).unwrap().text(), text);
    }
    for text in [
        "",
        "SELECT 1;",
        "SELECT 1; SELECT 2",
        "SELECT 1 INTO x",
        "SELECT 1 FOR UPDATE",
        "SELECT 1 FROM t FOR KEY SHARE",
        "SELECT * FROM (SELECT 1 FROM t FOR SHARE) q",
        "WITH x AS (DELETE FROM t RETURNING 1) SELECT * FROM x",
        "WITH x AS (INSERT INTO t VALUES (1) RETURNING 1) SELECT * FROM x",
        "INSERT INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "EXPLAIN SELECT 1",
        "COMMIT",
        "1",
        "SELECT $1",
        "SELECT 1)",
        "(SELECT 1",
        "SELECT 1 /*",
        "SELECT 'a",
        "SELECT 'a\\'",
        "SELECT set_config('a.b', 'c', false)",
        "SELECT 1 SELECT 2",
    ] {
        assert!(Query::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn a_type_is_one_type_and_nothing_else() {
    for text in [
        "int",
        "numeric",
        "numeric(10,2)",
        "numeric(10, -2)",
        "bigint",
        "serial",
        "text[]",
        "int ARRAY",
        "int[3][]",
        "timestamp with time zone",
        "timestamp(3) without time zone",
        "time with time zone",
        "double precision",
        "character varying(10)",
        "national character varying(10)",
        "varchar(10)",
        "bit varying(3)",
        "interval",
        "interval year to month",
        "interval(3)",
        "\"My Enum\"[]",
        "public.mood",
        "app.\"Mood\"",
        "geometry(Point, 4326)",
        "uuid",
        "json",
        "xml",
        " jsonb ",
    ] {
        assert!(is_type(text), "{text}");
    }
    for text in [
        "",
        "int NOT NULL",
        "int DEFAULT 1",
        "int, b int",
        "int)",
        "int; DROP TABLE t",
        "int -- a",
        "int /* a */",
        "int/**/",
        "int COLLATE \"C\"",
        "int PRIMARY KEY",
        "int) , (1 AS int",
        "1",
        "'int'",
        "a + b",
        "SETOF int",
        "\"int",
        "int[",
        "int 'x'",
        "numeric(f(1))",
        "numeric(a => 1)",
        "t.a%TYPE",
        "(int)",
        "int GENERATED ALWAYS AS IDENTITY",
    ] {
        assert!(!is_type(text), "{text}");
    }
}

/// Pieces that open, close and hide.
#[test]
fn a_column_gets_another_name_where_it_is_one() {
    let (from, to) = (Ident::exact("text").unwrap(), Ident::exact("New").unwrap());
    for (before, after) in [
        (
            "lower((text)::text) = 'text'::text",
            "lower((\"New\")::text) = 'text'::text",
        ),
        (
            "t.text > text(1) AND \"text\" <> x",
            "t.\"New\" > text(1) AND \"New\" <> x",
        ),
        ("ä || text", "ä || \"New\""),
        ("x > 1", "x > 1"),
    ] {
        let renamed = Expression::parse(before)
            .unwrap()
            .with_column(&from, &to)
            .unwrap();
        assert_eq!(renamed.text(), after);
    }
}

fn pieces() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        prop::sample::select(vec![
            "a", "b", "1", "1.5", "+", "-", "--", "/*", "*/", "/", "*", "'", "''", "\"", "\\", "\\'", "$",
            "$$", "$a$", "$1", "E'", "e'", "U&'", "B'", "N'", "(", ")", "[", "]", ",", ";", ".", "::", ":",
            ":=", "=>", "\n", "\r", " ", "AS", "SELECT", "FROM t", "UNION", "AND", "NOT", "NULL", "DEFAULT",
            "CASE", "WHEN", "THEN", "END", "f(", "int", "'x'", "\"c\"", "$$x$$", "E'x'", "/* c */", "-- c\n",
            "(1)", "[1]", "ü", "\u{feff}", "\u{b}", "{", "}", "|", "||", "@", "#", "%", "`", "?", "0x", "1e",
            "1_0", "_",
        ])
        .prop_map(str::to_owned),
        "[ -~\\n]{1,3}",
    ];
    prop::collection::vec(piece, 1..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn no_accepted_expression_reaches_beyond_its_brackets(text in pieces()) {
        if let Ok(expression) = Expression::parse(&text) {
            for standard in [true, false] {
                prop_assert!(contained(&format!("{}\n", expression.text()), standard), "{text:?}");
            }
        }
    }

    #[test]
    fn no_accepted_expression_reaches_beyond_its_brackets_after_quotes(
        before in prop::sample::select(vec!["'a'", "E'a'", "a", "f(", "(", "ARRAY["]),
        text in pieces(),
        after in prop::sample::select(vec!["'b'", "b", ")", "", "]", "+ 1"]),
    ) {
        let text = format!("{before}{text}{after}");
        if let Ok(expression) = Expression::parse(&text) {
            for standard in [true, false] {
                prop_assert!(contained(&format!("{}\n", expression.text()), standard), "{text:?}");
            }
        }
    }

    #[test]
    fn no_accepted_query_ends_or_reaches_beyond_its_brackets(text in pieces()) {
        if let Ok(query) = Query::parse(&format!("SELECT {text}")) {
            for standard in [true, false] {
                prop_assert!(contained(&format!("{}\n", query.text()), standard), "{text:?}");
            }
        }
    }

    #[test]
    fn no_accepted_type_reaches_beyond_itself(text in pieces()) {
        for text in [format!("int{text}"), format!("numeric({text})"), text] {
            if is_type(&text) {
                for standard in [true, false] {
                    prop_assert!(contained(&text, standard), "{text:?}");
                }
                // In a string these are no comment: `numeric('/* c */')` is a type, if not one that PostgreSQL has.
                let comments = lex(&text).filter(|token| token.is_trivia() && token.kind != TokenKind::Whitespace).count();
                prop_assert_eq!(comments, 0, "{:?}", text);
            }
        }
    }
}
