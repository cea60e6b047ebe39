//! Cron expressions: `minute hour day month weekday`, with names, lists, ranges, steps and `@hourly` and the like.
//! As in cron, if both days are restricted, one of them is enough.

use k8s_openapi::jiff::{
    SignedDuration, Timestamp, Zoned,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

/// A parsed expression and its time zone.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    any_day: bool,
    any_weekday: bool,
    /// `@every 90s`: counted from the last time.
    every: Option<i64>,
    zone: TimeZone,
}

/// Why an expression is none.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {found}: [{text}]")]
    Fields {
        /// How many there are.
        found: usize,
        /// The expression.
        text: String,
    },
    /// A field that cannot be read or is out of its range.
    #[error("failed to parse {field}: use {from} to {to}, lists, ranges and steps")]
    Field {
        /// The field.
        field: String,
        /// The least value.
        from: u8,
        /// The greatest value.
        to: u8,
    },
    /// A time zone that the system does not know.
    #[error("unknown time zone {0}")]
    Zone(String),
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// How far a next time is looked for: 29 February comes within eight years.
const DAYS: i32 = 8 * 366;

impl Schedule {
    /// Reads an expression; without a time zone it is in UTC.
    pub(crate) fn parse(text: &str, zone: Option<&str>) -> Result<Self, Error> {
        let zone = match zone {
            None | Some("UTC" | "Etc/UTC") => TimeZone::UTC,
            Some(name) => TimeZone::get(name).map_err(|_| Error::Zone(name.to_owned()))?,
        };
        let expanded = match text.trim() {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            other => other,
        };
        if let Some(every) = expanded.strip_prefix("@every ") {
            let error = || Error::Field {
                field: every.to_owned(),
                from: 1,
                to: u8::MAX,
            };
            let every = every.parse::<SignedDuration>().map_err(|_| error())?.as_secs();
            let all = Self {
                every: Some(every.max(1)),
                ..Self::parse("* * * * *", None)?
            };
            return Ok(all);
        }
        let fields: Vec<_> = expanded.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields.as_slice() else {
            return Err(Error::Fields {
                found: fields.len(),
                text: text.to_owned(),
            });
        };
        let any = |field: &str| field.starts_with(['*', '?']);
        let weekday_bits = bits(weekdays, 0, 7, &WEEKDAYS)?;
        Ok(Self {
            minutes: bits(minutes, 0, 59, &[])?,
            hours: bits(hours, 0, 23, &[])?,
            days: bits(days, 1, 31, &[])?,
            months: bits(months, 1, 12, &MONTHS)?,
            weekdays: weekday_bits | weekday_bits >> 7 & 1, // 7 is Sunday too
            any_day: any(days),
            any_weekday: any(weekdays),
            every: None,
            zone,
        })
    }

    /// The first time after `after`.
    pub(crate) fn next(&self, after: Timestamp) -> Option<Timestamp> {
        if let Some(every) = self.every {
            return Timestamp::from_second(after.as_second() + every).ok();
        }
        let local = Zoned::new(after, self.zone.clone()).datetime();
        let mut date = local.date();
        let has = |set: u64, n: i8| u32::try_from(n).is_ok_and(|n| set >> n & 1 == 1);
        for _ in 0..DAYS {
            let day = has(self.days, date.day());
            let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
            let right_day = if self.any_day || self.any_weekday {
                day && weekday
            } else {
                day || weekday
            };
            if has(self.months, date.month()) && right_day {
                for hour in (0..24).filter(|hour| has(self.hours, *hour)) {
                    for minute in (0..60).filter(|minute| has(self.minutes, *minute)) {
                        let wall: DateTime = date.at(hour, minute, 0, 0);
                        // A wall time that a change of clocks skips does not come that day.
                        let at = self.zone.to_ambiguous_timestamp(wall);
                        if matches!(at.offset(), AmbiguousOffset::Gap { .. }) {
                            continue;
                        }
                        match at.earlier() {
                            Ok(at) if at > after => return Some(at),
                            _ => {}
                        }
                    }
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }
}

/// The values of a field as a set of bits.
fn bits(field: &str, from: u8, to: u8, names: &[&str]) -> Result<u64, Error> {
    let error = || Error::Field {
        field: field.to_owned(),
        from,
        to,
    };
    let value = |text: &str| -> Result<u8, Error> {
        let named = names
            .iter()
            .position(|name| text.eq_ignore_ascii_case(name))
            .and_then(|n| u8::try_from(n).ok());
        // Months count from one, weekdays from zero: as their fields do.
        let value = named
            .map(|n| n + from)
            .or_else(|| text.parse().ok())
            .ok_or_else(error)?;
        if (from..=to).contains(&value) {
            Ok(value)
        } else {
            Err(error())
        }
    };
    let mut set = 0;
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                Some(step.parse::<u8>().ok().filter(|step| *step > 0).ok_or_else(error)?),
            ),
            None => (part, None),
        };
        let (low, high) = match range {
            "*" | "?" => (from, to.min(if to == 7 { 6 } else { to })),
            _ => match range.split_once('-') {
                Some((low, high)) => (value(low)?, value(high)?),
                None if step.is_some() => (value(range)?, to),
                None => (value(range)?, value(range)?),
            },
        };
        if low > high {
            return Err(error());
        }
        for n in (low..=high).step_by(usize::from(step.unwrap_or(1))) {
            set |= 1 << n;
        }
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn next(text: &str, zone: Option<&str>, after: &str) -> String {
        Schedule::parse(text, zone)
            .unwrap()
            .next(after.parse().unwrap())
            .map_or("never".to_owned(), |t| t.to_string())
    }

    #[test]
    fn the_next_time_of_an_expression() {
        for (text, after, expected) in [
            ("* * * * *", "2026-11-21T16:48:31Z", "2026-11-21T16:49:00Z"),
            ("*/15 * * * *", "2026-11-21T16:45:00Z", "2026-11-21T17:00:00Z"),
            ("5-7,30 2 * * *", "2026-11-21T02:07:00Z", "2026-11-21T02:30:00Z"),
            ("0 0 1 1 *", "2026-11-21T16:45:00Z", "2027-01-01T00:00:00Z"),
            ("0 0 29 FEB *", "2026-11-21T16:45:00Z", "2028-02-29T00:00:00Z"),
            ("0 9 * * mon-fri", "2026-11-21T16:45:00Z", "2026-11-23T09:00:00Z"), // a Saturday
            ("0 9 * * 7", "2026-11-21T16:45:00Z", "2026-11-22T09:00:00Z"),
            ("0 9 13 * 5", "2026-11-21T16:45:00Z", "2026-11-27T09:00:00Z"), // the 13th or a Friday
            ("10/20 * * * *", "2026-11-21T16:45:00Z", "2026-11-21T16:50:00Z"),
            ("@hourly", "2026-11-21T16:45:00Z", "2026-11-21T17:00:00Z"),
            ("@every 90s", "2026-11-21T16:45:00Z", "2026-11-21T16:46:30Z"),
            ("0 0 31 2 *", "2026-11-21T16:45:00Z", "never"),
        ] {
            assert_eq!(next(text, None, after), expected, "{text}");
        }
    }

    #[test]
    fn a_time_zone_moves_the_wall_clock() {
        assert_eq!(
            next("30 6 * * *", Some("Etc/UTC"), "2026-11-21T16:45:00Z"),
            "2026-11-22T06:30:00Z"
        );
        assert!(matches!(
            Schedule::parse("* * * * *", Some("Mars/Base")),
            Err(Error::Zone(_))
        ));
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        for text in [
            "",
            "* * * *",
            "60 * * * *",
            "5-3 * * * *",
            "*/0 * * * *",
            "x * * * *",
            "* * * * 8",
        ] {
            assert!(Schedule::parse(text, None).is_err(), "{text}");
        }
    }
}
