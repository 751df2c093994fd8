//! Reads typed values out of a TOML table and notes every problem with its place, instead of stopping at the first.
//!
//! The configuration and the drivers both read through this, so that an unknown key, a wrong type and a value out of
//! range look the same everywhere. Imports nothing of ours.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Something wrong at a place of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Bytes of the configuration that the problem is about.
    pub span: Range<usize>,
    /// What is wrong, in one line.
    pub message: String,
    /// Shown under the place: what was expected.
    pub expected: Option<String>,
    /// What to do about it.
    pub help: Option<String>,
    /// A second place that has to do with it, and what is there.
    pub related: Option<(Range<usize>, String)>,
    /// Only a warning: it does not stop anything.
    pub is_warning: bool,
}

impl Problem {
    /// A problem at a place.
    pub fn new(span: Range<usize>, message: impl Into<String>) -> Self {
        Self { span, message: message.into(), expected: None, help: None, related: None, is_warning: false }
    }

    /// Adds what was expected there.
    #[must_use]
    pub fn expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Makes it a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.is_warning = true;
        self
    }

    /// Adds a second place, with what is there.
    #[must_use]
    pub fn related(mut self, span: Range<usize>, what: impl Into<String>) -> Self {
        self.related = Some((span, what.into()));
        self
    }
}

/// Longest period or deadline.
pub const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Shortest period or deadline: nothing is scheduled more finely.
pub const SHORTEST: Duration = Duration::from_millis(1);

/// A key of a driver, a filter or a table of the configuration, for people.
#[derive(Debug)]
pub struct OptionInfo {
    /// The key.
    pub name: &'static str,
    /// What values it takes: "whole number", "`0x76` or `0x77`".
    pub values: &'static str,
    /// What holds where it is left out; `None` if it must be given.
    pub default: Option<&'static str>,
    /// One sentence.
    pub help: &'static str,
}

/// Longest unit, in characters.
pub const MAX_UNIT_CHARS: usize = 32;

/// Collects the problems of a configuration.
#[derive(Debug, Default)]
pub struct Problems {
    list: RefCell<Vec<Problem>>,
    /// Some of the text could not be parsed, so that what is absent may only be unreadable.
    partial: bool,
}

impl Problems {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// None yet, of a configuration that could not be parsed in full: absent keys are not reported.
    #[must_use]
    pub fn of_partial() -> Self {
        Self { partial: true, ..Self::default() }
    }

    /// Could the configuration not be parsed in full?
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.partial
    }

    /// Notes one.
    pub fn push(&self, problem: Problem) {
        self.list.borrow_mut().push(problem);
    }

    /// Notes one, if there is one.
    pub fn extend(&self, problem: Option<Problem>) {
        self.list.borrow_mut().extend(problem);
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.borrow().len()
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.borrow().is_empty()
    }

    /// All of them, in the order of their places.
    #[must_use]
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.list.into_inner();
        problems.sort_by_key(|problem| (problem.span.start, problem.span.end));
        problems.dedup();
        problems
    }
}

/// A type that can be read from a TOML value. The error says what was expected, without naming the key.
pub trait FromToml: Sized {
    /// What a value of this type looks like, for people: `a duration such as "10s"`.
    const EXPECTED: &'static str;

    /// Reads the value.
    ///
    /// # Errors
    /// What is wrong with the value, if it is more than its type (which `EXPECTED` covers).
    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>>;

    /// A value as one would write it in TOML, for the bounds in messages.
    fn show(&self) -> String
    where
        Self: fmt::Debug,
    {
        format!("{self:?}")
    }
}

impl FromToml for bool {
    const EXPECTED: &'static str = "true or false";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        value.as_bool().ok_or(None)
    }
}

impl FromToml for String {
    const EXPECTED: &'static str = "a text in quotes";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        value.as_str().map(str::to_owned).ok_or(None)
    }
}

impl FromToml for f64 {
    const EXPECTED: &'static str = "a number";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let number = match value {
            DeValue::Float(float) => float.as_str().replace('_', "").parse::<f64>().map_err(|_| None)?,
            #[expect(clippy::cast_precision_loss, reason = "a configured number beyond 2^53 means its nearest double")]
            DeValue::Integer(_) => i64::from_toml(value)? as f64,
            _ => return Err(None),
        };
        if number.is_finite() { Ok(number) } else { Err(Some("must be a finite number".to_owned())) }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl FromToml for i64 {
    const EXPECTED: &'static str = "a whole number";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let integer = value.as_integer().ok_or(None)?;
        Self::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| Some("the number is too large".to_owned()))
    }
}

macro_rules! from_whole_number {
    ($($type:ty),*) => {$(
        impl FromToml for $type {
            const EXPECTED: &'static str = concat!("a whole number that fits ", stringify!($type));

            fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
                let number = i64::from_toml(value)?;
                Self::try_from(number)
                    .map_err(|_| Some(format!("must be from {} to {}", <$type>::MIN, <$type>::MAX)))
            }
        }
    )*};
}
from_whole_number!(u8, u16, u32, u64);

impl FromToml for Duration {
    const EXPECTED: &'static str = "a duration in quotes, such as \"500ms\", \"10s\", \"5m\" or \"1h\"";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        humantime::parse_duration(value.as_str().ok_or(None)?).map_err(|_| Some("this is not a duration".to_owned()))
    }

    fn show(&self) -> String {
        let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];
        let millis = self.as_millis();
        match units.iter().find(|(factor, _)| millis >= *factor && millis.is_multiple_of(*factor)) {
            Some((factor, unit)) => format!("\"{}{unit}\"", millis / factor),
            None => format!("\"{}\"", humantime::format_duration(*self)),
        }
    }
}

impl<T: FromToml> FromToml for Vec<T> {
    const EXPECTED: &'static str = "a list in square brackets";

    fn from_toml(value: &DeValue<'_>) -> Result<Self, Option<String>> {
        let list = value.as_array().ok_or(None)?;
        list.iter()
            .enumerate()
            .map(|(index, item)| {
                T::from_toml(item.get_ref()).map_err(|why| {
                    Some(format!("item {}: {}", index + 1, why.unwrap_or_else(|| format!("expected {}", T::EXPECTED))))
                })
            })
            .collect()
    }
}

/// A table being read: what is asked of it is known to it, so that what nobody asked for is reported.
pub struct Options<'a> {
    table: &'a DeTable<'a>,
    /// Where problems that have no better place are shown: the table's header.
    span: Range<usize>,
    /// How to speak of the table: "`[gateway]`", "sensor `meteo`".
    what: String,
    problems: &'a Problems,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl fmt::Debug for Options<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("what", &self.what).finish_non_exhaustive()
    }
}

impl<'a> Options<'a> {
    /// Starts to read a table.
    pub fn new(table: &'a DeTable<'a>, span: Range<usize>, what: impl Into<String>, problems: &'a Problems) -> Self {
        Self { table, span, what: what.into(), problems, asked: RefCell::default() }
    }

    /// How messages call this table.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Where the table's header stands.
    #[must_use]
    pub fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    /// The problems of the file that this table is in.
    #[must_use]
    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// The value of a key with its place, untyped.
    pub fn raw(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.table.get(key)
    }

    /// The value of a key that may be left out. A wrong one is noted, and counts as left out.
    pub fn optional<T: FromToml>(&self, key: &'static str) -> Option<T> {
        let value = self.raw(key)?;
        match T::from_toml(value.get_ref()) {
            Ok(typed) => Some(typed),
            Err(why) => {
                let found = value.get_ref().type_str();
                let message = match why {
                    Some(why) => format!("`{key}` of {}: {why}", self.what),
                    None => format!("`{key}` of {} has the wrong type: this is of type {found}", self.what),
                };
                self.problems.push(Problem::new(value.span(), message).expected(format!("expected {}", T::EXPECTED)));
                None
            }
        }
    }

    /// The value of a key that must be there; its absence is noted.
    pub fn required<T: FromToml>(&self, key: &'static str) -> Option<T> {
        if self.raw(key).is_none() {
            if !self.problems.is_partial() {
                self.problems.push(
                    Problem::new(self.span(), format!("{} lacks the key `{key}`", self.what))
                        .expected(format!("expected `{key}` here: {}", T::EXPECTED)),
                );
            }
            return None;
        }
        self.optional(key)
    }

    /// As [`optional`](Self::optional), and the value must lie within `range`.
    pub fn optional_in<T: FromToml + PartialOrd + fmt::Debug>(
        &self,
        key: &'static str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let value = self.optional::<T>(key)?;
        if range.contains(&value) {
            return Some(value);
        }
        self.problem(
            key,
            format!("`{key}` of {} is out of range", self.what),
            Some(format!("expected {} to {}", range.start().show(), range.end().show())),
        );
        None
    }

    /// The value of a key that is one of a few words.
    pub fn optional_word<T: Copy>(&self, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let text = self.optional::<String>(key)?;
        if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
            return Some(*meaning);
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let list = known.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        self.problem_with_help(
            key,
            format!("`{key}` of {} cannot be {text:?}", self.what),
            Some(format!("expected one of {list}")),
            did_you_mean(&text, &known).map(|word| format!("did you mean \"{word}\"?")),
        );
        None
    }

    /// A table inside of this one.
    pub fn section(&self, key: &'static str) -> Option<Options<'a>> {
        self.section_called(key, format!("`{key}` of {}", self.what))
    }

    /// A table inside of this one, which messages call `what`.
    pub fn section_called(&self, key: &'static str, what: impl Into<String>) -> Option<Options<'a>> {
        Self::table(self.raw(key)?, what, self.problems)
    }

    /// The value of a key as a table that messages call `what`. Anything else is noted.
    pub fn table(
        value: &'a Spanned<DeValue<'a>>,
        what: impl Into<String>,
        problems: &'a Problems,
    ) -> Option<Options<'a>> {
        let what = what.into();
        if let Some(table) = value.get_ref().as_table() {
            return Some(Options::new(table, value.span(), what, problems));
        }
        let message = format!("{what} has the wrong type: this is of type {}", value.get_ref().type_str());
        problems.push(Problem::new(value.span(), message).expected("expected a table"));
        None
    }

    /// Notes a problem at the value of a key (at the table where the key is not there).
    pub fn problem(&self, key: &'static str, message: impl Into<String>, expected: Option<String>) {
        self.problem_with_help(key, message, expected, None);
    }

    /// Notes a problem with a remedy.
    pub fn problem_with_help(
        &self,
        key: &'static str,
        message: impl Into<String>,
        expected: Option<String>,
        help: Option<String>,
    ) {
        let span = self.raw(key).map_or_else(|| self.span(), Spanned::span);
        self.problems.push(Problem { expected, help, ..Problem::new(span, message) });
    }

    /// All keys with their values, for tables whose keys are the user's own names.
    pub fn entries(&self) -> impl Iterator<Item = (&'a Spanned<DeString<'a>>, &'a Spanned<DeValue<'a>>)> {
        self.table.iter()
    }

    /// The keys that were asked for so far: what this table may hold.
    #[must_use]
    pub fn asked(&self) -> Vec<&'static str> {
        self.asked.borrow().iter().copied().collect()
    }

    /// Notes every key that nobody asked for. Call it last.
    pub fn finish(&self) {
        let known = self.asked();
        for key in self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref())) {
            let problem = Problem::new(key.span(), format!("{} has no key `{}`", self.what, key.get_ref()));
            match did_you_mean(key.get_ref(), &known) {
                Some(word) => self.problems.push(problem.help(format!("did you mean `{word}`?"))),
                // It may belong to a table whose header could not be parsed.
                None if self.problems.is_partial() => {}
                None => self.problems.push(problem.help(format!("known keys: {}", known.join(", ")))),
            }
        }
    }
}

/// The key `unit`: a unit as it is published, for example `°C`.
pub fn unit(options: &Options<'_>) -> Option<String> {
    let unit = options.optional::<String>("unit")?;
    let why = if unit.trim().is_empty() {
        "is empty".to_owned()
    } else if unit.chars().count() > MAX_UNIT_CHARS {
        format!("is longer than {MAX_UNIT_CHARS} characters")
    } else if unit.chars().any(char::is_control) {
        "contains a control character".to_owned()
    } else {
        return Some(unit);
    };
    options.problem(
        "unit",
        format!("`unit` of {} {why}", options.what()),
        Some("expected a unit such as \"°C\"; leave the key out where there is none".to_owned()),
    );
    None
}

/// The known word that `text` probably was meant to be.
#[must_use]
pub fn did_you_mean<'w>(text: &str, known: &[&'w str]) -> Option<&'w str> {
    known
        .iter()
        .map(|word| (strsim::jaro_winkler(text, word), *word))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(text: &str, read: impl Fn(&Options<'_>)) -> Vec<Problem> {
        let table = DeTable::parse(text).expect("TOML");
        let problems = Problems::new();
        {
            let options = Options::new(table.get_ref(), 0..0, "the test", &problems);
            read(&options);
            options.finish();
        }
        problems.into_sorted()
    }

    #[test]
    fn every_problem_is_noted_with_its_place() {
        let text = "address = \"x\"\nevry = \"10s\"\nbus = 700\n";
        let found = problems_of(text, |options| {
            assert_eq!(options.optional::<u8>("address"), None);
            assert_eq!(options.optional::<Duration>("every"), None);
            assert_eq!(options.optional::<u8>("bus"), None);
        });
        let places: Vec<&str> = found.iter().map(|problem| &text[problem.span.clone()]).collect();
        assert_eq!(places, ["\"x\"", "evry", "700"]);
        assert_eq!(found[1].help.as_deref(), Some("did you mean `every`?"));
        assert!(found[2].message.contains("from 0 to 255"), "{}", found[2].message);
    }

    #[test]
    fn numbers_are_read_in_every_notation() {
        let table = DeTable::parse("a = 0x76\nb = 1_000\nc = 1e3\nd = inf").expect("TOML");
        let problems = Problems::new();
        let options = Options::new(table.get_ref(), 0..0, "the test", &problems);
        assert_eq!(options.optional::<u8>("a"), Some(0x76));
        assert_eq!(options.optional::<f64>("b"), Some(1000.0));
        assert_eq!(options.optional::<f64>("c"), Some(1000.0));
        assert_eq!(options.optional::<f64>("d"), None);
        assert_eq!(problems.len(), 1);
    }
}
