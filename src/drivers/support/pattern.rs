//! The key `pattern`: a regular expression whose named groups are quantities.

use regex_lite::{CaptureLocations, Regex, RegexBuilder};

use super::names;
use super::printed::{self, Decimal, Printed};
use crate::options::Options;

/// Bytes that a compiled pattern may take.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Groups within one another.
const MAX_NESTING: u32 = 32;

/// Named groups of a pattern.
pub(crate) const MAX_GROUPS: usize = 64;

/// A pattern with what its groups are called.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    /// Number and name of each named group.
    groups: Vec<(usize, String)>,
    places: CaptureLocations,
}

/// Reads the key `pattern`, which must be there; problems are noted there.
pub(crate) fn parse(options: &Options<'_>) -> Option<Pattern> {
    let text = options.required::<String>("pattern")?;
    let expected =
        || Some("expected a regular expression with named groups, such as 'Temp: (?<temp>[-0-9.]+)'".to_owned());
    match Pattern::new(&text) {
        Ok(pattern) => Some(pattern),
        Err(why) => {
            options.problem("pattern", format!("`pattern` of {} {why}", options.what()), expected());
            None
        }
    }
}

impl Pattern {
    /// # Errors
    /// What is wrong with it, as what follows its name in a sentence.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let regex = RegexBuilder::new(text)
            .size_limit(MAX_COMPILED_BYTES)
            .nest_limit(MAX_NESTING)
            .build()
            .map_err(|error| format!("is not a regular expression: {error}"))?;
        let named = regex.capture_names().enumerate();
        let groups: Vec<(usize, String)> = named
            .filter_map(|(number, name)| {
                let mut safe = String::new();
                names::push_safe(&mut safe, name?);
                Some((number, names::quantity(&safe)))
            })
            .collect();
        if groups.is_empty() {
            return Err("has no named group: nothing would be read".to_owned());
        }
        if groups.len() > MAX_GROUPS {
            return Err(format!("has more than {MAX_GROUPS} named groups"));
        }
        let places = regex.capture_locations();
        Ok(Self { regex, groups, places })
    }

    /// Appends what the first match in the text holds, a group at a time; false where nothing matches.
    ///
    /// # Errors
    /// A group's text is a number that can be read in two ways, or is too large; or what `take` says.
    pub(crate) fn read(
        &mut self,
        text: &str,
        decimal: Decimal,
        mut take: impl FnMut(&str, Printed) -> Result<(), String>,
    ) -> Result<bool, String> {
        if self.regex.captures_read(&mut self.places, text).is_none() {
            return Ok(false);
        }
        for (number, name) in &self.groups {
            let Some((from, to)) = self.places.get(*number) else { continue };
            let printed = printed::whole(&text[from..to], decimal).map_err(|why| format!("`{name}`: {why}"))?;
            take(name, printed)?;
        }
        Ok(true)
    }
}
