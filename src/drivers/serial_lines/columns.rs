//! Columns: values in a fixed order, with a separator between them.

use super::Found;
use crate::drivers::support::printed::{self, Decimal};

/// What the columns are, as configured.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    /// Names as published; an empty one is left out.
    pub(super) names: Vec<String>,
    /// A space stands for any number of spaces and tabs.
    pub(super) separator: char,
}

impl Columns {
    /// Reads a line; true if it is the columns' own heading.
    ///
    /// # Errors
    /// There are more or fewer fields than columns, or one can be read in two ways.
    pub(super) fn read(&self, line: &str, decimal: Decimal, found: &mut Found<'_>) -> Result<bool, String> {
        let mut fields = Vec::with_capacity(self.names.len());
        let mut rest = Some(line.trim());
        while let Some(text) = rest {
            if fields.len() > self.names.len() {
                return Err(self.count("more"));
            }
            let (field, after) = self.field(text);
            fields.push(field);
            rest = after;
        }
        if fields.len() != self.names.len() {
            return Err(self.count(&fields.len().to_string()));
        }
        let is_name =
            |(field, name): (&&str, &String)| field.trim_matches('"').eq_ignore_ascii_case(name) || name.is_empty();
        if fields.iter().zip(&self.names).all(is_name) {
            return Ok(true);
        }
        for (field, name) in fields.iter().zip(&self.names).filter(|(_, name)| !name.is_empty()) {
            let value = printed::whole(field, decimal).map_err(|why| format!("column `{name}`: {why}"))?;
            found.add(name, 0, value, None)?;
        }
        Ok(false)
    }

    fn count(&self, found: &str) -> String {
        format!("{found} fields instead of {}, separated by {:?}", self.names.len(), self.separator)
    }

    /// The first field, and what comes behind its separator.
    fn field<'a>(&self, text: &'a str) -> (&'a str, Option<&'a str>) {
        // A separator within quotes is a part of the text.
        let quoted =
            text.trim_start().strip_prefix('"').and_then(|inner| Some(text.len() - inner.len() + inner.find('"')? + 1));
        let from = quoted.unwrap_or_default();
        let blank = |character: char| character == ' ' || character == '\t';
        let end = if self.separator == ' ' { text[from..].find(blank) } else { text[from..].find(self.separator) };
        let Some(end) = end.map(|end| from + end) else { return (text.trim(), None) };
        let (field, rest) = text.split_at(end);
        let rest =
            if self.separator == ' ' { rest.trim_start_matches(blank) } else { &rest[self.separator.len_utf8()..] };
        (field.trim(), Some(rest))
    }
}
