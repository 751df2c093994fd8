//! What a whole content means: that of a file, or all that a program printed.

use regex_lite::{Regex, RegexBuilder};

use super::announced;
use super::names;
use crate::drivers::OptionInfo;
use crate::options::{Options, Problem};
use crate::reading::{Fault, FaultCode, Finite, MAX_BYTES, Sample, Value, is_content_type};

/// `max_bytes` where it is not given and the content is text.
const DEFAULT_MAX_BYTES: u32 = 64 * 1024;

/// Bytes of a compiled `pattern`.
const MAX_PATTERN: usize = 256 * 1024;

/// Groups of a `pattern`.
const MAX_GROUPS: usize = 64;

/// Characters of a content that a fault shows.
const EXCERPT: usize = 60;

/// The quantity that the whole content is.
pub(crate) const WHOLE: &str = "value";

/// How contents are read, and how long they may be.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    meaning: Meaning,
    /// A longer one is a fault.
    pub(crate) max_bytes: usize,
}

#[derive(Clone, Debug)]
enum Meaning {
    /// A number or a text.
    Plain,
    /// An object.
    Json,
    /// Named groups.
    Pattern(Regex),
    /// Bytes, with their content type.
    Bytes(Box<str>),
}

/// Reads an object: the text, and how faults call it.
pub(crate) type ReadJson = fn(&[u8], &str) -> Result<Vec<Sample>, Fault>;

/// The keys of a driver that reads contents.
pub(crate) const FORM: OptionInfo = OptionInfo {
    name: "form",
    values: "`\"plain\"` or `\"json\"`",
    default: Some("`\"plain\"`"),
    help: "Whether the content is one number or text, or a JSON object.",
};

/// See [`FORM`].
pub(crate) const PATTERN: OptionInfo = OptionInfo {
    name: "pattern",
    values: "regular expression",
    default: Some("none"),
    help: "Its first match in the content gives a quantity for each named group: `'load (?<load>[0-9.]+)'`.",
};

/// See [`FORM`].
pub(crate) const CONTENT_TYPE: OptionInfo = OptionInfo {
    name: "content_type",
    values: "such as `\"image/jpeg\"`",
    default: Some("none"),
    help: "The content is bytes of that type, such as a picture, and is published as it is.",
};

/// Reads the keys; `None` if a problem was noted.
pub(crate) fn parse(options: &Options<'_>) -> Option<Settings> {
    let form = options.optional_word("form", &[("plain", false), ("json", true)]);
    let (pattern, content_type) = (options.optional::<String>("pattern"), content_type(options));
    let max_bytes = max_bytes(options);
    let given = ["form", "pattern", "content_type"].into_iter().filter(|key| options.raw(key).is_some());
    if let [first, second, ..] = given.collect::<Vec<_>>()[..] {
        let message = format!("{} has both `{first}` and `{second}`", options.what());
        options.problem(second, message, Some("expected only one of them".to_owned()));
        return None;
    }
    // What is there and cannot be read was noted.
    let meaning = if options.raw("pattern").is_some() {
        Meaning::Pattern(compile(options, &pattern?)?)
    } else if options.raw("content_type").is_some() {
        Meaning::Bytes(content_type??)
    } else if form.unwrap_or(false) {
        Meaning::Json
    } else {
        Meaning::Plain
    };
    let default = if matches!(meaning, Meaning::Bytes(_)) { MAX_BYTES } else { DEFAULT_MAX_BYTES as usize };
    Some(Settings { meaning, max_bytes: max_bytes.unwrap_or(default) })
}

/// The key `content_type`; `None` if a problem was noted.
#[expect(clippy::option_option, reason = "wrong, and not there")]
pub(crate) fn content_type(options: &Options<'_>) -> Option<Option<Box<str>>> {
    if options.raw("content_type").is_none() {
        return Some(None);
    }
    let content_type = options.optional::<String>("content_type")?;
    if is_content_type(&content_type) {
        return Some(Some(content_type.into()));
    }
    let message = format!("`content_type` of {} is no content type", options.what());
    options.problem("content_type", message, Some("expected one such as \"image/jpeg\"".to_owned()));
    None
}

/// The key `max_bytes`.
fn max_bytes(options: &Options<'_>) -> Option<usize> {
    let most = u32::try_from(MAX_BYTES).expect("half a megabyte");
    options.optional_in("max_bytes", 1..=most).map(|bytes| bytes as usize)
}

fn compile(options: &Options<'_>, pattern: &str) -> Option<Regex> {
    const EXPECTED: &str = "expected a regular expression with named groups, such as 'load (?<load>[0-9.]+)'";
    let (why, help) = match RegexBuilder::new(pattern).multi_line(true).size_limit(MAX_PATTERN).build() {
        Err(error) => (format!("cannot be used: {error}"), None),
        Ok(regex) => {
            let named: Vec<&str> = regex.capture_names().flatten().collect();
            let reserved = named.iter().find(|name| crate::topic::RESERVED.contains(name));
            match (named.len(), reserved) {
                (0, _) => ("has no named group".to_owned(), Some("a group without a name gives no quantity")),
                (1..=MAX_GROUPS, None) => return Some(regex),
                (1..=MAX_GROUPS, Some(name)) => (format!("has a group `{name}`, which stands for a topic"), None),
                _ => (format!("has more than {MAX_GROUPS} named groups"), None),
            }
        }
    };
    let span = options.raw("pattern").map_or_else(|| options.span(), toml::Spanned::span);
    let problem = Problem::new(span, format!("`pattern` of {} {why}", options.what())).expected(EXPECTED);
    options.problems().push(match help {
        Some(help) => problem.help(help),
        None => problem,
    });
    None
}

impl Settings {
    /// Is the content handed on byte for byte?
    pub(crate) fn is_bytes(&self) -> bool {
        matches!(self.meaning, Meaning::Bytes(_))
    }

    /// The samples of a content. `what` names it in faults; `json` reads an object.
    ///
    /// # Errors
    /// What cannot be understood, and what was expected.
    pub(crate) fn samples(&self, content: Vec<u8>, what: &str, json: ReadJson) -> Result<Vec<Sample>, Fault> {
        let bad = |detail: String| Fault::new(FaultCode::BadData, detail);
        if content.len() > self.max_bytes {
            return Err(bad(format!("{what} has more than `max_bytes` ({})", self.max_bytes)));
        }
        if content.iter().all(u8::is_ascii_whitespace) {
            return Err(bad(format!("{what} is empty")));
        }
        match &self.meaning {
            Meaning::Bytes(content_type) => Ok(vec![announced::bytes(WHOLE, content, Some(content_type))?]),
            Meaning::Json => json(&content, what),
            Meaning::Plain => Ok(vec![Sample::new(WHOLE, plain(&text_of(&content)))]),
            Meaning::Pattern(regex) => {
                let text = text_of(&content);
                let found = regex.captures(&text).ok_or_else(|| {
                    let excerpt: String = text.trim().chars().take(EXCERPT).flat_map(char::escape_default).collect();
                    bad(format!("`pattern` does not match {what}, which begins with `{excerpt}`"))
                })?;
                let group = |name: &&'_ str| Some((names::quantity(name), found.name(name)?.as_str()));
                let named: Vec<&str> = regex.capture_names().flatten().collect();
                let groups = named.iter().filter_map(group);
                Ok(groups.map(|(name, text)| Sample::new(name, plain(text))).collect())
            }
        }
    }
}

/// The number that a text is, or else the text.
fn plain(text: &str) -> Value {
    let text = text.trim();
    text.parse().ok().and_then(Finite::new).map_or_else(|| Value::Text(text.into()), Value::Number)
}

/// What is not UTF-8 is read as Latin-1, in which every byte is a letter.
fn text_of(content: &[u8]) -> String {
    std::str::from_utf8(content).map_or_else(|_| content.iter().map(|byte| char::from(*byte)).collect(), str::to_owned)
}
