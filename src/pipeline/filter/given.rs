//! Filters as they are given in TOML.

use std::ops::{Range, RangeInclusive};
use std::time::Duration;

use toml::Spanned;
use toml::de::DeValue;

use super::{FILTERS, Filter, FilterType, MAX_FILTERS};
use crate::options::{FromToml, Options, Problem, Problems, SHORTEST, YEAR, did_you_mean};
use crate::reading::Finite;

/// A filter and where it stands.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Its name.
    pub name: &'static str,
    /// The filter, fresh.
    pub filter: Box<dyn Filter>,
    /// Its place in the configuration.
    pub at: Range<usize>,
}

/// The options of one filter: a table, or a value alone that stands for its main option.
pub struct Given<'o, 'a> {
    options: &'o Options<'a>,
    /// The name of the filter, where a value stands alone behind it, and the option for which that stands.
    bare: Option<(&'static str, &'static str)>,
}

impl<'o, 'a> Given<'o, 'a> {
    /// Options that stand in a table of their own.
    #[must_use]
    pub fn of_table(options: &'o Options<'a>) -> Self {
        Self { options, bare: None }
    }

    /// The key under which an option stands; `None` where it cannot have been given.
    fn key(&self, option: &'static str) -> Option<&'static str> {
        match self.bare {
            None => Some(option),
            Some((name, main)) => (main == option).then_some(name),
        }
    }

    /// An option. A value of a wrong type is noted.
    #[must_use]
    pub fn optional<T: FromToml>(&self, option: &'static str) -> Option<T> {
        self.options.optional(self.key(option)?)
    }

    /// An option that must be there. Its absence is noted.
    #[must_use]
    pub fn required<T: FromToml>(&self, option: &'static str) -> Option<T> {
        match self.key(option) {
            Some(key) => self.options.required(key),
            None => {
                self.problem(option, format!("needs `{option}`, too: give its options in braces"), None);
                None
            }
        }
    }

    /// An option that must be there, within a range.
    #[must_use]
    pub fn required_in<T>(&self, option: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromToml + PartialOrd + std::fmt::Debug,
    {
        match self.key(option) {
            Some(key) if self.options.raw(key).is_some() => self.options.optional_in(key, range),
            _ => self.required(option),
        }
    }

    /// An option within a range.
    #[must_use]
    pub fn optional_in<T>(&self, option: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromToml + PartialOrd + std::fmt::Debug,
    {
        self.options.optional_in(self.key(option)?, range)
    }

    /// An option that is a period, from [`SHORTEST`] to a [`YEAR`].
    #[must_use]
    pub fn period(&self, option: &'static str) -> Option<Duration> {
        self.optional_in(option, SHORTEST..=YEAR)
    }

    /// A period that must be given.
    #[must_use]
    pub fn required_period(&self, option: &'static str) -> Option<Duration> {
        self.required_in(option, SHORTEST..=YEAR)
    }

    /// An option that is a finite number.
    #[must_use]
    pub fn number(&self, option: &'static str) -> Option<Finite> {
        self.optional(option).and_then(Finite::new)
    }

    /// An option that is one of a few words.
    #[must_use]
    pub fn word<T: Copy>(&self, option: &'static str, words: &[(&str, T)]) -> Option<T> {
        self.options.optional_word(self.key(option)?, words)
    }

    /// Was the option given?
    #[must_use]
    pub fn has(&self, option: &'static str) -> bool {
        self.key(option).is_some_and(|key| self.options.raw(key).is_some())
    }

    /// The value of an option as it was given, for what has a form of its own.
    #[must_use]
    pub fn raw(&self, option: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.options.raw(self.key(option)?)
    }

    /// Notes a problem of an option: `why` goes on after its name.
    pub fn problem(&self, option: &'static str, why: impl std::fmt::Display, expected: Option<String>) {
        let (key, message) = match self.key(option) {
            Some(key) => (key, format!("`{key}` of {} {why}", self.options.what())),
            None => (self.bare.map_or(option, |(name, _)| name), format!("{} {why}", self.options.what())),
        };
        self.options.problem(key, message, expected);
    }
}

/// `filters = [{ … }, { … }]`; messages call it `what`.
pub fn list<'a>(value: &'a Spanned<DeValue<'a>>, what: &str, problems: &'a Problems) -> Vec<Placed> {
    let Some(items) = value.get_ref().as_array() else {
        problems.push(
            Problem::new(
                value.span(),
                format!("{what} has the wrong type: this is of type {}", value.get_ref().type_str()),
            )
            .expected("expected a list of filters, such as [{ median = 5 }, { throttle = \"10s\" }]"),
        );
        return Vec::new();
    };
    if items.len() > MAX_FILTERS {
        problems.push(Problem::new(
            value.span(),
            format!("{what} has {} filters; {MAX_FILTERS} are the most that it may have", items.len()),
        ));
    }
    items.iter().filter_map(|item| one(item, what, problems)).collect()
}

/// One filter: a table with its name as the only key.
fn one<'a>(item: &'a Spanned<DeValue<'a>>, of: &str, problems: &'a Problems) -> Option<Placed> {
    const EXPECTED: &str = "expected one filter in braces, such as { median = 5 }";
    let table = item.get_ref().as_table();
    let Some((table, (key, value))) = table.and_then(|table| Some((table, table.iter().next()?))) else {
        problems.push(Problem::new(item.span(), format!("{of} holds something that is no filter")).expected(EXPECTED));
        return None;
    };
    if table.len() > 1 {
        let problem = Problem::new(item.span(), format!("{of} has several filters in one pair of braces"));
        problems.push(
            problem.expected(EXPECTED).help("give each its own, in the order in which they work: [{ … }, { … }]"),
        );
        return None;
    }
    let name = key.get_ref().as_ref();
    let Some(found) = FILTERS.iter().copied().find(|filter| filter.name == name) else {
        let known: Vec<&str> = FILTERS.iter().map(|filter| filter.name).collect();
        let problem = Problem::new(key.span(), format!("there is no filter `{name}`"));
        problems.push(match did_you_mean(name, &known) {
            Some(word) => problem.help(format!("did you mean `{word}`?")),
            None => problem.help(format!("there are {}", known.join(", "))),
        });
        return None;
    };
    let filter = options(found, table, item.span(), value, of, problems)?;
    Some(Placed { name: found.name, filter, at: item.span() })
}

fn options<'a>(
    found: &'static FilterType,
    item: &'a toml::de::DeTable<'a>,
    at: Range<usize>,
    value: &'a Spanned<DeValue<'a>>,
    of: &str,
    problems: &'a Problems,
) -> Option<Box<dyn Filter>> {
    let before = problems.len();
    let filter = if let Some(table) = value.get_ref().as_table() {
        let options = Options::new(table, value.span(), format!("the filter `{}` in {of}", found.name), problems);
        let filter = (found.parse)(&Given::of_table(&options));
        options.finish();
        filter
    } else if let Some(main) = found.bare {
        let options = Options::new(item, at, of, problems);
        (found.parse)(&Given { options: &options, bare: Some((found.name, main)) })
    } else {
        let message = format!("the filter `{}` in {of} has options of its own", found.name);
        problems.push(Problem::new(value.span(), message).expected(format!("expected {{ {} }}", found.sample)));
        None
    };
    filter.filter(|_| problems.len() == before)
}
