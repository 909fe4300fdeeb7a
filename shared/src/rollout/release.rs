//! Which versions of agent and coordinator work together: the same major, and minors at most one apart, so that a fleet
//! can be upgraded one process at a time.

/// The version of this program.
pub const OURS: &str = env!("CARGO_PKG_VERSION");

/// How the versions of two programs go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The same major and minor.
    Same,
    /// One minor apart: it works, and is not meant to last.
    Near,
    /// One of them is no version that we can read: nothing is known.
    Unknown,
    /// Too far apart to work together.
    Apart,
}

/// Major and minor of `1.2.3`, `1.2.3-rc.1` and the like.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    let number = |part: Option<&str>| part?.parse().ok();
    Some((number(parts.next())?, number(parts.next())?))
}

/// How two versions go together.
pub fn fit(one: &str, other: &str) -> Fit {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) if one == other => Fit::Same,
        (Some(one), Some(other)) if one.0 == other.0 && one.1.abs_diff(other.1) == 1 => Fit::Near,
        (Some(_), Some(_)) => Fit::Apart,
        (None, _) | (_, None) => Fit::Unknown,
    }
}

/// What there is to say about an agent's version, for people; `None` when nothing is.
pub fn note(agent: &str, coordinator: &str) -> Option<String> {
    match fit(agent, coordinator) {
        Fit::Same => None,
        Fit::Near => Some(format!(
            "the agent has version {agent}, the coordinator {coordinator}: that works; upgrade the {} next",
            older(agent, coordinator)
        )),
        Fit::Unknown => Some(format!(
            "nothing is known of version `{agent}` beside the coordinator's {coordinator}: use the same for both"
        )),
        Fit::Apart => Some(format!(
            "the agent has version {agent}, the coordinator {coordinator}, and only versions one minor apart work \
             together: upgrade the {} first",
            older(agent, coordinator)
        )),
    }
}

fn older(agent: &str, coordinator: &str) -> &'static str {
    if parse(agent) < parse(coordinator) {
        "agent"
    } else {
        "coordinator"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minors_one_apart_work_together() {
        assert_eq!(fit("1.4.0", "1.4.9"), Fit::Same);
        assert_eq!(fit("1.4.0", "1.5.0"), Fit::Near);
        assert_eq!(fit("1.5.0-rc.1", "1.4.0"), Fit::Near);
        assert_eq!(fit("1.3.0", "1.5.0"), Fit::Apart);
        assert_eq!(fit("2.4.0", "1.4.0"), Fit::Apart);
        assert_eq!(fit("", "1.4.0"), Fit::Unknown);
        assert_eq!(fit("main", "1.4.0"), Fit::Unknown);
    }

    #[test]
    fn the_older_one_is_to_be_upgraded() {
        assert_eq!(note("1.4.0", "1.4.1"), None);
        let text = note("1.4.0", "1.5.0").unwrap();
        assert!(text.contains("upgrade the agent next"), "{text}");
        let text = note("1.9.0", "1.5.0").unwrap();
        assert!(text.contains("upgrade the coordinator first"), "{text}");
    }
}
