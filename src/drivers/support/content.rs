//! What a whole content means: that of a file, or all that a program printed.

use super::announced;
use super::lines::excerpt;
use super::pattern::Pattern;
use super::printed::{Decimal, Printed};
use crate::drivers::OptionInfo;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Finite, MAX_BYTES, Sample, Value, is_content_type};

/// `max_bytes` where it is not given and the content is text.
const DEFAULT_MAX_BYTES: u32 = 64 * 1024;

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
    Pattern(Pattern),
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

fn compile(options: &Options<'_>, text: &str) -> Option<Pattern> {
    let expected = "expected a regular expression with named groups, such as 'load (?<load>[0-9.]+)'";
    let noted =
        |why| options.problem("pattern", format!("`pattern` of {} {why}", options.what()), Some(expected.to_owned()));
    Pattern::new(text).map_err(noted).ok()
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
            Meaning::Pattern(pattern) => groups(&mut pattern.clone(), &text_of(&content), what),
        }
    }
}

/// What the groups of a pattern hold.
fn groups(pattern: &mut Pattern, text: &str, what: &str) -> Result<Vec<Sample>, Fault> {
    let mut samples = Vec::new();
    let found = pattern.read(text, Decimal::Unsaid, |name, printed| {
        if printed == Printed::Broken {
            return Err(format!("`{name}` is no number"));
        }
        samples.extend(printed.sample(name.to_owned(), None));
        Ok(())
    });
    let why = match found {
        Ok(true) => return Ok(samples),
        Ok(false) => format!("`pattern` does not match {what}, which begins with `{}`", excerpt(text)),
        Err(why) => format!("{what}: {why}"),
    };
    Err(Fault::new(FaultCode::BadData, why))
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
