//! Values as devices print them for people: `21.5`, `21,5 °C`, `40%`, `on`, `nan`, `OK`.

use std::borrow::Cow;

use super::units;
use crate::options::Options;
use crate::reading::{Sample, Value};

/// What separates a number's fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decimal {
    /// Nobody has said; a point, and `21,5` is refused because it may be one number or two.
    Unsaid,
    /// A point.
    Point,
    /// A comma.
    Comma,
}

/// Reads the key `decimal`; problems are noted there.
pub(crate) fn decimal(options: &Options<'_>) -> Decimal {
    let words = [(".", Decimal::Point), (",", Decimal::Comma)];
    options.optional_word("decimal", &words).unwrap_or(Decimal::Unsaid)
}

/// A unit, as it is published.
pub(crate) type Unit = Option<Cow<'static, str>>;

/// What was printed in a value's place.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Printed {
    /// Nothing, or something that stands for nothing.
    Nothing,
    /// What a sketch prints for a number that the sensor did not give: `nan`, `inf`, `ovf`.
    Broken,
    /// A value.
    Value(Value, Unit),
}

impl Printed {
    /// The value as a sample; the unit holds where the value came without one.
    pub(crate) fn sample(self, quantity: String, unit: Option<&'static str>) -> Option<Sample> {
        let Self::Value(value, own) = self else { return None };
        Some(Sample { unit: own.or(unit.map(Cow::Borrowed)), ..Sample::new(quantity, value) })
    }
}

/// Ends a word of a line.
pub(crate) fn is_separator(character: char) -> bool {
    matches!(character, ',' | ';' | '|' | '\t')
}

/// A text that is one value.
///
/// # Errors
/// It is a number that can be read in two ways, or is too large.
pub(crate) fn whole(text: &str, decimal: Decimal) -> Result<Printed, String> {
    let text = text.trim();
    if text.len() >= 2
        && let Some(quoted) = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'))
    {
        return Ok(Printed::Value(Value::Text(quoted.into()), None));
    }
    if let Some(word) = word(text) {
        return Ok(word);
    }
    match number(text, decimal)? {
        Some((printed, rest)) if rest.trim().is_empty() => Ok(printed),
        Some((_, rest)) if has_fraction(rest, ',') => Err(two_ways(text)),
        Some((Printed::Value(number, None), rest)) if let Some(unit) = unit(rest) => {
            Ok(Printed::Value(number, Some(unit)))
        }
        Some((Printed::Broken, rest)) if unit(rest).is_some() => Ok(Printed::Broken),
        _ => Ok(Printed::Value(Value::Text(text.into()), None)),
    }
}

/// The unit that a text is.
pub(crate) fn unit(text: &str) -> Option<Cow<'static, str>> {
    let text = text.trim().trim_end_matches('.');
    units::known(text).map(Cow::Borrowed).or_else(|| units::may_be(text).then(|| Cow::Owned(text.to_owned())))
}

/// A word that is no number and means something all the same.
pub(crate) fn word(text: &str) -> Option<Printed> {
    let is = |word: &str| text.eq_ignore_ascii_case(word);
    if text.bytes().all(|byte| byte == b'-') || is("null") || is("n/a") {
        Some(Printed::Nothing)
    } else if is("on") || is("true") {
        Some(Printed::Value(Value::Switch(true), None))
    } else if is("off") || is("false") {
        Some(Printed::Value(Value::Switch(false), None))
    } else {
        None
    }
}

/// The number that a text begins with, with the known unit that is written to it without a space, and what comes
/// behind. `None` where it begins with something else: `12:30`, `1.2.3` and `3rd` are no numbers.
///
/// # Errors
/// It can be read in two ways, or is too large.
pub(crate) fn number(text: &str, decimal: Decimal) -> Result<Option<(Printed, &str)>, String> {
    let unsigned = text.trim_start_matches(['+', '-']);
    if text.len() - unsigned.len() > 1 {
        return Ok(None);
    }
    if let Some(rest) = not_a_number(unsigned) {
        return Ok(attached(rest).map(|(_, rest)| (Printed::Broken, rest)));
    }
    let mark = if decimal == Decimal::Comma { ',' } else { '.' };
    let end = text.len() - unsigned.len() + mantissa(unsigned, mark);
    let rest = &text[end..];
    let digits = &text[..end];
    if !digits.ends_with(|last: char| last.is_ascii_digit() || last == '.')
        || digits.len() == text.len() - unsigned.len()
    {
        return Ok(None);
    }
    let other = if mark == ',' { '.' } else { ',' };
    let whole_so_far = !digits.contains(mark);
    let refused = match decimal {
        Decimal::Comma => has_fraction(rest, ',') || (whole_so_far && has_fraction(rest, other) && !is_dotted(rest)),
        Decimal::Unsaid => whole_so_far && is_one_fraction(rest),
        Decimal::Point => false,
    };
    if refused {
        return Err(two_ways(text));
    }
    let Some((unit, rest)) = attached(rest) else { return Ok(None) };
    let parsed = if mark == ',' { digits.replace(',', ".").parse() } else { digits.parse::<f64>() };
    let Ok(parsed) = parsed else { return Ok(None) };
    let value = Value::number(parsed).ok_or_else(|| format!("the number `{digits}` is out of range"))?;
    Ok(Some((Printed::Value(value, unit.map(Cow::Borrowed)), rest)))
}

/// Bytes of the digits, fraction and exponent that a text begins with.
fn mantissa(text: &str, mark: char) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| from + bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut end = digits(0);
    if bytes.get(end).is_some_and(|byte| char::from(*byte) == mark) {
        let after = digits(end + 1);
        // A sketch that prints `21.` means 21; a comma behind a number separates.
        if after > end + 1 || (mark == '.' && end > 0) {
            end = after;
        }
    }
    if end > 0 && bytes.get(end).is_some_and(|byte| matches!(byte, b'e' | b'E')) {
        let sign = usize::from(bytes.get(end + 1).is_some_and(|byte| matches!(byte, b'+' | b'-')));
        let after = digits(end + 1 + sign);
        if after > end + 1 + sign {
            end = after;
        }
    }
    end
}

/// What comes behind `nan`, `inf` or `ovf`, which is what an Arduino prints for a number too large to print.
fn not_a_number(text: &str) -> Option<&str> {
    let (word, rest) = text.split_at_checked(3)?;
    ["nan", "inf", "ovf"].iter().any(|known| word.eq_ignore_ascii_case(known)).then_some(rest)
}

/// The rest of a word: nothing, or a known unit. And what comes behind it.
fn attached(text: &str) -> Option<(Option<&'static str>, &str)> {
    let end = text.find(|character: char| character.is_whitespace() || is_separator(character)).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    let word = word.trim_end_matches('.');
    if word.is_empty() { Some((None, rest)) } else { units::known(word).map(|unit| (Some(unit), rest)) }
}

/// Does it begin with such a mark and a digit?
fn has_fraction(text: &str, mark: char) -> bool {
    text.strip_prefix(mark).is_some_and(|digits| digits.starts_with(|first: char| first.is_ascii_digit()))
}

/// `,5` and then nothing that makes it a list: no further comma, no point.
fn is_one_fraction(text: &str) -> bool {
    has_fraction(text, ',') && {
        let rest = text[1..].trim_start_matches(|digit: char| digit.is_ascii_digit());
        !has_fraction(rest, ',') && !rest.starts_with('.')
    }
}

/// `.2.3`, as in a version.
fn is_dotted(text: &str) -> bool {
    text[1..].trim_start_matches(|digit: char| digit.is_ascii_digit()).starts_with('.')
}

fn two_ways(text: &str) -> String {
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let number: String = text[..end].chars().take(20).collect();
    format!("`{number}` can be read in two ways: say `decimal = \",\"` or `decimal = \".\"`, as the device has it")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn show(text: &str, decimal: Decimal) -> String {
        match whole(text, decimal) {
            Ok(Printed::Nothing) => "nothing".to_owned(),
            Ok(Printed::Broken) => "broken".to_owned(),
            Ok(Printed::Value(Value::Number(number), unit)) => format!("{number} {}", unit.unwrap_or_default()),
            Ok(Printed::Value(Value::Switch(on), _)) => on.to_string(),
            Ok(Printed::Value(Value::Text(text), _)) => format!("{text:?}"),
            Ok(Printed::Value(Value::Bytes(_), _)) => panic!("no bytes are printed"),
            Err(why) => why,
        }
    }

    #[test]
    fn values_are_read_as_people_mean_them() {
        for (text, expected) in [
            ("21.5", "21.5 "),
            (" -3 ", "-3 "),
            ("+.5e-3V", "0.0005 V"),
            ("21.", "21 "),
            ("21.00°C", "21 °C"),
            ("21.00 *C", "21 °C"),
            ("40%", "40 %"),
            ("12 meters", "12 m"),
            ("3 furlongs.", "3 furlongs"),
            ("21.5 degrees Celsius", "21.5 °C"),
            ("1e3", "1000 "),
            ("5e", "\"5e\""),
            ("12ab", "\"12ab\""),
            ("0x1F", "\"0x1F\""),
            ("1.2.3", "\"1.2.3\""),
            ("12:30", "\"12:30\""),
            ("2026-11-21", "\"2026-11-21\""),
            ("3 of 10", "\"3 of 10\""),
            ("--5", "\"--5\""),
            ("-", "nothing"),
            ("", "nothing"),
            ("N/A", "nothing"),
            ("nan", "broken"),
            ("-nan °C", "broken"),
            ("NAN%", "broken"),
            ("ovf", "broken"),
            ("nanny", "\"nanny\""),
            ("ON", "true"),
            ("False", "false"),
            ("\"21\"", "\"21\""),
            ("\"", "\"\\\"\""),
            ("prêt", "\"prêt\""),
            ("1e999", "the number `1e999` is out of range"),
        ] {
            assert_eq!(show(text, Decimal::Unsaid), expected, "{text}");
            if !text.contains('.') {
                assert_eq!(show(text, Decimal::Comma), expected, "{text}");
            }
        }
    }

    #[test]
    fn commas_are_never_guessed_at() {
        assert_eq!(show("21,5 °C", Decimal::Comma), "21.5 °C");
        assert_eq!(show("-0,25", Decimal::Comma), "-0.25 ");
        assert_eq!(show("1.2.3", Decimal::Comma), "\"1.2.3\"");
        for (text, decimal) in [
            ("21,5", Decimal::Unsaid),
            ("101,325 Pa", Decimal::Unsaid),
            ("21,5", Decimal::Point),
            ("1,234.5", Decimal::Point),
            ("21.5", Decimal::Comma),
            ("1.234,5", Decimal::Comma),
            ("1,2,3", Decimal::Comma),
        ] {
            assert!(show(text, decimal).contains("can be read in two ways"), "{text}: {}", show(text, decimal));
        }
    }

    proptest! {
        #[test]
        fn numbers_are_read_back(number in -1.0e12..1.0e12_f64, digits in 0_usize..8, unit in "(|%| °C| hPa| ppm)") {
            let text = format!("{number:.digits$}");
            let expected = Printed::Value(
                Value::number(text.parse().expect("a number")).expect("finite"),
                units::known(unit.trim()).map(Cow::Borrowed),
            );
            prop_assert_eq!(whole(&format!("{text}{unit}"), Decimal::Point), Ok(expected.clone()));
            let comma = text.replace('.', ",");
            prop_assert_eq!(whole(&format!("{comma}{unit}"), Decimal::Comma), Ok(expected));
        }

        #[test]
        fn any_text_is_read_without_a_panic(text in "[-+.,0-9eE%°Cnaif\" ]{0,12}|\\PC{0,12}") {
            for decimal in [Decimal::Unsaid, Decimal::Point, Decimal::Comma] {
                let _ = whole(&text, decimal);
            }
        }
    }
}
