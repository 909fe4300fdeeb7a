//! What the steps become on tables of all kinds.

use super::{Change, Undo};
use crate::name::Ident;
use crate::name::Table;
use crate::plan::{
    Action, Batches, CheckFacts, ColumnFacts, Dependent, EnumFacts, Facts, ForeignKeyFacts, Kept, KeyFacts,
    Length, Lookup, Nullability, Ordering, Paging, PartFacts, Passes, Refusal, RelationKind, Sort, Source,
    Stage, Storage, TableFacts, TypeLookup, UniqueKeyFacts, UniqueKeyKind, Upper,
};
use serde_json::{Value, json};

fn change(step: &Value) -> Change {
    let (name, body) = step.as_object().unwrap().iter().next().unwrap();
    let change = Change::deserialize(name, body.clone()).unwrap().unwrap();
    change.check().unwrap();
    change
}

fn ident(name: &str) -> Ident {
    Ident::exact(name).unwrap()
}

fn column(name: &str, data_type: &str) -> ColumnFacts {
    ColumnFacts {
        name: ident(name),
        data_type: data_type.to_owned(),
        collation: None,
        nullability: Nullability::Nullable,
        source: Source::Plain,
        ordering: Ordering::Exact,
    }
}

/// A table `t` with an identity key `id` and the columns `n` and `total`.
fn table() -> TableFacts {
    let id = ColumnFacts {
        source: Source::Growing,
        nullability: Nullability::NotNull,
        ..column("id", "bigint")
    };
    TableFacts {
        schema: ident("public"),
        name: ident("t"),
        kind: RelationKind::Table,
        columns: vec![id, column("n", "integer"), column("total", "numeric")],
        parts: vec![part("t", &["id"])],
        partition_columns: [].into(),
        syncs: Vec::new(),
        checks: Vec::new(),
        foreign_keys: Vec::new(),
        unique_keys: vec![UniqueKeyFacts {
            columns: vec![ident("id")],
            kind: UniqueKeyKind::Primary,
        }],
        dependents: Vec::new(),
    }
}

/// A relation with a primary key.
fn part(name: &str, key: &[&str]) -> PartFacts {
    let column = |name: &&str| KeyFacts {
        column: ident(name),
        sort: Sort::ASCENDING,
    };
    PartFacts {
        oid: 1,
        schema: ident("public"),
        name: ident(name),
        storage: Storage::Local,
        keys: vec![key.iter().map(column).collect()],
        estimated_rows: 1000,
        blocks: 10,
        row_security: false,
        unvalidated_checks: [].into(),
        foreign_keys: Vec::new(),
    }
}

fn facts(table: TableFacts) -> Facts {
    let name = Table::parse("t").unwrap();
    Facts {
        tables: [(name, Lookup::Found(Box::new(table)))].into(),
        ..Facts::default()
    }
}

/// All statements of a plan, in order.
fn statements(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .flat_map(|action| match action {
            Action::Transaction(transaction) => transaction.statements.clone(),
            Action::Batches(_)
            | Action::Assert(_)
            | Action::Outside(_)
            | Action::Index(_)
            | Action::LookAgain => {
                panic!("{action:?}")
            }
        })
        .collect()
}

fn batches(step: &Value, table: TableFacts) -> Result<Batches, Refusal> {
    let actions = change(step).plan(&facts(table))?;
    match actions.as_slice() {
        // A trigger may come before.
        [.., Action::Batches(batches)] => Ok((**batches).clone()),
        other => panic!("{other:?}"),
    }
}

fn refused(result: Result<Batches, Refusal>) -> String {
    match result.unwrap_err() {
        Refusal::Unsafe { what, advice } => format!("unsafe: {what} ({})", advice.unwrap_or_default()),
        Refusal::Input { what, advice } => format!("input: {what} ({})", advice.unwrap_or_default()),
    }
}

#[test]
fn not_null_goes_through_a_check_and_resumes_from_what_is_there() {
    let step = json!({"set_not_null": {"table": "t", "column": "n"}});
    let all = statements(&change(&step).plan(&facts(table())).unwrap());
    let verbs: Vec<bool> = [
        "NOT VALID",
        "VALIDATE CONSTRAINT",
        "SET NOT NULL",
        "DROP CONSTRAINT",
    ]
    .iter()
    .zip(&all)
    .map(|(verb, statement)| statement.contains(verb))
    .collect();
    assert_eq!(verbs, [true; 4], "{all:?}");

    let check = crate::sql::not_null_check(&table(), &ident("n"));
    let with_check = |validated, nullability| {
        let mut table = table();
        table.checks.push(CheckFacts {
            name: check.clone(),
            definition: String::new(),
            validated,
        });
        table.columns[1].nullability = nullability;
        statements(&change(&step).plan(&facts(table)).unwrap())
    };
    assert_eq!(with_check(false, Nullability::Nullable), all[1..]);
    assert_eq!(with_check(true, Nullability::Nullable), all[2..]);
    assert_eq!(
        with_check(true, Nullability::NotNull),
        all[3..],
        "only the helping check is left to drop"
    );
}

#[test]
fn a_column_that_is_not_null_already_needs_nothing() {
    let mut table = table();
    table.columns[1].nullability = Nullability::NotNull;
    let step = json!({"set_not_null": {"table": "t", "column": "n"}});
    assert!(change(&step).plan(&facts(table)).unwrap().is_empty());
}

#[test]
fn a_dry_run_sees_the_columns_that_earlier_steps_add_and_drop() {
    let mut facts = facts(table());
    let add = change(&json!({"add_column": {"table": "t", "column": "x", "type": "text"}}));
    let fill = change(&json!({"backfill": {"table": "t", "set": {"x": "'a'"}}}));
    assert!(fill.plan(&facts).is_err());
    add.effect(&mut facts);
    assert!(fill.plan(&facts).is_ok());
    change(&json!({"drop_column": {"table": "t", "column": "x"}})).effect(&mut facts);
    assert!(fill.plan(&facts).is_err());
}

#[test]
fn a_derived_value_leaves_the_range_open() {
    let step = json!({"backfill": {"table": "t", "set": {"n": "total * 2"}}});
    assert_eq!(batches(&step, table()).unwrap().upper, Upper::Open);
}

#[test]
fn a_value_that_reads_itself_ends_at_the_rows_there_are() {
    for expression in ["n + 1", "\"n\" + 1", "t.n + 1", "coalesce(N, 0) + 1", "(t).n + 1"] {
        let step = json!({"backfill": {"table": "t", "set": {"n": expression}}});
        assert_eq!(
            batches(&step, table()).unwrap().upper,
            Upper::AtStart,
            "{expression}"
        );
    }
    let crossed = json!({"backfill": {"table": "t", "set": {"n": "total", "total": "n"}}});
    assert_eq!(batches(&crossed, table()).unwrap().upper, Upper::AtStart);
}

#[test]
fn a_value_that_reads_itself_needs_a_key_that_grows_or_a_word() {
    let mut named = table();
    named.columns[0].source = Source::Plain;
    let step = |more: Value| {
        let mut body = json!({"table": "t", "set": {"n": "n + 1"}});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "backfill": body })
    };
    assert!(refused(batches(&step(json!({})), named.clone())).contains("new_rows: either"));
    assert_eq!(
        batches(&step(json!({"new_rows": "either"})), named.clone())
            .unwrap()
            .upper,
        Upper::AtStart
    );
    let excluded = step(json!({"new_rows": "excluded", "where": "total < 5"}));
    assert_eq!(batches(&excluded, named.clone()).unwrap().upper, Upper::AtStart);
    named.kind = RelationKind::Partitioned;
    assert!(refused(batches(&step(json!({"new_rows": "either"})), named)).contains("partitions"));
}

#[test]
fn what_carries_no_cursor_is_refused_with_the_reason() {
    let step = json!({"backfill": {"table": "t", "set": {"n": "1"}}});
    let mut without = table();
    without.parts[0].keys.clear();
    let changing = json!({"backfill": {"table": "t", "set": {"n": "random() * 10"}}});
    let mut volatile = facts(without.clone());
    volatile.volatile.insert("random".to_owned());
    let refusal = change(&changing).plan(&volatile).unwrap_err();
    assert!(refusal.to_string().contains("no primary key"), "{refusal}");
    let twice = json!({"backfill": {"table": "t", "set": {"n": "n + 1"}, "new_rows": "either"}});
    assert!(refused(batches(&twice, without)).contains("no primary key"));
    for (ordering, reason) in [
        (Ordering::Float, "floating"),
        (Ordering::Nondeterministic, "nondeterministic"),
        (Ordering::None, "without an order"),
    ] {
        let mut odd = table();
        odd.columns[0].ordering = ordering;
        assert!(refused(batches(&step, odd)).contains(reason), "{reason}");
    }
    let mut view = table();
    view.kind = RelationKind::Other("view");
    assert!(refused(batches(&step, view)).contains("is a view"));
}

#[test]
fn names_that_are_not_there_are_said_with_what_may_have_been_meant() {
    let mut mixed = table();
    mixed.columns[1].name = ident("Qty");
    let step = json!({"backfill": {"table": "t", "set": {"qty": "1"}}});
    assert!(refused(batches(&step, mixed.clone())).contains("there is \"Qty\""));
    let reading = json!({"backfill": {"table": "t", "set": {"total": "qty + 1"}}});
    assert!(refused(batches(&reading, mixed)).contains("no column \"qty\""));
    let generated = json!({"backfill": {"table": "t", "set": {"total": "1"}}});
    let mut table = table();
    table.columns[2].source = Source::Generated;
    assert!(refused(batches(&generated, table)).contains("generated"));
}

#[test]
fn a_column_is_added_with_what_was_written() {
    let add = |body: Value| {
        statements(
            &change(&json!({ "add_column": body }))
                .plan(&facts(table()))
                .unwrap(),
        )
    };
    assert_eq!(
        add(json!({"table": "t", "column": "Note", "type": "text"})),
        ["ALTER TABLE \"public\".\"t\" ADD COLUMN \"note\" text"]
    );
    assert_eq!(
        add(json!({"table": "t", "column": "x", "type": "int", "default": "0", "not_null": true})),
        ["ALTER TABLE \"public\".\"t\" ADD COLUMN \"x\" int DEFAULT (0\n) NOT NULL"]
    );
    let again =
        change(&json!({"add_column": {"table": "t", "column": "n", "type": "int"}})).plan(&facts(table()));
    assert!(matches!(again, Err(Refusal::Input { what, .. }) if what.contains("already has a column")));
}

#[test]
fn texts_that_cannot_be_meant_are_refused_before_any_database_is_asked() {
    let bad = |step: Value| {
        let (name, body) = step.as_object().unwrap().iter().next().unwrap();
        Change::deserialize(name, body.clone())
            .unwrap()
            .unwrap()
            .check()
            .unwrap_err()
            .join("; ")
    };
    assert!(bad(json!({"backfill": {"table": "t", "set": {}}})).contains("names no column"));
    assert!(
        bad(json!({"backfill": {"table": "t", "set": {"n": "1"}, "batch": {"size": 0}}}))
            .contains("batch.size")
    );
    assert!(
        bad(json!({"backfill": {"table": "t", "set": {"n": "1"}, "new_rows": "excluded"}})).contains("where")
    );
    assert!(
        bad(json!({"add_column": {"table": "t", "column": "n", "type": "int", "not_null": true}}))
            .contains("default")
    );
    let reading = json!({"add_column": {"table": "t", "column": "n", "type": "int", "default": "id + 1"}});
    assert!(bad(reading).contains("reads columns"));
}

#[test]
fn names_in_a_sub_select_are_postgresqls_to_find() {
    let set = |value: &str| {
        batches(
            &json!({"backfill": {"table": "t", "set": {"total": value}}}),
            table(),
        )
    };
    assert_eq!(
        set("(SELECT max(o.price) FROM orders o WHERE o.a = id)")
            .unwrap()
            .upper,
        Upper::Open
    );
    assert_eq!(set("n + extract(year FROM now())").unwrap().upper, Upper::Open);
    assert_eq!(set("(n IS UNKNOWN)::int").unwrap().upper, Upper::Open);
    assert!(set("n + tableoid::int").is_ok());
    assert!(refused(set("n + nn")).contains("has no column \"nn\""));
}

#[test]
fn a_sub_select_of_the_table_itself_reads_what_the_step_sets() {
    let set = |value: &str| {
        batches(
            &json!({"backfill": {"table": "t", "set": {"total": value}}}),
            TableFacts {
                columns: vec![column("id", "uuid"), column("total", "numeric")],
                ..table()
            },
        )
    };
    for value in [
        "total + 1",
        "(SELECT count(*) FROM public.t)",
        "row_to_json(t) ->> 'a'",
        "(SELECT max(x.total) FROM y x)",
    ] {
        assert!(refused(set(value)).starts_with("unsafe"), "{value}");
    }
    assert!(set("(SELECT count(*) FROM other)").is_ok());
}

/// The facts of `t`, a catalog that knows `random` as volatile and `public.v` and `parent` as showing rows of `t`.
fn with_relatives() -> Facts {
    let named = |name: &str| Table::parse(name).unwrap();
    Facts {
        volatile: ["random".to_owned(), "clock_timestamp".to_owned()].into(),
        same_rows: [(named("t"), named("public.v")), (named("t"), named("parent"))].into(),
        ..facts(table())
    }
}

fn refusal(step: &Value) -> Option<String> {
    match change(step).plan(&with_relatives()) {
        Ok(_) => None,
        Err(Refusal::Unsafe { what, advice }) => Some(format!("{what} ({})", advice.unwrap())),
        Err(Refusal::Input { what, .. }) => panic!("{what}"),
    }
}

#[test]
fn a_condition_that_batches_would_answer_anew_is_refused() {
    let delete = |condition: &str| refusal(&json!({"delete": {"table": "t", "where": condition}}));
    let backfill = |condition: &str| {
        refusal(
            &json!({"backfill": {"table": "t", "set": {"total": "n * 2"}, "where": condition, "sync": "none"}}),
        )
    };
    for refused in [&delete as &dyn Fn(&str) -> Option<String>, &backfill] {
        for (condition, relation) in [
            ("n < (SELECT avg(n) FROM t)", "\"public\".\"t\" itself"),
            (
                "n IN (SELECT n FROM public.t GROUP BY n HAVING count(*) > 1)",
                "\"public\".\"t\" itself",
            ),
            (
                "EXISTS (SELECT FROM public.v WHERE v.n > t.n)",
                "\"public\".\"v\", which shows",
            ),
            (
                "id IN (SELECT id FROM other JOIN parent USING (id) LIMIT 10)",
                "\"parent\", which shows",
            ),
        ] {
            let why = refused(condition).unwrap();
            assert!(
                why.contains(&format!("`where` reads {relation}")),
                "{condition}: {why}"
            );
            assert!(why.contains("CREATE TABLE .. AS SELECT"), "{why}");
        }
        for (condition, function) in [
            ("n > 5 AND random() < 0.5", "random()"),
            (
                "id IN (SELECT id FROM other WHERE pg_catalog.random() < n)",
                "random()",
            ),
            ("clock_timestamp() > '2020-01-01'", "clock_timestamp()"),
        ] {
            let why = refused(condition).unwrap();
            assert!(
                why.contains(&format!("`where` calls {function}")),
                "{condition}: {why}"
            );
        }
        for condition in [
            "n > 5",
            "n IN (SELECT n FROM other)",
            "n IN (SELECT n FROM other.t)",
            "now() > '2020-01-01'",
        ] {
            assert_eq!(refused(condition), None, "{condition}");
        }
    }
}

#[test]
fn values_computed_over_rows_that_have_theirs_are_refused_whatever_the_key() {
    let set = |value: &str| {
        refusal(
            &json!({"backfill": {"table": "t", "set": {"total": value}, "new_rows": "either", "sync": "none"}}),
        )
    };
    for value in [
        "total / (SELECT sum(total) FROM t)",
        "total / (SELECT sum(x.total) FROM parent x)",
        "(SELECT max(total) FROM public.v)",
        "(SELECT length(x::text) FROM t x WHERE x.id = t.id - 1)",
        "(SELECT sum(b) FROM t AS x (a, b))",
        "(SELECT max(length(t::text)) FROM t)",
    ] {
        let why = set(value).unwrap_or_else(|| panic!("{value}"));
        assert!(
            why.contains("later batches would read what earlier ones wrote"),
            "{value}: {why}"
        );
    }
    for value in [
        "total * 2",
        "total / (SELECT sum(total) FROM other)",
        "(SELECT count(*) FROM t x WHERE x.n = t.id)",
    ] {
        assert_eq!(set(value), None, "{value}");
    }
}

#[test]
fn verifying_what_nothing_can_prove_is_refused() {
    let verified = |rest: Value| {
        let mut step = json!({"table": "t", "batch": {"verify": true}, "sync": "none"});
        let rest = rest.as_object().unwrap().clone();
        step.as_object_mut().unwrap().extend(rest);
        refusal(&json!({ "backfill": step }))
    };
    for set in ["random() * 10", "extract(epoch FROM now())", "n + 1"] {
        let why = verified(json!({"set": {"n": set}})).unwrap();
        assert!(
            why.contains("`verify: true` has nothing to go by"),
            "{set}: {why}"
        );
        assert_eq!(
            verified(json!({"set": {"n": set}, "where": "n IS NULL", "new_rows": "excluded"})),
            None,
            "{set}"
        );
    }
    assert_eq!(verified(json!({"set": {"n": "id"}})), None);
}

#[test]
fn a_serial_column_is_refused_since_it_rewrites_the_table() {
    let step = json!({"table": "t", "column": "a", "type": "bigserial"});
    let problems = Change::deserialize("add_column", step).unwrap().unwrap().check();
    assert!(problems.unwrap_err()[0].contains("rewrite"));
}

#[test]
fn undoing_an_interrupted_not_null_drops_its_check() {
    let drop = change(&json!({"drop_not_null": {"table": "t", "column": "n"}}));
    assert!(drop.plan(&facts(table())).unwrap().is_empty());
    let mut begun = table();
    begun.checks.push(CheckFacts {
        name: crate::sql::not_null_check(&begun, &ident("n")),
        definition: "CHECK ((n IS NOT NULL)) NOT VALID".to_owned(),
        validated: false,
    });
    let undone = statements(&drop.plan(&facts(begun)).unwrap());
    assert_eq!(undone.len(), 1);
    assert!(undone[0].contains("DROP CONSTRAINT"), "{undone:?}");
}

#[test]
fn a_backfill_may_not_set_the_key_it_pages_by() {
    for value in ["gen_random_uuid()", "id + 1000000"] {
        let step = json!({"backfill": {"table": "t", "set": {"id": value}, "new_rows": "either"}});
        let why = refused(batches(&step, table()));
        assert!(why.contains("part of the primary key"), "{why}");
    }
}

#[test]
fn a_table_without_a_key_is_paged_by_blocks_until_no_row_is_left() {
    let mut without = table();
    without.parts[0].keys.clear();
    let delete = batches(
        &json!({"delete": {"table": "t", "where": "n = 1"}}),
        without.clone(),
    )
    .unwrap();
    assert_eq!(delete.parts[0].paging, Paging::Blocks);
    assert_eq!(delete.passes, until_none(None));
    let derived = batches(
        &json!({"backfill": {"table": "t", "set": {"n": "total * 2"}}}),
        without,
    )
    .unwrap();
    assert_eq!(derived.passes, until_none(Some(1)));
}

fn until_none(unchanged_left_out_from: Option<u32>) -> Passes {
    Passes::UntilNone {
        unchanged_left_out_from,
    }
}

/// `t`, partitioned by `n` into `t_1` with a key and `t_2` with a key of its own.
fn partitioned() -> TableFacts {
    TableFacts {
        kind: RelationKind::Partitioned,
        parts: vec![part("t_1", &["id"]), part("t_2", &["n", "id"])],
        partition_columns: [ident("n")].into(),
        ..table()
    }
}

#[test]
fn a_partitioned_table_is_paged_partition_by_partition_and_again_while_rows_move() {
    let step = json!({"backfill": {"table": "t", "set": {"total": "n * 2"}, "sync": "none"}});
    let plan = batches(&step, partitioned()).unwrap();
    let paging: Vec<String> = plan.parts.iter().map(|part| part.paging.as_text()).collect();
    assert_eq!(
        paging,
        ["key (\"id\" bigint)", "key (\"n\" integer, \"id\" bigint)"]
    );
    assert_eq!(plan.passes, until_none(Some(2)));
    let delete = json!({"delete": {"table": "t", "where": "total = 1"}});
    assert_eq!(batches(&delete, partitioned()).unwrap().passes, until_none(None));
}

#[test]
fn a_trigger_keeps_columns_right_where_applications_may_write_what_they_are_made_of() {
    let kept = |step: Value| batches(&json!({ "backfill": step }), table()).unwrap().kept;
    let with = |value: &str| kept(json!({"table": "t", "set": {"total": value}}));
    assert_eq!(with("n * 2"), Kept::ByTrigger);
    assert_eq!(with("id * 2"), Kept::ByApplications, "a key stays as it is");
    assert_eq!(with("0"), Kept::ByApplications);
    assert_eq!(with("total + 1"), Kept::ByApplications);
    assert_eq!(
        kept(json!({"table": "t", "set": {"total": "n"}, "sync": "none"})),
        Kept::ByApplications
    );
    let constant = change(&json!({"backfill": {"table": "t", "set": {"total": "0"}}}));
    let mut refused_later = facts(table());
    refused_later
        .not_null_later
        .insert((Table::parse("t").unwrap(), ident("total")));
    assert_eq!(constant.plan(&refused_later).unwrap().len(), 2);
    let keyed_by_itself = batches(
        &json!({"backfill": {"table": "t", "set": {"total": "n"}}}),
        partitioned(),
    );
    assert!(keyed_by_itself.is_ok());
}

#[test]
fn rows_are_not_moved_between_partitions_by_a_backfill() {
    let step = json!({"backfill": {"table": "t", "set": {"n": "total"}}});
    let why = refused(batches(&step, partitioned()));
    assert!(why.contains("which partition"), "{why}");
}

#[test]
fn another_unique_key_serves_where_the_primary_one_cannot() {
    let mut odd = table();
    odd.columns[0].ordering = Ordering::Float;
    odd.parts[0].keys.push(part("t", &["n"]).keys.remove(0));
    let step = json!({"backfill": {"table": "t", "set": {"total": "1"}}});
    let plan = batches(&step, odd).unwrap();
    assert_eq!(plan.parts[0].paging.as_text(), "key (\"n\" integer)");
}

#[test]
fn rows_that_cannot_be_seen_or_reached_refuse_the_step() {
    let step = json!({"backfill": {"table": "t", "set": {"total": "1"}}});
    let mut hidden = table();
    hidden.parts[0].row_security = true;
    assert!(refused(batches(&step, hidden)).contains("row security hides rows"));
    let mut elsewhere = partitioned();
    elsewhere.parts[1].storage = Storage::Foreign;
    assert!(refused(batches(&step, elsewhere)).contains("is a foreign table"));
}

#[test]
fn the_pace_an_author_asks_for_is_within_bounds() {
    let problems = |batch: Value| {
        let body = json!({"table": "t", "where": "true", "batch": batch});
        let step = Change::deserialize("delete", body).unwrap().unwrap();
        step.check().err().unwrap_or_default().join("; ")
    };
    assert_eq!(
        problems(json!({"workers": 2, "target": "250ms", "max_duty": 0.25})),
        ""
    );
    for (batch, key) in [
        (json!({"workers": 0}), "batch.workers"),
        (json!({"target": 0}), "batch.target"),
        (json!({"target": "1h"}), "batch.target"),
        (json!({"max_duty": 0}), "batch.max_duty"),
        (json!({"max_duty": 1.5}), "batch.max_duty"),
        (json!({"vacuum": 0.001}), "batch.vacuum"),
        (json!({"vacuum": 20}), "batch.vacuum"),
        (json!({"vacuum": -1}), "batch.vacuum"),
    ] {
        assert!(problems(batch).contains(key), "{key}");
    }
}

#[test]
fn a_vacuum_between_batches_is_asked_for_by_a_word_or_a_share_and_is_no_part_of_the_meaning() {
    let step = |batch: Value| change(&json!({"delete": {"table": "t", "where": "true", "batch": batch}}));
    let checksum = |step: &Change| step.checksum();
    for (vacuum, share) in [
        (json!(false), None),
        (json!(true), Some(0.1)),
        (json!(0.25), Some(0.25)),
        (json!(1), Some(1.0)),
    ] {
        let step_of = json!({"delete": {"table": "t", "where": "true", "batch": {"vacuum": vacuum}}});
        assert_eq!(batches(&step_of, table()).unwrap().pacing.vacuum, share);
        assert_eq!(
            checksum(&step(json!({"vacuum": vacuum}))),
            checksum(&step(json!({})))
        );
    }
}

#[test]
fn a_default_that_differs_from_row_to_row_is_filled_in_batches() {
    let step = change(&json!({"add_column": {
        "table": "t", "column": "token", "type": "uuid", "default": "gen_random_uuid()", "not_null": true
    }}));
    let mut facts = facts(table());
    assert_eq!(
        step.plan(&facts).unwrap().len(),
        1,
        "a stable default is a change of the catalog"
    );
    facts.volatile.insert("gen_random_uuid".to_owned());
    let plan = step.plan(&facts).unwrap();
    let [
        Action::Transaction(add),
        Action::Batches(batches),
        Action::Transaction(_),
        Action::Transaction(_),
        Action::Transaction(_),
    ] = plan.as_slice()
    else {
        panic!("{plan:?}");
    };
    assert!(
        add.statements[0].ends_with("ADD COLUMN \"token\" uuid"),
        "{add:?}"
    );
    assert!(
        add.statements[1].contains("SET DEFAULT (gen_random_uuid()"),
        "{add:?}"
    );
    assert_eq!(batches.condition.as_deref(), Some("\"token\" IS NULL"));

    step.effect(&mut facts);
    facts.set_nullability(
        &Table::parse("t").unwrap(),
        &ident("token"),
        Nullability::Nullable,
    );
    assert!(step.plan(&facts).is_err(), "a column that somebody else added");
    facts.stage = Stage::Begun;
    assert!(matches!(step.plan(&facts).unwrap()[0], Action::Batches(_)));
}

/// The statements a step becomes on `t`, and the message of one that is refused.
fn planned(step: &Value, facts: &Facts) -> Result<Vec<String>, String> {
    match change(step).plan(facts) {
        Ok(actions) => Ok(statements(&actions)),
        Err(Refusal::Unsafe { what, advice }) => {
            Err(format!("unsafe: {what} ({})", advice.unwrap_or_default()))
        }
        Err(Refusal::Input { what, advice }) => {
            Err(format!("input: {what} ({})", advice.unwrap_or_default()))
        }
    }
}

/// The same once the step has begun.
fn begun(table: TableFacts) -> Facts {
    Facts {
        stage: Stage::Begun,
        ..facts(table)
    }
}

fn check(name: &str, validated: bool) -> CheckFacts {
    CheckFacts {
        name: ident(name),
        definition: String::new(),
        validated,
    }
}

fn foreign_key(name: &str, validated: bool) -> ForeignKeyFacts {
    ForeignKeyFacts {
        name: ident(name),
        validated,
    }
}

#[test]
fn a_check_is_validated_partition_by_partition_and_goes_on_where_it_stopped() {
    let step = json!({"add_check": {"table": "t", "name": "small", "check": "n < 5 -- so"}});
    let all = planned(&step, &facts(partitioned())).unwrap();
    assert_eq!(
        all,
        [
            "ALTER TABLE \"public\".\"t\" ADD CONSTRAINT \"small\" CHECK (n < 5 -- so\n) NOT VALID",
            "ALTER TABLE \"public\".\"t_1\" VALIDATE CONSTRAINT \"small\"",
            "ALTER TABLE \"public\".\"t_2\" VALIDATE CONSTRAINT \"small\"",
            "ALTER TABLE \"public\".\"t\" VALIDATE CONSTRAINT \"small\"",
        ]
    );
    let mut half = partitioned();
    half.checks.push(check("small", false));
    half.parts[1].unvalidated_checks.insert(ident("small"));
    assert_eq!(planned(&step, &begun(half.clone())).unwrap(), all[2..]);
    half.checks[0].validated = true;
    assert!(planned(&step, &begun(half.clone())).unwrap().is_empty());
    assert!(
        planned(&step, &facts(half))
            .unwrap_err()
            .contains("already has a constraint \"small\"")
    );
    assert_eq!(planned(&step, &facts(table())).unwrap().len(), 2);
    let mut foreign = partitioned();
    foreign.parts[0].storage = Storage::Foreign;
    assert_eq!(planned(&step, &facts(foreign)).unwrap().len(), 3);
}

#[test]
fn validating_takes_the_constraint_back_when_rows_violate_it() {
    let step = json!({"add_check": {"table": "t", "name": "small", "check": "n < 5 -- so"}});
    let actions = change(&step).plan(&facts(table())).unwrap();
    let [Action::Transaction(add), Action::Transaction(validate)] = actions.as_slice() else {
        panic!("{actions:?}")
    };
    assert_eq!((add.length, add.withdraw.is_some()), (Length::Bounded, false));
    assert_eq!(validate.length, Length::Long);
    let withdraw = validate.withdraw.as_ref().unwrap();
    assert!(withdraw.statement.contains("DROP CONSTRAINT IF EXISTS \"small\""));
    assert_eq!(
        withdraw.find,
        "SELECT * FROM \"public\".\"t\" WHERE NOT (n < 5 -- so\n)"
    );
}

#[test]
fn a_foreign_key_of_a_partitioned_table_is_attached_once_each_partition_has_it() {
    let step = json!({"add_foreign_key": {"table": "t", "columns": ["n"], "references": {"table": "t"}}});
    let all = planned(&step, &facts(partitioned())).unwrap();
    let key = "ADD CONSTRAINT \"t_n_fkey\" FOREIGN KEY (\"n\") REFERENCES \"public\".\"t\" (\"id\")";
    let validate = "VALIDATE CONSTRAINT \"t_n_fkey\"";
    assert_eq!(
        all,
        [
            format!("ALTER TABLE \"public\".\"t_1\" {key} NOT VALID"),
            format!("ALTER TABLE \"public\".\"t_1\" {validate}"),
            format!("ALTER TABLE \"public\".\"t_2\" {key} NOT VALID"),
            format!("ALTER TABLE \"public\".\"t_2\" {validate}"),
            format!("ALTER TABLE \"public\".\"t\" {key}"),
        ]
    );
    let mut half = partitioned();
    half.parts[0].foreign_keys.push(foreign_key("t_n_fkey", true));
    assert_eq!(planned(&step, &begun(half.clone())).unwrap(), all[2..]);
    half.parts[1].foreign_keys.push(foreign_key("t_n_fkey", false));
    assert_eq!(planned(&step, &begun(half.clone())).unwrap(), all[3..]);
    let undo = change(&json!({"drop_constraint": {"table": "t", "name": "t_n_fkey"}}));
    assert_eq!(
        statements(&undo.plan(&facts(half.clone())).unwrap()),
        [
            "ALTER TABLE \"public\".\"t_1\" DROP CONSTRAINT \"t_n_fkey\"",
            "ALTER TABLE \"public\".\"t_2\" DROP CONSTRAINT \"t_n_fkey\"",
        ]
    );
    half.foreign_keys.push(foreign_key("t_n_fkey", true));
    assert!(planned(&step, &begun(half.clone())).unwrap().is_empty());
    assert_eq!(statements(&undo.plan(&facts(half)).unwrap()).len(), 1);
    let mut foreign = partitioned();
    foreign.parts[0].storage = Storage::Foreign;
    assert!(
        planned(&step, &facts(foreign))
            .unwrap_err()
            .starts_with("unsafe: partition \"public\".\"t_1\"")
    );
}

#[test]
fn a_foreign_key_references_a_key_in_any_order_and_nothing_else() {
    let mut table = table();
    table.unique_keys.push(UniqueKeyFacts {
        columns: vec![ident("n"), ident("total")],
        kind: UniqueKeyKind::Unique,
    });
    let facts = facts(table);
    let step = |columns: &[&str], referenced: &[&str]| {
        json!({"add_foreign_key": {
            "table": "t", "name": "f", "columns": columns, "references": {"table": "t", "columns": referenced},
            "on_delete": "set_null", "deferrable": "initially_deferred"
        }})
    };
    let all = planned(&step(&["id", "n"], &["total", "n"]), &facts).unwrap();
    assert!(
        all[0].ends_with(
            "(\"id\", \"n\") REFERENCES \"public\".\"t\" (\"total\", \"n\") ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED NOT VALID"
        ),
        "{}",
        all[0]
    );
    assert_eq!(planned(&step(&["n"], &[]), &facts).unwrap().len(), 2);
    let refused = planned(&step(&["n"], &["total"]), &facts).unwrap_err();
    assert!(refused.contains("(\"total\") is no unique key"), "{refused}");
    assert!(
        refused.contains("it has (\"id\"), (\"n\", \"total\")"),
        "{refused}"
    );
    let refused = planned(&step(&["n", "id"], &[]), &facts).unwrap_err();
    assert!(
        refused.contains("the primary key of \"public\".\"t\" is (\"id\")"),
        "{refused}"
    );
}

#[test]
fn what_adds_a_constraint_is_undone_even_when_it_took_it_back() {
    for step in [
        json!({"add_check": {"table": "t", "name": "f", "check": "n < 5"}}),
        json!({"add_foreign_key": {"table": "t", "name": "f", "columns": ["n"], "references": {"table": "t"}}}),
    ] {
        let Undo::By(undo) = change(&step).undo() else {
            panic!("{step}")
        };
        assert!(undo.plan(&facts(table())).unwrap().is_empty(), "{step}");
    }
    let written = json!({"drop_constraint": {"table": "t", "name": "f"}});
    assert!(
        planned(&written, &facts(table()))
            .unwrap_err()
            .contains("no check and no foreign key \"f\"")
    );
}

#[test]
fn a_default_is_undone_where_the_one_before_is_said() {
    let set = |more: Value| {
        let mut body = json!({"table": "t", "column": "n", "default": "7"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        change(&json!({ "set_default": body }))
    };
    assert!(matches!(set(json!({})).undo(), Undo::Impossible { why } if why.contains("`previous`")));
    let Undo::By(undo) = set(json!({"previous": "NULL"})).undo() else {
        panic!()
    };
    assert_eq!(
        statements(&undo.plan(&facts(table())).unwrap()),
        ["ALTER TABLE \"public\".\"t\" ALTER COLUMN \"n\" SET DEFAULT (NULL\n)"]
    );
    assert!(matches!(undo.undo(), Undo::By(again) if *again == set(json!({"previous": "NULL"}))));
    let mut generated = table();
    generated.columns[1].source = Source::Generated;
    let refused = set(json!({})).plan(&facts(generated)).unwrap_err().to_string();
    assert!(refused.contains("is generated"), "{refused}");
}

#[test]
fn renamed_already_is_nothing_to_do_and_taken_is_refused() {
    let column = |from: &str, to: &str| json!({"rename_column": {"table": "t", "column": from, "to": to}});
    assert_eq!(planned(&column("n", "m"), &facts(table())).unwrap().len(), 1);
    assert!(planned(&column("m", "n"), &facts(table())).unwrap().is_empty());
    assert!(
        planned(&column("n", "total"), &facts(table()))
            .unwrap_err()
            .contains("already has a column")
    );
    assert!(
        planned(&column("x", "y"), &facts(table()))
            .unwrap_err()
            .contains("has no column \"x\"")
    );
    let mut after = facts(partitioned());
    change(&column("n", "m")).effect(&mut after);
    let table = after.find(&Table::parse("t").unwrap()).unwrap();
    assert!(table.find(&ident("m")).is_some() && table.find(&ident("n")).is_none());
    assert_eq!(table.partition_columns, [ident("m")].into());
    assert_eq!(table.parts[1].keys[0][0].column, ident("m"));

    let rename = json!({"rename_table": {"table": "t", "to": "u"}});
    let (t, u) = (Table::parse("t").unwrap(), Table::parse("u").unwrap());
    let mut facts = facts(self::table());
    facts.tables.insert(u.clone(), Lookup::Missing { similar: None });
    assert_eq!(
        planned(&rename, &facts).unwrap(),
        ["ALTER TABLE \"public\".\"t\" RENAME TO \"u\""]
    );
    let mut after = facts.clone();
    change(&rename).effect(&mut after);
    assert!(planned(&rename, &after).unwrap().is_empty());
    assert_eq!(after.find(&u).unwrap().parts[0].name, ident("u"));
    // The search path may lead to a table of that name in another schema: it is in nobody's way.
    let mut elsewhere = self::table();
    elsewhere.schema = ident("other");
    facts.tables.insert(u.clone(), Lookup::Found(Box::new(elsewhere)));
    assert_eq!(planned(&rename, &facts).unwrap().len(), 1);
    facts.tables.insert(u, Lookup::Found(Box::new(self::table())));
    assert!(planned(&rename, &facts).unwrap_err().contains("already"));
    facts.tables.insert(t, Lookup::Missing { similar: None });
    assert!(planned(&rename, &facts).unwrap().is_empty());
}

#[test]
fn a_rename_keeps_the_schema() {
    let rename = |table: &str, to: &str| {
        Change::deserialize("rename_table", json!({"table": table, "to": to})).unwrap()
    };
    let Change::RenameTable(rename_it) = rename("S.t", "U").unwrap() else {
        panic!()
    };
    assert_eq!(rename_it.to.to_string(), "\"s\".\"u\"");
    assert!(rename("s.t", "s.u").is_ok());
    assert!(
        rename("s.t", "x.u")
            .unwrap_err()
            .to_string()
            .contains("keeps the schema")
    );
    assert!(rename("t", "x.u").is_err());
}

#[test]
fn a_created_table_can_be_worked_on_by_later_steps_of_a_dry_run() {
    let create = change(&json!({"create_table": {
        "table": "u",
        "columns": [
            {"name": "id", "type": "bigint", "identity": "always"},
            {"name": "Name", "type": "text", "not_null": true, "default": "'x' -- y"},
            {"name": "twice", "type": "bigint", "generated": "id * 2"},
        ],
        "primary_key": ["id"], "unique": [["name"]], "checks": [{"name": "positive", "check": "id > 0"}]
    }}));
    let u = Table::parse("u").unwrap();
    let mut facts = Facts {
        schema: Some(ident("app")),
        ..Facts::default()
    };
    facts.tables.insert(u.clone(), Lookup::Missing { similar: None });
    assert_eq!(
        statements(&create.plan(&facts).unwrap()),
        [
            "CREATE TABLE \"app\".\"u\" (\n  \"id\" bigint GENERATED ALWAYS AS IDENTITY NOT NULL,\n  \
          \"name\" text DEFAULT ('x' -- y\n) NOT NULL,\n  \"twice\" bigint GENERATED ALWAYS AS (id * 2\n) STORED,\n  \
          PRIMARY KEY (\"id\"),\n  UNIQUE (\"name\"),\n  CONSTRAINT \"positive\" CHECK (id > 0\n)\n)"
        ]
    );
    create.effect(&mut facts);
    assert!(create.plan(&facts).unwrap_err().to_string().contains("already"));
    let fill = change(&json!({"backfill": {"table": "u", "set": {"name": "name || '!'"}}}));
    assert!(matches!(
        fill.plan(&facts).unwrap().as_slice(),
        [Action::Batches(batches)] if batches.upper == Upper::AtStart
    ));
    let key = json!({"add_foreign_key": {"table": "u", "columns": ["id"], "references": {"table": "u", "columns": ["name"]}}});
    assert_eq!(change(&key).plan(&facts).unwrap().len(), 2);
    let Undo::By(undo) = create.undo() else { panic!() };
    let undone = statements(&undo.plan(&facts).unwrap());
    assert!(
        undone[0].starts_with("LOCK TABLE \"app\".\"u\" IN ACCESS EXCLUSIVE"),
        "{undone:?}"
    );
    assert_eq!(undone.last().unwrap(), "DROP TABLE \"app\".\"u\"");
    undo.effect(&mut facts);
    assert!(facts.find(&u).is_none());
    assert!(matches!(undo.undo(), Undo::Impossible { .. }));
}

#[test]
fn a_table_that_others_need_is_dropped_after_them() {
    let step = json!({"drop_table": {"table": "t"}});
    let mut needed = table();
    needed.dependents = vec![Dependent {
        what: "foreign key \"f\" of \"public\".\"u\"".to_owned(),
        schema: ident("public"),
        name: ident("u"),
        constraint: Some(ident("f")),
    }];
    let mut facts = facts(needed);
    assert!(
        planned(&step, &facts)
            .unwrap_err()
            .starts_with("unsafe: \"public\".\"t\" is needed by foreign key")
    );
    let other = Table::parse("u").unwrap();
    let mut with = table();
    with.name = ident("u");
    facts.tables.insert(other, Lookup::Found(Box::new(with)));
    for earlier in [
        json!({"drop_constraint": {"table": "u", "name": "f"}}),
        json!({"drop_table": {"table": "u"}}),
    ] {
        let mut after = facts.clone();
        change(&earlier).effect(&mut after);
        assert_eq!(
            planned(&step, &after).unwrap(),
            ["DROP TABLE \"public\".\"t\""],
            "{earlier}"
        );
    }
}

#[test]
fn a_value_of_an_enum_is_added_beside_one_that_is_there() {
    let name = Table::parse("state").unwrap();
    let found = EnumFacts {
        schema: ident("app"),
        name: ident("state"),
        values: vec!["new".to_owned(), "it's".to_owned()],
    };
    let facts = Facts {
        types: [(name, TypeLookup::Enum(found))].into(),
        ..Facts::default()
    };
    let step = |more: Value| {
        let mut body = json!({"type": "state", "value": "paid"});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "add_enum_value": body })
    };
    let before = step(json!({"before": "it's"}));
    assert_eq!(
        planned(&before, &facts).unwrap(),
        ["ALTER TYPE \"app\".\"state\" ADD VALUE 'paid' BEFORE 'it''s'"]
    );
    let mut after = facts.clone();
    change(&before).effect(&mut after);
    let name = Table::parse("state").unwrap();
    assert_eq!(after.enumeration(&name).unwrap().values, ["new", "paid", "it's"]);
    assert!(planned(&step(json!({})), &after).unwrap().is_empty());
    let unknown = planned(&step(json!({"after": "New"})), &facts).unwrap_err();
    assert!(
        unknown.contains("has no value 'New'") && unknown.contains("it has 'new', 'it's'"),
        "{unknown}"
    );
    assert!(planned(&step(json!({})), &Facts::default()).is_err());
}
