//! The known name that a wrong one was probably meant to be.

/// Names at least this alike are offered (1 is equal): `lock_timout` is, `url` for `name` is not.
const ALIKE: f64 = 0.6;

/// The known name most like a wrong one, if any is like it.
pub fn nearest<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = wrong.to_lowercase();
    known
        .into_iter()
        .map(|name| (name, strsim::normalized_damerau_levenshtein(&lower, name)))
        .filter(|(_, alike)| *alike >= ALIKE)
        // The first of several that are equally alike, so that the same input gives the same advice.
        .fold(None, |best: Option<(&str, f64)>, (name, alike)| match best {
            Some((_, most)) if most >= alike => best,
            _ => Some((name, alike)),
        })
        .map(|(name, _)| name)
}

/// What to write instead of an unknown name: the nearest known one, or the list of all.
pub fn advice(wrong: &str, known: &[&str]) -> String {
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known here: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_leads_to_the_name_that_was_meant() {
        let known = ["lock_timeout", "statement_timeout", "directory"];
        assert_eq!(nearest("lock_timout", known), Some("lock_timeout"));
        assert_eq!(nearest("LOCK_TIMEOUT", known), Some("lock_timeout"));
        assert_eq!(nearest("password", known), None);
        assert_eq!(
            advice("x", &["a_long_name", "other"]),
            "known here: a_long_name, other"
        );
    }
}
