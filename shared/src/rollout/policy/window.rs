//! Hours in which work may go on.

use crate::rollout::time::Time;
use crate::yaml::Text;
use jiff::civil::{self, Weekday};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Some hours of some days of the week, in a time zone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// The days it begins on; every day, where there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub days: Vec<Day>,
    /// When it begins.
    pub from: Clock,
    /// When it ends: on the next day, unless that is later than `from`.
    pub to: Clock,
    /// By which clocks.
    pub zone: Zone,
}

/// A day of the week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Day {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

/// Minutes since midnight, less than 24 hours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "String")]
pub struct Clock(u16);

/// A time zone by its name in the database of the IANA, such as `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(String);

/// A text is no part of a window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No day of the week.
    #[error("`{0}` is no day: write mon, tue, wed, thu, fri, sat or sun")]
    Day(String),
    /// No time of day.
    #[error("`{0}` is no time of day: write it as 22:00")]
    Clock(String),
    /// No time zone.
    #[error("`{0}` is no known time zone: write one such as UTC or Europe/Berlin")]
    Zone(String),
}

impl Window {
    /// A window from texts as in a policy file.
    ///
    /// # Errors
    /// The first text that does not fit.
    pub fn parse(days: &[String], from: &str, to: &str, zone: &str) -> Result<Self, Error> {
        let days = days.iter().map(|day| Day::parse(day)).collect::<Result<_, _>>()?;
        Ok(Self {
            days,
            from: Clock::try_from(Text(from.to_owned()))?,
            to: Clock::try_from(Text(to.to_owned()))?,
            zone: Zone::try_from(zone.to_owned())?,
        })
    }
}

/// Whether work may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hours {
    /// It may.
    Open {
        /// Until then; `None` where it always may.
        until: Option<Time>,
    },
    /// It may not.
    Closed {
        /// Until then.
        until: Time,
    },
}

impl Hours {
    /// What the windows say; without any, work may always go on.
    pub fn at(windows: &[Window], now: Time) -> Self {
        if windows.is_empty() {
            return Self::Open { until: None };
        }
        let spans: Vec<_> = windows.iter().flat_map(|window| window.around(now)).collect();
        let mut end = now;
        // Windows that overlap or follow each other are one.
        while let Some(later) = spans
            .iter()
            .filter(|(from, to)| *from <= end && end < *to)
            .map(|(_, to)| *to)
            .max()
        {
            end = later;
        }
        if end > now {
            return Self::Open { until: Some(end) };
        }
        let next = spans
            .iter()
            .map(|(from, _)| *from)
            .filter(|from| *from > now)
            .min();
        // A week from now holds a beginning of every window; a clock beyond all calendars has none.
        Self::Closed {
            until: next.unwrap_or(now.after(std::time::Duration::from_hours(1))),
        }
    }
}

impl Window {
    /// The spans of this window that begin from a day before this moment to eight days after it.
    fn around(&self, now: Time) -> Vec<(Time, Time)> {
        let Some(today) = self.zone.day_of(now) else {
            return Vec::new();
        };
        let days = (-1..=8).filter_map(|n| today.checked_add(n.days()).ok());
        let begins = days.filter(|day| self.days.is_empty() || self.days.iter().any(|of| of.is(*day)));
        let span = |day: civil::Date| {
            let last = if self.to > self.from {
                day
            } else {
                day.checked_add(1.days()).ok()?
            };
            Some((
                self.zone.moment(day, self.from)?,
                self.zone.moment(last, self.to)?,
            ))
        };
        begins.filter_map(span).collect()
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days: Vec<_> = self.days.iter().map(|day| day.word()).collect();
        if !days.is_empty() {
            write!(f, "{} ", days.join(","))?;
        }
        write!(f, "{}-{} {}", self.from, self.to, self.zone)
    }
}

impl Day {
    const ALL: [Self; 7] = [
        Self::Mon,
        Self::Tue,
        Self::Wed,
        Self::Thu,
        Self::Fri,
        Self::Sat,
        Self::Sun,
    ];

    fn parse(text: &str) -> Result<Self, Error> {
        let day = Self::ALL.into_iter().find(|day| day.word() == text);
        day.ok_or_else(|| Error::Day(text.to_owned()))
    }

    fn is(self, date: civil::Date) -> bool {
        let day = match date.weekday() {
            Weekday::Monday => Self::Mon,
            Weekday::Tuesday => Self::Tue,
            Weekday::Wednesday => Self::Wed,
            Weekday::Thursday => Self::Thu,
            Weekday::Friday => Self::Fri,
            Weekday::Saturday => Self::Sat,
            Weekday::Sunday => Self::Sun,
        };
        self == day
    }

    /// Its name, as it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Tue => "tue",
            Self::Wed => "wed",
            Self::Thu => "thu",
            Self::Fri => "fri",
            Self::Sat => "sat",
            Self::Sun => "sun",
        }
    }
}

impl Zone {
    fn get(&self) -> Option<TimeZone> {
        TimeZone::get(&self.0).ok()
    }

    fn day_of(&self, now: Time) -> Option<civil::Date> {
        let timestamp = Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
        Some(timestamp.to_zoned(self.get()?).date())
    }

    /// A time that a change of the clocks leaves out is an hour later; one that it brings twice is the first.
    fn moment(&self, day: civil::Date, clock: Clock) -> Option<Time> {
        let (hour, minute) = (i8::try_from(clock.0 / 60).ok()?, i8::try_from(clock.0 % 60).ok()?);
        let zoned = day.at(hour, minute, 0, 0).to_zoned(self.get()?).ok()?;
        u64::try_from(zoned.timestamp().as_millisecond()).ok().map(Time)
    }
}

impl TryFrom<Text> for Clock {
    type Error = Error;

    fn try_from(Text(text): Text) -> Result<Self, Error> {
        let read = || {
            let (hours, minutes) = text.trim().split_once(':')?;
            let hours: u16 = hours.parse().ok().filter(|hours| *hours < 24)?;
            let minutes: u16 = minutes.parse().ok().filter(|_| minutes.len() == 2)?;
            (minutes < 60).then_some(Self(hours * 60 + minutes))
        };
        read().ok_or_else(|| Error::Clock(text.clone()))
    }
}

impl From<Clock> for String {
    fn from(clock: Clock) -> Self {
        clock.to_string()
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

impl TryFrom<String> for Zone {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        let zone = Self(name);
        match zone.get() {
            Some(_) => Ok(zone),
            None => Err(Error::Zone(zone.0)),
        }
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Time {
        let timestamp: Timestamp = text.parse().unwrap();
        Time(u64::try_from(timestamp.as_millisecond()).unwrap())
    }

    fn window(json: &str) -> Window {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_night_goes_over_midnight_and_begins_on_its_day() {
        let night = window(r#"{"days":["fri"],"from":"22:00","to":"06:00","zone":"Europe/Berlin"}"#);
        // 2026-11-20 is a Friday; Berlin is an hour ahead of UTC in winter.
        let hours = |moment| Hours::at(std::slice::from_ref(&night), at(moment));
        assert_eq!(
            hours("2026-11-20T20:59:59Z"),
            Hours::Closed {
                until: at("2026-11-20T21:00:00Z")
            }
        );
        for within in ["2026-11-20T21:00:00Z", "2026-11-21T04:59:59Z"] {
            assert_eq!(
                hours(within),
                Hours::Open {
                    until: Some(at("2026-11-21T05:00:00Z"))
                }
            );
        }
        assert_eq!(
            hours("2026-11-21T05:00:00Z"),
            Hours::Closed {
                until: at("2026-11-27T21:00:00Z")
            }
        );
    }

    #[test]
    fn windows_that_touch_are_one_and_equal_times_are_a_whole_day() {
        let windows = [
            window(r#"{"days":["mon"],"from":"08:00","to":"12:00","zone":"UTC"}"#),
            window(r#"{"days":["mon"],"from":"12:00","to":"12:00","zone":"UTC"}"#),
        ];
        // 2026-11-23 is a Monday.
        assert_eq!(
            Hours::at(&windows, at("2026-11-23T09:00:00Z")),
            Hours::Open {
                until: Some(at("2026-11-24T12:00:00Z"))
            }
        );
    }

    #[test]
    fn the_hour_that_summer_time_leaves_out_is_no_gap() {
        let window = window(r#"{"from":"02:30","to":"04:00","zone":"Europe/Berlin"}"#);
        // On 2026-03-29 clocks go from 02:00 to 03:00 there, at 01:00 UTC.
        assert_eq!(
            Hours::at(&[window], at("2026-03-29T01:45:00Z")),
            Hours::Open {
                until: Some(at("2026-03-29T02:00:00Z"))
            }
        );
    }

    #[test]
    fn without_windows_work_always_goes_on() {
        assert_eq!(Hours::at(&[], Time(0)), Hours::Open { until: None });
    }
}
