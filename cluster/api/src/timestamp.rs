//! Times as Kubernetes writes them.

use time::OffsetDateTime;

/// RFC 3339 in UTC with whole seconds: `2026-01-02T03:04:05Z`.
pub fn rfc3339(at: OffsetDateTime) -> String {
    let (date, time) = (at.date(), at.time());
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// [`rfc3339`] with microseconds.
pub fn rfc3339_micro(at: OffsetDateTime) -> String {
    let seconds = rfc3339(at);
    format!("{}.{:06}Z", seconds.trim_end_matches('Z'), at.microsecond())
}

/// The second that a text in RFC 3339 names, a fraction and an offset respected.
pub fn parse(text: &str) -> Option<OffsetDateTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u8>().ok();
    let year = text.get(0..4)?.parse::<i32>().ok()?;
    let month = time::Month::try_from(number(5..7)?).ok()?;
    let date = time::Date::from_calendar_date(year, month, number(8..10)?).ok()?;
    let clock = time::Time::from_hms(number(11..13)?, number(14..16)?, number(17..19)?).ok()?;
    let rest = text
        .get(19..)?
        .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match rest {
        "Z" | "z" => time::UtcOffset::UTC,
        _ => {
            let sign = if rest.starts_with('-') { -1 } else { 1 };
            let hours = rest.get(1..3)?.parse::<i8>().ok()?;
            let minutes = rest.get(4..6)?.parse::<i8>().ok()?;
            time::UtcOffset::from_hms(sign * hours, sign * minutes, 0).ok()?
        }
    };
    Some(date.with_time(clock).assume_offset(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_and_read_in_seconds_of_utc() {
        let at = parse("2026-01-02T05:04:05.678+02:00").unwrap();
        assert_eq!(rfc3339(at.to_offset(time::UtcOffset::UTC)), "2026-01-02T03:04:05Z");
        assert_eq!(parse("2026-01-02T03:04:05Z"), Some(at));
        assert_eq!(parse("2026-13-02T03:04:05Z"), None);
    }
}
