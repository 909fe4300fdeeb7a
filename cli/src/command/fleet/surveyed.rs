//! The answers of databases that were surveyed, and what comes of them: shapes, and drift from one of them.

use shared::id::DatabaseName;
use shared::survey::census::Shape;
use shared::survey::{Census, Survey, Versions, version_differences};
use std::collections::BTreeMap;
use std::time::Duration;

/// What one database answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answer {
    /// Who was asked.
    pub(super) agent: Option<String>,
    pub(super) result: Result<Survey, Missing>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Missing {
    pub(super) problem: String,
    /// The last answer, and how old it is.
    pub(super) last: Option<(Duration, Survey)>,
}

/// All answers, by database.
#[derive(Debug)]
pub(super) struct Surveyed {
    pub(super) answers: BTreeMap<DatabaseName, Answer>,
    pub(super) census: Census,
    /// What the others are compared with, where the user said so.
    pub(super) against: Option<DatabaseName>,
}

impl Surveyed {
    pub(super) fn of(answers: BTreeMap<DatabaseName, Answer>, against: Option<DatabaseName>) -> Self {
        let found = answers
            .iter()
            .filter_map(|(name, answer)| Some((name.clone(), answer.result.as_ref().ok()?.fingerprint)));
        Self {
            census: found.collect(),
            answers,
            against,
        }
    }

    /// Databases that answered.
    fn found(&self) -> impl Iterator<Item = (&DatabaseName, &Survey)> {
        self.answers
            .iter()
            .filter_map(|(name, answer)| Some((name, answer.result.as_ref().ok()?)))
    }

    /// Databases that did not.
    pub(super) fn missing(&self) -> usize {
        self.answers.len() - self.census.databases()
    }

    /// The shape that others are compared with: that of the database the user named, else the majority's.
    pub(super) fn baseline(&self) -> Option<&Shape> {
        match &self.against {
            Some(database) => self.census.shape_of(database),
            None => self.census.majority(),
        }
    }

    /// All other shapes, where there is one to compare them with.
    pub(super) fn outliers(&self) -> Vec<&Shape> {
        let baseline = self.baseline();
        self.census
            .shapes
            .iter()
            .filter(|shape| baseline.is_some_and(|baseline| baseline != *shape))
            .collect()
    }

    /// The versions that others are compared with: those of the database the user named, else those that most have.
    fn usual_versions(&self) -> Option<&[Versions]> {
        if let Some(database) = &self.against {
            let found = self.found().find(|(name, _)| *name == database);
            return found.map(|(_, survey)| survey.sets.as_slice());
        }
        let mut counts: BTreeMap<&[Versions], usize> = BTreeMap::new();
        for (_, survey) in self.found() {
            *counts.entry(&survey.sets).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let mut usual = counts.into_iter().filter(|(_, count)| *count == most);
        // Two that are as common: neither is usual.
        usual
            .next()
            .map(|(sets, _)| sets)
            .filter(|_| usual.next().is_none())
    }

    /// Databases whose versions differ, and how.
    pub(super) fn other_versions(&self) -> Vec<(&DatabaseName, Vec<String>)> {
        let Some(usual) = self.usual_versions() else {
            return Vec::new();
        };
        self.found()
            .map(|(name, survey)| (name, version_differences(&survey.sets, usual)))
            .filter(|(_, differences)| !differences.is_empty())
            .collect()
    }

    /// Whether not all databases have the same shape and the same versions.
    pub(super) fn drifts(&self) -> bool {
        let mut sets = self.found().map(|(_, survey)| &survey.sets);
        let first = sets.next();
        self.census.shapes.len() > 1 || sets.any(|sets| Some(sets) != first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::id::Digest;

    fn name(text: &str) -> DatabaseName {
        text.try_into().unwrap()
    }

    fn survey(shape: &str, applied: &[&str]) -> Survey {
        Survey {
            fingerprint: Digest::of(shape.as_bytes()),
            sets: vec![Versions {
                set: "default".to_owned(),
                applied: applied.iter().map(|version| (*version).to_owned()).collect(),
                partial: Vec::new(),
            }],
            schema: None,
        }
    }

    fn surveyed(databases: &[(&str, &str, &[&str])], against: Option<&str>) -> Surveyed {
        let answer = |(database, shape, applied): &(&str, &str, &[&str])| {
            let result = Ok(survey(shape, applied));
            (name(database), Answer { agent: None, result })
        };
        Surveyed::of(databases.iter().map(answer).collect(), against.map(name))
    }

    fn outliers(surveyed: &Surveyed) -> Vec<String> {
        let all = surveyed.outliers().into_iter().flat_map(|shape| &shape.databases);
        all.map(ToString::to_string).collect()
    }

    #[test]
    fn the_majority_is_compared_with_unless_a_database_is_named() {
        let all: [(&str, &str, &[&str]); 3] =
            [("a", "1", &["1"]), ("b", "2", &["1", "2"]), ("c", "1", &["1"])];
        let with_majority = surveyed(&all, None);
        assert_eq!(outliers(&with_majority), ["b"]);
        assert_eq!(
            with_majority.other_versions(),
            [(&name("b"), vec!["set default: 2 applied only here".to_owned()])]
        );
        let with_b = surveyed(&all, Some("b"));
        assert_eq!(outliers(&with_b), ["a", "c"]);
        assert_eq!(with_b.other_versions().len(), 2);
        assert!(with_b.drifts());
    }

    #[test]
    fn without_a_majority_nothing_is_compared_and_it_is_drift_all_the_same() {
        let tied = surveyed(&[("a", "1", &["1"]), ("b", "2", &["1"])], None);
        assert!(tied.baseline().is_none() && tied.outliers().is_empty() && tied.drifts());
        let versions = surveyed(&[("a", "1", &["1"]), ("b", "1", &["2"])], None);
        assert!(versions.other_versions().is_empty() && versions.drifts());
        assert!(!surveyed(&[("a", "1", &["1"]), ("b", "1", &["1"])], None).drifts());
    }

    #[test]
    fn one_that_did_not_answer_is_of_no_shape() {
        let mut answers = surveyed(&[("a", "1", &["1"])], None).answers;
        let missing = Missing {
            problem: "down".to_owned(),
            last: Some((Duration::from_secs(5), survey("2", &[]))),
        };
        let result = Err(missing);
        answers.insert(name("b"), Answer { agent: None, result });
        let surveyed = Surveyed::of(answers, Some(name("b")));
        assert_eq!((surveyed.missing(), surveyed.census.databases()), (1, 1));
        assert!(surveyed.baseline().is_none() && !surveyed.drifts());
    }
}
