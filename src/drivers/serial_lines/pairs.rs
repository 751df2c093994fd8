//! Names and values as sketches print them for people: `T=21.5C H=40%`, `Humidity: 40.00%  Temperature: 21.00°C 69.80°F`.
//!
//! Nothing says where a value ends and the next name begins, so this goes by what reads naturally: numbers with their
//! units belong to the value, up to the last word before the next `=` or `:`, which belongs to the name. A text is a
//! value up to the last comma, semicolon, tab, bar or wide gap, else its first word.

use super::{Found, MAX_NAME_BYTES};
use crate::drivers::support::printed::{self, Decimal, Printed, is_separator};
use crate::drivers::support::units;

/// Reads a line; what has no names and values in it leaves `found` as it is.
///
/// # Errors
/// A value can be read in two ways, or there is too much of something.
pub(super) fn read(line: &str, decimal: Decimal, found: &mut Found<'_>) -> Result<(), String> {
    let Some(first) = mark(line, 0) else { return Ok(()) };
    let mut name = &line[..first.from];
    let mut rest = &line[first.to..];
    let mut values = Vec::new();
    loop {
        let Some(next) = mark(rest, first_word(rest, decimal)) else {
            if !only_separators(numbers(rest, decimal, false, &mut values)?) || values.is_empty() {
                values.clear();
                values.push(printed::whole(rest.trim_matches(fills), decimal)?);
            }
            return give(name, &mut values, found);
        };
        let next_name = split(&rest[..next.from], decimal, &mut values)?;
        give(name, &mut values, found)?;
        name = next_name;
        rest = &rest[next.to..];
    }
}

/// Where a `=` or `:` stands that has a name before it.
struct Mark {
    from: usize,
    to: usize,
}

fn mark(text: &str, after: usize) -> Option<Mark> {
    let bytes = text.as_bytes();
    let mut named = false;
    for (at, character) in text[after..].char_indices() {
        let at = after + at;
        named |= character.is_alphanumeric();
        if named && matches!(character, '=' | ':') && !(character == ':' && is_time(bytes, at)) {
            let rest = text[at..].trim_start_matches(['=', ':', '>']);
            return Some(Mark { from: at, to: text.len() - rest.len() });
        }
    }
    None
}

/// Does a colon stand within a time of day: between two digits each?
fn is_time(bytes: &[u8], colon: usize) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_digit();
    let before = bytes[..colon].iter().rev().take_while(|byte| is_digit(byte)).count();
    let behind = bytes[colon + 1..].iter().take_while(|byte| is_digit(byte)).count();
    before == 2 && behind == 2
}

/// Where the first word of a value ends: no name is looked for in it. A text in quotes is a word.
fn first_word(text: &str, decimal: Decimal) -> usize {
    let begin = text.len() - text.trim_start().len();
    let word = &text[begin..];
    if let Some(quoted) = word.strip_prefix('"')
        && let Some(end) = quoted.find('"')
    {
        return begin + 1 + end + 1;
    }
    let digit_at = |at: usize| word.as_bytes().get(at).is_some_and(u8::is_ascii_digit);
    let ends = |(at, character): (usize, char)| {
        let fraction = decimal == Decimal::Comma && character == ',' && at > 0 && digit_at(at - 1) && digit_at(at + 1);
        (character.is_whitespace() || is_separator(character)) && !fraction
    };
    begin + word.char_indices().find(|place| ends(*place)).map_or(word.len(), |(at, _)| at)
}

/// Splits what stands between two marks into values, which it appends, and the next name, which it returns.
fn split<'a>(text: &'a str, decimal: Decimal, values: &mut Vec<Printed>) -> Result<&'a str, String> {
    let name = numbers(text, decimal, true, values)?;
    if !values.is_empty() && gap(name).is_none() {
        return Ok(name);
    }
    values.clear();
    let (value, name) = match gap(text.trim_end_matches(fills)) {
        Some(gap) => (&text[..gap], &text[gap..]),
        None => text.split_at(first_word(text, decimal)),
    };
    values.push(printed::whole(value.trim_matches(fills), decimal)?);
    Ok(name)
}

/// What can stand between values and names.
fn fills(character: char) -> bool {
    character.is_whitespace() || is_separator(character)
}

fn only_separators(text: &str) -> bool {
    text.chars().all(fills)
}

/// The end of the last separator or wide gap of a text, if it has any.
fn gap(text: &str) -> Option<usize> {
    let mut gap = None;
    let mut before = ' ';
    for (at, character) in text.trim_start_matches(fills).char_indices() {
        if is_separator(character) || (character == ' ' && before == ' ') {
            gap = Some(at + 1);
        }
        before = character;
    }
    gap.map(|gap| gap + text.len() - text.trim_start_matches(fills).len())
}

/// Takes numbers with their units from the beginning of a text, and returns what comes behind them. With `leave_name`,
/// the last word stays.
fn numbers<'a>(
    text: &'a str,
    decimal: Decimal,
    leave_name: bool,
    values: &mut Vec<Printed>,
) -> Result<&'a str, String> {
    let is_taken = |rest: &str| !(leave_name && only_separators(rest));
    let mut rest = text.trim_start_matches(fills);
    loop {
        // In `1,2,3`, of which the first was a number for itself, no comma is a fraction's.
        let in_list = decimal == Decimal::Unsaid && text[..text.len() - rest.len()].ends_with(',');
        let decimal = if in_list { Decimal::Point } else { decimal };
        let Some((mut value, after)) = printed::number(rest, decimal)?.filter(|(_, after)| is_taken(after)) else {
            return Ok(rest);
        };
        rest = after;
        if let Printed::Value(_, None) | Printed::Broken = value
            && let Some((unit, after)) = spaced_unit(rest, leave_name).filter(|(_, after)| is_taken(after))
        {
            rest = after;
            if let Printed::Value(_, own) = &mut value {
                *own = unit;
            }
        }
        values.push(value);
        rest = rest.trim_start_matches(fills);
    }
}

/// The unit that stands behind a number and a space, and what comes behind it: a known one, or any word that ends the
/// value.
fn spaced_unit(text: &str, name_follows: bool) -> Option<(printed::Unit, &str)> {
    let words = text.strip_prefix(char::is_whitespace)?;
    let ends = |from: usize| words[from..].find(fills).map_or(words.len(), |length| from + length);
    let first = ends(0);
    if first == 0 {
        return None;
    }
    let both = words[first..].strip_prefix(' ').map(|_| ends(first + 1));
    for end in both.into_iter().chain([first]) {
        if let Some(unit) = units::known(words[..end].trim_end_matches('.')) {
            return Some((Some(unit.into()), &words[end..]));
        }
    }
    let rest = &words[first..];
    let ends_value =
        if name_follows { rest.starts_with(is_separator) || rest.starts_with("  ") } else { only_separators(rest) };
    let unit = printed::unit(&words[..first]).filter(|_| ends_value)?;
    Some((Some(unit), rest))
}

/// Hands over the values of a name. What cannot be a name is left out with its values.
fn give(name: &str, values: &mut Vec<Printed>, found: &mut Found<'_>) -> Result<(), String> {
    let Some((name, unit)) = clean(name) else {
        values.clear();
        return Ok(());
    };
    for (index, value) in values.drain(..).enumerate() {
        found.add(name, index, value, unit)?;
    }
    Ok(())
}

/// The name without what surrounds it, and the unit that stands in it: `Temp *C`, `Humidity (%)`.
fn clean(text: &str) -> Option<(&str, Option<&'static str>)> {
    let punctuation = |character: char| character.is_ascii_punctuation() && character != '_';
    let outer = |character: char| fills(character) || punctuation(character);
    let text = text.trim_start_matches(outer).trim_end_matches(fills);
    let (name, unit) = unit_in_name(text).map_or((text, None), |(name, unit)| (name, Some(unit)));
    let name = name.trim_end_matches(|character| outer(character) && !matches!(character, ')' | ']'));
    let fits = name.len() <= MAX_NAME_BYTES && name.contains(char::is_alphanumeric);
    fits.then_some((name, unit))
}

fn unit_in_name(text: &str) -> Option<(&str, &'static str)> {
    if let Some(inner) = text.strip_suffix([')', ']']) {
        let open = inner.rfind(['(', '['])?;
        return units::known(inner[open + 1..].trim()).map(|unit| (&text[..open], unit));
    }
    if let Some((name, word)) = text.rsplit_once(char::is_whitespace)
        && units::is_symbol(word)
        && let Some(unit) = units::known(word)
    {
        return Some((name, unit));
    }
    ["%", "°C", "°F"].into_iter().find_map(|unit| Some((text.strip_suffix(unit)?, unit)))
}
