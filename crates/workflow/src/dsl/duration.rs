//! Durations: fields, ISO 8601 text, or an expression that gives ISO 8601 text.
//!
//! Years and months are calendar units in UTC, counted from the instant the duration begins; a day is 24 hours, a week
//! seven of them. A fraction of a year is one of twelve months, a fraction of a month one of thirty days.

use super::fields::Fields;
use super::reader::{Form, Place, Reader};
use super::value::{integer, is_evaluated, text};
use crate::source::Content;

/// A duration as the author gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Duration {
    /// Known in advance.
    Fixed(Length),
    /// An expression in `${ }` that gives ISO 8601 text.
    Expression(String),
}

/// A length of time. Months are apart because they differ in length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Length {
    /// Calendar months.
    pub months: u32,
    /// Milliseconds beside the months.
    pub milliseconds: u64,
}

/// The longest length: a hundred years, so that sums with any wall time stay in range.
const MAX_MONTHS: u64 = 1200;
const MAX_MILLISECONDS: u64 = 100 * 366 * DAY_MS;
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

impl Length {
    /// The instant this long after another, both in milliseconds since the epoch. `None` past the calendar's end.
    pub fn after(&self, start_ms: u64) -> Option<u64> {
        let start = jiff::Timestamp::from_millisecond(i64::try_from(start_ms).ok()?).ok()?;
        let month_later = if self.months == 0 {
            start
        } else {
            let zoned = start.to_zoned(jiff::tz::TimeZone::UTC);
            zoned.checked_add(jiff::Span::new().try_months(self.months).ok()?).ok()?.timestamp()
        };
        u64::try_from(month_later.as_millisecond()).ok()?.checked_add(self.milliseconds)
    }

    /// Reads ISO 8601 text such as `P1DT2H` or `PT0.25S`: designators in order, each at most once, a fraction anywhere.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not an ISO 8601 duration such as PT30S or P1DT12H");
        let (date, time) = match text.strip_prefix('P').ok_or_else(wrong)?.split_once('T') {
            Some((date, time)) => (date, Some(time)),
            None => (text.strip_prefix('P').ok_or_else(wrong)?, None),
        };
        if time.is_some_and(str::is_empty) || (date.is_empty() && time.is_none()) {
            return Err(wrong());
        }
        let mut months = 0.0;
        let mut milliseconds = 0.0;
        for (designator, amount) in designated(date, &['Y', 'M', 'W', 'D']).ok_or_else(wrong)? {
            match designator {
                'Y' => months += amount * 12.0,
                'M' => months += amount,
                'W' => milliseconds += amount * 7.0 * DAY_MS as f64,
                _ => milliseconds += amount * DAY_MS as f64,
            }
        }
        for (designator, amount) in designated(time.unwrap_or(""), &['H', 'M', 'S']).ok_or_else(wrong)? {
            let unit_ms = match designator {
                'H' => 3_600_000.0,
                'M' => 60_000.0,
                _ => 1000.0,
            };
            milliseconds += amount * unit_ms;
        }
        milliseconds += f64::fract(months) * 30.0 * DAY_MS as f64;
        if months > MAX_MONTHS as f64 || milliseconds > MAX_MILLISECONDS as f64 {
            return Err(format!("`{text}` is longer than a hundred years"));
        }
        Ok(Self { months: months as u32, milliseconds: milliseconds.round() as u64 })
    }
}

/// Splits `1Y2.5M` into designators and amounts; the designators must come in the given order.
fn designated(text: &str, order: &[char]) -> Option<Vec<(char, f64)>> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut allowed = order;
    while !rest.is_empty() {
        let end = rest.find(|character: char| !character.is_ascii_digit() && character != '.')?;
        let (number, tail) = rest.split_at(end);
        let designator = tail.chars().next()?;
        let index = allowed.iter().position(|known| *known == designator)?;
        allowed = &allowed[index + 1..];
        let whole_and_fraction = |(whole, fraction): (&str, &str)| !whole.is_empty() && !fraction.is_empty();
        if number.is_empty() || number.matches('.').count() > 1 {
            return None;
        }
        if number.contains('.') && !number.split_once('.').is_some_and(whole_and_fraction) {
            return None;
        }
        found.push((designator, number.parse().ok()?));
        rest = &tail[designator.len_utf8()..];
    }
    Some(found)
}

/// The fields of an inline duration, in milliseconds each.
const FIELDS: [(&str, u64); 5] =
    [("days", DAY_MS), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1000), ("milliseconds", 1)];

pub(super) fn read(place: &Place<'_>, reader: &mut Reader) -> Option<Duration> {
    match &place.node.content {
        Content::Object(_) => read_fields(place, reader),
        Content::Text(text) if is_evaluated(text) => {
            reader.note_expression(place, Form::Text, text);
            Some(Duration::Expression(text.clone()))
        }
        Content::Text(text) => match Length::parse(text) {
            Ok(length) => Some(Duration::Fixed(length)),
            Err(message) => {
                reader.problem(place, message);
                None
            }
        },
        Content::Number(number) => {
            reader.problem(place, format!("a duration needs a unit: {{seconds: {number}}} or an ISO 8601 text"));
            None
        }
        _ => {
            text(place, reader);
            None
        }
    }
}

fn read_fields(place: &Place<'_>, reader: &mut Reader) -> Option<Duration> {
    let what = "a duration";
    let mut fields = Fields::open(place, what, reader)?;
    let mut milliseconds: u64 = 0;
    let mut any = false;
    for (key, unit_ms) in FIELDS {
        let most = i64::try_from(MAX_MILLISECONDS / unit_ms).unwrap_or(i64::MAX);
        let Some(field) = fields.take(key) else { continue };
        any = true;
        let amount = integer(&field, reader, 0, most).and_then(|amount| u64::try_from(amount).ok()).unwrap_or(0);
        milliseconds += amount * unit_ms;
    }
    if !any {
        reader.problem(place, "a duration needs at least one of days, hours, minutes, seconds, milliseconds");
    }
    fields.finish(what, reader);
    Some(Duration::Fixed(Length { months: 0, milliseconds }))
}

#[cfg(test)]
mod tests {
    use super::Length;

    #[test]
    fn iso_8601_texts() {
        let day = 86_400_000;
        for (text, months, milliseconds) in [
            ("PT30S", 0, 30_000),
            ("P1DT2H3M4.5S", 0, day + 7_384_500),
            ("P1Y2M", 14, 0),
            ("P2W", 0, 14 * day),
            ("P1.5D", 0, day + day / 2),
            ("PT0.25H", 0, 900_000),
            ("P0.5Y", 6, 0),
            ("P1.5M", 1, 15 * day),
            ("PT0.001S", 0, 1),
            ("P1W1D", 0, 8 * day),
        ] {
            assert_eq!(Length::parse(text), Ok(Length { months, milliseconds }), "{text}");
        }
    }

    #[test]
    fn what_is_not_iso_8601_is_refused() {
        for text in
            ["", "P", "PT", "1S", "PT5", "PT1S1H", "P1H", "PT1.S", "PT.5S", "PT1S ", "-PT1S", "P1DT", "P999999Y", "P1Ä"]
        {
            assert!(Length::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn months_are_counted_in_the_calendar() {
        let end_of_january = 1_706_659_200_000; // 2024-01-31T00:00:00Z
        let end_of_february = 1_709_164_800_000; // 2024-02-29T00:00:00Z
        assert_eq!(Length { months: 1, milliseconds: 0 }.after(end_of_january), Some(end_of_february));
        assert_eq!(Length { months: 0, milliseconds: 5 }.after(10), Some(15));
    }
}
