//! Dates as people write them and read them. Every date of the command line is read here.

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::clock::WallTime;

/// What a day without a time of day means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Day {
    /// Its first moment.
    Begins,
    /// The first moment after it.
    Ends,
}

/// Reads a date: `2026-11-01`, `2026-11-01T14:30` (both by the machine's time zone) or `2026-11-01T13:30:00Z`.
///
/// # Errors
/// It is none, in words.
pub fn parse_time(text: &str, day: Day) -> Result<WallTime, String> {
    parse_in(text, day, &TimeZone::system())
}

fn parse_in(text: &str, day: Day, zone: &TimeZone) -> Result<WallTime, String> {
    let wrong = || {
        format!(
            "`{text}` is not a date: write a day such as 2026-11-01, a time such as 2026-11-01T14:30, \
             or one with its zone such as 2026-11-01T13:30:00Z"
        )
    };
    let time = if let Ok(time) = text.parse::<Timestamp>() {
        time
    } else if let (10, Ok(date)) = (text.len(), text.parse::<Date>()) {
        let date = match day {
            Day::Begins => date,
            Day::Ends => date.tomorrow().map_err(|_| wrong())?,
        };
        date.to_zoned(zone.clone()).map_err(|_| wrong())?.timestamp()
    } else {
        let time = text.parse::<DateTime>().map_err(|_| wrong())?;
        time.to_zoned(zone.clone()).map_err(|_| wrong())?.timestamp()
    };
    i64::try_from(time.as_nanosecond()).map(WallTime).map_err(|_| wrong())
}

/// A time on the machine's clock on the wall; `None` beyond the calendar.
pub(super) fn local(time: WallTime, zone: &TimeZone) -> Option<Zoned> {
    Some(Timestamp::from_nanosecond(i128::from(time.0)).ok()?.to_zoned(zone.clone()))
}

/// The machine's time zone by its name, `UTC` where it has none.
#[must_use]
pub fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().filter(|name| *name != "Etc/Unknown").unwrap_or("UTC")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str, day: Day, zone: &str) -> i64 {
        let zone = TimeZone::get(zone).expect("the system has time zones");
        parse_in(text, day, &zone).expect("a date").0 / 1_000_000_000
    }

    #[test]
    fn a_day_is_the_zones_own() {
        // Summer time ended that day: it has 25 hours.
        let begin = seconds("2026-10-25", Day::Begins, "Europe/Paris");
        assert_eq!(begin, seconds("2026-10-24T22:00:00Z", Day::Begins, "UTC"));
        assert_eq!(seconds("2026-10-25", Day::Ends, "Europe/Paris") - begin, 25 * 3600);
        assert_eq!(seconds("2026-10-25T00:00", Day::Ends, "Europe/Paris"), begin);
        assert_eq!(seconds("2026-10-25 00:00:00", Day::Ends, "Europe/Paris"), begin);
    }

    #[test]
    fn what_is_no_date_is_refused_in_words() {
        for text in ["", "yesterday", "2026-13-01", "2026-11", "25:00", "01/11/2026", "9999-99-99"] {
            let error = parse_in(text, Day::Ends, &TimeZone::UTC).expect_err(text);
            assert!(error.contains("2026-11-01T14:30"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text in ".{0,40}") {
            let _ = parse_in(&text, Day::Ends, &TimeZone::UTC);
        }

        #[test]
        fn what_was_written_is_read_back(millis in 0i64..9_000_000_000_000) {
            let time = WallTime(millis * 1_000_000);
            prop_assert_eq!(parse_in(&super::super::utc(time), Day::Ends, &TimeZone::UTC), Ok(time));
        }
    }
}
