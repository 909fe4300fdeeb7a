//! Types that only take more than another one, in the same form: PostgreSQL changes them in the catalog alone.

/// Whether a column of one type, as the catalog names it, becomes one of another without a look at its rows.
pub(super) fn is_in_place(from: &str, to: &str) -> bool {
    let ((from, old), (to, new)) = (split(from), split(to));
    match (from, to) {
        ("character varying", "text") => true,
        ("character varying", "character varying") | ("bit varying", "bit varying") => match (old, new) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(old), Some(new)) => number(old).zip(number(new)).is_some_and(|(old, new)| old <= new),
        },
        ("numeric", "numeric") => match (old, new) {
            (_, None) => true,
            (None, Some(_)) => false,
            (Some(old), Some(new)) => {
                let digits = |of: &str| {
                    let (precision, scale) = of.split_once(',')?;
                    Some((number(precision)?, number(scale)?))
                };
                digits(old)
                    .zip(digits(new))
                    .is_some_and(|(old, new)| old.0 <= new.0 && old.1 == new.1)
            }
        },
        _ => false,
    }
}

/// A type and its modifier. One that has more behind the modifier (`timestamp(3) with time zone`) is left whole.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.strip_suffix(')').and_then(|rest| rest.split_once('(')) {
        Some((name, modifier)) => (name, Some(modifier)),
        None => (name, None),
    }
}

fn number(text: &str) -> Option<i32> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::is_in_place;

    #[test]
    fn only_what_takes_more_in_the_same_form_is_changed_in_place() {
        for (from, to) in [
            ("character varying(20)", "text"),
            ("character varying", "text"),
            ("character varying(20)", "character varying(20)"),
            ("character varying(20)", "character varying"),
            ("numeric(10,2)", "numeric(12,2)"),
            ("numeric(10,2)", "numeric"),
            ("bit varying(3)", "bit varying(4)"),
        ] {
            assert!(is_in_place(from, to), "{from} to {to}");
        }
        for (from, to) in [
            ("text", "character varying(20)"),
            ("character varying", "character varying(20)"),
            ("character varying(20)", "character varying(19)"),
            ("numeric(10,2)", "numeric(12,3)"),
            ("numeric(10,2)", "numeric(11,1)"),
            ("integer", "bigint"),
            ("character(3)", "character(4)"),
            ("character varying(20)[]", "text[]"),
            ("timestamp(3) without time zone", "timestamp(6) without time zone"),
        ] {
            assert!(!is_in_place(from, to), "{from} to {to}");
        }
    }
}
