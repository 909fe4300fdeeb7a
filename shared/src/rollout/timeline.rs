//! What the time of a rollout went into, apart from its databases: its waves, and what the next one waited for. Made from
//! its transitions, its policy, and what was asked of it.

use super::control::Verb;
use super::machine::Rollout;
use super::policy::{Hours, Window};
use super::time::Time;
use super::transition::{To, Transition};
use super::view::{Stretch, StretchKind};
use super::waves::Wave;

/// The most closed hours that are told of one wave: more than a month of nights.
const MOST_NIGHTS: usize = 40;

/// What happened until `now`, in the order of its beginning.
pub fn timeline(rollout: &Rollout, now: Time) -> Vec<Stretch> {
    let mut teller = Teller {
        rollout,
        told: Vec::new(),
        at: At::Wave {
            wave: 0,
            since: rollout.spec().created_at,
        },
        phase: None,
    };
    // What is asked comes before what follows from it at the same moment.
    for action in rollout.actions() {
        let text = format!("{} asked for{}", action.verb, action.author());
        teller.tell(StretchKind::Asked, "", action.at, Some(action.at), text);
    }
    let (kept, gap) = rollout.course().transitions.kept();
    for (place, transition) in kept.iter().enumerate() {
        if gap == Some(place) {
            teller.leave_out(kept[place - 1].at, transition.at);
        }
        teller.hear(transition);
    }
    teller.finish(now);
    let mut told = teller.told;
    told.sort_by_key(|stretch| stretch.from);
    told
}

/// What is going on.
enum At {
    /// A wave is at work.
    Wave { wave: usize, since: Time },
    /// A wave is over; what it took for the next one to begin is told when that is known.
    Gate {
        wave: usize,
        over: Time,
        checked: Option<Time>,
    },
    /// The rollout has ended.
    End { wave: usize },
    /// Not known: what happened was left out.
    Unknown,
}

struct Teller<'a> {
    rollout: &'a Rollout,
    told: Vec<Stretch>,
    at: At,
    /// That it is paused, or aborting: since when, and why.
    phase: Option<(Time, StretchKind, String)>,
}

/// How something that is told now ends.
#[derive(Clone, Copy)]
enum End {
    /// At this time.
    Over(Time),
    /// It has not ended at this time.
    Open(Time),
}

impl Teller<'_> {
    fn hear(&mut self, transition: &Transition) {
        let at = transition.at;
        match &transition.to {
            To::Begun { wave } => {
                self.close(End::Over(at));
                self.at = At::Wave {
                    wave: *wave,
                    since: at,
                };
            }
            To::Over => {
                if let Some(wave) = self.close(End::Over(at)) {
                    let checked = None;
                    self.at = At::Gate {
                        wave,
                        over: at,
                        checked,
                    };
                }
            }
            To::Reopened => {
                if let Some(wave) = self.close(End::Over(at)) {
                    self.at = At::Wave { wave, since: at };
                }
            }
            To::Checked => match &mut self.at {
                At::Gate { checked, .. } => *checked = Some(at),
                At::Wave { .. } | At::End { .. } | At::Unknown => {}
            },
            To::Running => {
                self.close_phase(Some(at));
                if let At::End { wave } = self.at {
                    self.at = At::Wave { wave, since: at };
                }
            }
            To::Paused { why } => {
                self.close_phase(Some(at));
                self.phase = Some((at, StretchKind::Paused, why.clone()));
            }
            To::Aborting { why } => {
                self.close_phase(Some(at));
                self.phase = Some((at, StretchKind::Aborting, why.clone()));
            }
            To::Ended { how } => {
                self.close_phase(Some(at));
                let wave = self.close(End::Over(at));
                self.at = wave.map_or(At::Unknown, |wave| At::End { wave });
                self.tell(
                    StretchKind::Ended,
                    "",
                    at,
                    Some(at),
                    format!("the rollout ended: {how}"),
                );
            }
        }
    }

    fn finish(&mut self, now: Time) {
        self.close_phase(None);
        let last = match self.at {
            At::Wave { wave, .. } | At::Gate { wave, .. } | At::End { wave } => wave,
            At::Unknown => return,
        };
        // It does not where an earlier version wrote no transitions.
        if last == self.rollout.course().wave {
            self.close(End::Open(now));
        }
    }

    /// Transitions between these two are not known.
    fn leave_out(&mut self, from: Time, to: Time) {
        self.close_phase(Some(from));
        self.close(End::Over(from));
        self.at = At::Unknown;
        let left_out = self.rollout.course().transitions.left_out();
        let text = format!("{left_out} changes left out");
        self.tell(StretchKind::LeftOut, "", from, Some(to), text);
    }

    /// Tells what was going on. The wave that it was about.
    fn close(&mut self, end: End) -> Option<usize> {
        match self.at {
            At::Wave { wave, since } => {
                self.close_wave(wave, since, end);
                Some(wave)
            }
            At::Gate { wave, over, checked } => {
                self.close_gate(wave, over, checked, end);
                Some(wave)
            }
            At::End { wave } => Some(wave),
            At::Unknown => None,
        }
    }

    fn close_wave(&mut self, place: usize, since: Time, end: End) {
        let rollout = self.rollout;
        let Some(wave) = rollout.spec().waves.get(place) else {
            return;
        };
        let databases = match wave.databases.len() {
            1 => "1 database".to_owned(),
            more => format!("{more} databases"),
        };
        let text = format!("wave {} at work: {databases}", wave.name);
        self.tell_until(StretchKind::Wave, &wave.name, since, end, None, text);
        let windows = &rollout.spec().policy.windows;
        for (from, to) in nights(windows, since, end.time()) {
            let text = "outside the hours for work: nothing began".to_owned();
            self.tell_until(StretchKind::Hours, &wave.name, from, end, Some(to), text);
        }
    }

    /// First the soak, then the checks, then the approval of the next one.
    fn close_gate(&mut self, place: usize, over: Time, checked: Option<Time>, end: End) {
        let rollout = self.rollout;
        let waves = &rollout.spec().waves;
        let Some(wave) = waves.get(place) else {
            return;
        };
        let mut from = over;
        if !wave.soak.is_zero() {
            let soaked = over.after(wave.soak);
            let text = format!(
                "wave {} soaked, for {} s at least",
                wave.name,
                wave.soak.as_secs_f64()
            );
            self.tell_until(StretchKind::Soak, &wave.name, from, end, Some(soaked), text);
            from = soaked;
        }
        if from <= end.time() && !wave.checks.is_empty() {
            let text = format!("the checks of wave {} were asked", wave.name);
            self.tell_until(StretchKind::Checks, &wave.name, from, end, checked, text);
            let Some(checked) = checked else {
                return;
            };
            from = from.max(checked);
        }
        if let Some(next) = waves.get(place + 1).filter(|next| next.approval) {
            let approved = self.approved(next);
            if from < end.time() && approved.is_none_or(|approved| from < approved) {
                let text = format!("wave {} waited for approval", next.name);
                self.tell_until(StretchKind::Approval, &next.name, from, end, approved, text);
            }
        }
    }

    fn approved(&self, wave: &Wave) -> Option<Time> {
        let is_it = |verb: &Verb| matches!(verb, Verb::Approve { wave: Some(name) } if *name == wave.name);
        let mut actions = self.rollout.actions().iter();
        actions.find(|action| is_it(&action.verb)).map(|action| action.at)
    }

    fn close_phase(&mut self, to: Option<Time>) {
        if let Some((from, kind, why)) = self.phase.take() {
            // A later leader's clock may be behind.
            self.tell(kind, "", from, to.map(|to| to.max(from)), why);
        }
    }

    /// Until it was over by itself, or by what ended all of it.
    fn tell_until(
        &mut self,
        kind: StretchKind,
        wave: &str,
        from: Time,
        end: End,
        itself: Option<Time>,
        text: String,
    ) {
        let to = match (itself, end) {
            (Some(itself), end) if itself <= end.time() => Some(itself.max(from)),
            (_, End::Over(at)) => Some(at.max(from)),
            (_, End::Open(_)) => None,
        };
        self.tell(kind, wave, from, to, text);
    }

    fn tell(&mut self, kind: StretchKind, wave: &str, from: Time, to: Option<Time>, text: String) {
        self.told.push(Stretch {
            from,
            to,
            kind,
            wave: wave.to_owned(),
            text,
        });
    }
}

impl End {
    fn time(self) -> Time {
        match self {
            Self::Over(at) | Self::Open(at) => at,
        }
    }
}

/// When the windows were closed between these two moments.
fn nights(windows: &[Window], from: Time, to: Time) -> Vec<(Time, Time)> {
    let mut nights = Vec::new();
    let mut at = from;
    while at < to && nights.len() < MOST_NIGHTS {
        match Hours::at(windows, at) {
            Hours::Open { until: None } => break,
            Hours::Open { until: Some(until) } => at = until,
            Hours::Closed { until } => {
                nights.push((at, until));
                at = until;
            }
        }
    }
    nights
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::event::{Event, Verdict};
    use crate::rollout::policy::{Asks, Check, Policy};
    use crate::rollout::sample;
    use std::time::Duration;

    /// Three waves: the first soaks and is checked, the second needs approval.
    fn rollout(windows: Vec<Window>) -> Rollout {
        let mut spec = sample::spec(
            1,
            &["c"],
            Policy {
                windows,
                ..Policy::default()
            },
        );
        let mut first = sample::wave("canary", &["a"]);
        first.soak = Duration::from_secs(10);
        first.checks = vec![Check {
            name: "rows".to_owned(),
            asks: Asks::Sql("SELECT true".to_owned()),
        }];
        let mut second = sample::wave("second", &["b"]);
        second.approval = true;
        spec.waves.splice(0..0, [first, second]);
        Rollout::new(spec)
    }

    fn done(rollout: &mut Rollout, database: &str, at: u64) {
        rollout.apply(sample::up_to_date(database), Time(at)).unwrap();
    }

    fn told(rollout: &Rollout, now: u64) -> Vec<(u64, Option<u64>, &'static str, String)> {
        let stretches = timeline(rollout, Time(now)).into_iter();
        let row = |stretch: Stretch| {
            (
                stretch.from.0,
                stretch.to.map(|to| to.0),
                stretch.kind.word(),
                stretch.wave,
            )
        };
        stretches.map(row).collect()
    }

    fn row(
        from: u64,
        to: impl Into<Option<u64>>,
        what: &'static str,
        wave: &str,
    ) -> (u64, Option<u64>, &'static str, String) {
        (from, to.into(), what, wave.to_owned())
    }

    #[test]
    fn waves_and_what_the_next_one_waits_for_follow_each_other() {
        let mut rollout = rollout(Vec::new());
        assert_eq!(told(&rollout, 500), [row(0, None, "wave", "canary")]);
        done(&mut rollout, "a", 1_000);
        rollout.apply(Event::WaveOver, Time(1_000)).unwrap();
        let soaks = [
            row(0, 1_000, "wave", "canary"),
            row(1_000, None, "soak", "canary"),
        ];
        assert_eq!(told(&rollout, 5_000), soaks);
        let verdict = Verdict::Passed;
        let checked = Event::Checked { wave: 0, verdict };
        rollout.apply(checked, Time(12_000)).unwrap();
        let before = [
            row(0, 1_000, "wave", "canary"),
            row(1_000, 11_000, "soak", "canary"),
            row(11_000, 12_000, "checks", "canary"),
        ];
        let awaits = [row(12_000, None, "approval", "second")];
        assert_eq!(told(&rollout, 20_000), [&before[..], &awaits[..]].concat());
        let approve = sample::asked(Verb::Approve { wave: None });
        rollout.apply(approve, Time(21_000)).unwrap();
        rollout.apply(Event::WaveBegun, Time(21_005)).unwrap();
        done(&mut rollout, "b", 22_000);
        rollout.apply(Event::WaveOver, Time(22_000)).unwrap();
        rollout.apply(Event::WaveBegun, Time(22_000)).unwrap();
        done(&mut rollout, "c", 23_000);
        rollout.apply(Event::Ended, Time(23_001)).unwrap();
        let after = [
            row(12_000, 21_000, "approval", "second"),
            row(21_000, 21_000, "asked", ""),
            row(21_005, 22_000, "wave", "second"),
            row(22_000, 23_001, "wave", "rest"),
            row(23_001, 23_001, "ended", ""),
        ];
        assert_eq!(told(&rollout, 99_000), [&before[..], &after[..]].concat());
    }

    #[test]
    fn a_check_that_does_not_pass_pauses_until_someone_goes_on() {
        let mut rollout = rollout(Vec::new());
        done(&mut rollout, "a", 1_000);
        rollout.apply(Event::WaveOver, Time(1_000)).unwrap();
        let verdict = Verdict::NotPassed("rows: 3 are wrong".to_owned());
        let checked = Event::Checked { wave: 0, verdict };
        rollout.apply(checked, Time(12_000)).unwrap();
        let stretches = timeline(&rollout, Time(13_000));
        let paused = stretches.last().unwrap();
        assert_eq!(
            (paused.kind, paused.from, paused.to),
            (StretchKind::Paused, Time(12_000), None)
        );
        assert!(paused.text.contains("rows: 3 are wrong"), "{}", paused.text);
        let goes_on = sample::asked(Verb::IgnoreChecks);
        rollout.apply(goes_on, Time(15_000)).unwrap();
        let told = told(&rollout, 16_000);
        assert!(told.contains(&row(12_000, 15_000, "paused", "")), "{told:?}");
        assert!(
            told.contains(&row(11_000, 15_000, "checks", "canary")),
            "{told:?}"
        );
        assert!(
            told.contains(&row(15_000, None, "approval", "second")),
            "{told:?}"
        );
    }

    #[test]
    fn hours_without_work_are_told_of_the_wave_they_held_up() {
        let window = Window::parse(&[], "00:00", "00:30", "UTC").unwrap();
        let rollout = rollout(vec![window]);
        let hour = 3_600_000;
        let expected = [
            row(0, None, "wave", "canary"),
            row(hour / 2, 24 * hour, "hours", "canary"),
            row(24 * hour + hour / 2, None, "hours", "canary"),
        ];
        assert_eq!(told(&rollout, 30 * hour), expected);
    }

    #[test]
    fn a_database_that_is_tried_again_opens_its_wave_again() {
        let mut rollout = rollout(Vec::new());
        rollout.apply(sample::look_failed("a"), Time(1_000)).unwrap();
        rollout.apply(Event::WaveOver, Time(1_000)).unwrap();
        let databases = std::collections::BTreeSet::from([sample::database("a")]);
        let retry = sample::asked(Verb::Retry { databases });
        rollout.apply(retry, Time(4_000)).unwrap();
        let expected = [
            row(0, 1_000, "wave", "canary"),
            row(1_000, 4_000, "soak", "canary"),
            row(4_000, 4_000, "asked", ""),
            row(4_000, None, "wave", "canary"),
        ];
        assert_eq!(told(&rollout, 5_000), expected);
    }
}
