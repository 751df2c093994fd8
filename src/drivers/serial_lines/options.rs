//! The driver's keys.

use super::columns::Columns;
use super::{Encoding, Form, LineEnd, MAX_QUANTITIES, SerialLines, Settings};
use crate::drivers::support::{acknowledge, device_clock, names, pattern, printed, serial};
use crate::drivers::{ByteDecoder, OptionInfo, Parsed, Source};
use crate::options::Options;
use crate::topic;

pub(super) const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "form",
        values: "`\"pairs\"`, `\"csv\"` or `\"pattern\"`",
        default: Some("`\"pairs\"`"),
        help: "What a line looks like.",
    },
    OptionInfo {
        name: "keys",
        values: "list of names",
        default: Some("all"),
        help: "With `pairs`: the quantities that are wanted.",
    },
    OptionInfo {
        name: "columns",
        values: "list of names",
        default: Some("must be given with `csv`"),
        help: "With `csv`: the quantities in their order; `\"\"` leaves a column out.",
    },
    OptionInfo {
        name: "separator",
        values: "one character",
        default: Some("`\",\"`"),
        help: "With `csv`: what stands between two values; `\" \"` is any number of spaces and tabs.",
    },
    OptionInfo {
        name: "pattern",
        values: "regular expression",
        default: Some("must be given with `pattern`"),
        help: "With `pattern`: named groups are quantities, as in `'Temp: (?<temp>[-0-9.]+)'`; it may match anywhere in \
               the line. The syntax is that of the crate `regex-lite`.",
    },
    OptionInfo {
        name: "decimal",
        values: "`\".\"` or `\",\"`",
        default: Some("a point, and numbers with a comma are refused"),
        help: "What separates a number's fraction.",
    },
    OptionInfo {
        name: "encoding",
        values: "`\"utf-8\"` or `\"latin-1\"`",
        default: Some("`\"utf-8\"`, and `\"latin-1\"` for a line that is not"),
        help: "How the device's letters are bytes, also in commands.",
    },
    OptionInfo {
        name: "line_end",
        values: "`\"\\n\"`, `\"\\r\\n\"` or `\"\\r\"`",
        default: Some("`\"\\n\"`"),
        help: "What ends a command; with `\"\\r\"` also what ends a line of the device. Else both others do.",
    },
    OptionInfo {
        name: "ignore_other",
        values: "true or false",
        default: Some("false"),
        help: "Skip and count lines in which nothing is found, such as banners, instead of reporting a fault.",
    },
    acknowledge::OPTION,
    device_clock::OPTION,
];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Pairs,
    Csv,
    Pattern,
}

pub(super) fn parse(options: &Options<'_>) -> Option<Parsed> {
    let port = serial::SKETCH.parse(options);
    let form = form(options);
    let decimal = printed::decimal(options);
    let encodings = [("utf-8", Encoding::Utf8), ("latin-1", Encoding::Latin1)];
    let encoding = options.optional_word("encoding", &encodings).unwrap_or(Encoding::Utf8);
    let ends = [("\n", LineEnd::Lf), ("\r\n", LineEnd::CrLf), ("\r", LineEnd::Cr)];
    let line_end = options.optional_word("line_end", &ends).unwrap_or(LineEnd::Lf);
    let ignore_other = options.optional("ignore_other").unwrap_or(false);
    let acknowledge = acknowledge::parse(options);
    let millis = device_clock::parse(options);
    let (port, form) = (port?, form?);
    if let (Form::Csv(Columns { separator: ',', .. }), printed::Decimal::Comma) = (&form, decimal) {
        options.problem_with_help(
            "decimal",
            "`decimal` and `separator` are both a comma",
            None,
            Some("most devices with a decimal comma separate with `;`: say `separator = \";\"`".to_owned()),
        );
    }
    let settings = Settings { form, decimal, encoding, ignore_other, line_end, acknowledge, millis };
    let decoder = Box::new(move || Box::new(SerialLines::new(settings.clone())) as Box<dyn ByteDecoder>);
    Some(Parsed { claims: serial::claims(&port), source: Source::Serial { settings: port, decoder } })
}

fn form(options: &Options<'_>) -> Option<Form> {
    let words = [("pairs", Word::Pairs), ("csv", Word::Csv), ("pattern", Word::Pattern)];
    let given = options.optional_word("form", &words);
    let wrong = given.is_none() && options.raw("form").is_some();
    let form = given.unwrap_or(Word::Pairs);
    let belongs = [("keys", Word::Pairs), ("columns", Word::Csv), ("separator", Word::Csv), ("pattern", Word::Pattern)];
    for (key, of) in belongs {
        if options.raw(key).is_some() && form != of && !wrong {
            let name = words.iter().find(|(_, word)| *word == of).map_or("", |(name, _)| name);
            options.problem(key, format!("`{key}` belongs to `form = \"{name}\"`"), None);
        }
    }
    if wrong {
        return None;
    }
    Some(match form {
        Word::Pairs => Form::Pairs { keys: list_of_names(options, "keys", false)? },
        Word::Csv => Form::Csv(Columns { names: columns(options)?, separator: separator(options)? }),
        Word::Pattern => Form::Pattern(pattern::parse(options)?),
    })
}

fn columns(options: &Options<'_>) -> Option<Vec<String>> {
    if options.raw("columns").is_none() {
        options.required::<Vec<String>>("columns");
        return None;
    }
    let columns = list_of_names(options, "columns", true)?;
    if columns.iter().all(String::is_empty) {
        options.problem("columns", "`columns` names no quantity", Some("expected a name for each value".to_owned()));
        return None;
    }
    Some(columns)
}

fn separator(options: &Options<'_>) -> Option<char> {
    let Some(text) = options.optional::<String>("separator") else { return Some(',') };
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(one), None) if !one.is_alphanumeric() && !matches!(one, '"' | '.' | '-' | '+') => Some(one),
        _ => {
            options.problem(
                "separator",
                format!("`separator` of {} cannot be {text:?}", options.what()),
                Some("expected one character such as \",\", \";\", \"\\t\" or \" \"".to_owned()),
            );
            None
        }
    }
}

/// Names as they are published, each once; empty ones only where they `may_be_empty`.
fn list_of_names(options: &Options<'_>, key: &'static str, may_be_empty: bool) -> Option<Vec<String>> {
    let list = if options.raw(key).is_some() { options.optional::<Vec<String>>(key)? } else { Vec::new() };
    let expected = || Some("expected names such as [\"temp\", \"hum\"], each once".to_owned());
    if list.len() > MAX_QUANTITIES {
        options.problem(key, format!("`{key}` has more than {MAX_QUANTITIES} names"), expected());
        return None;
    }
    for (index, name) in list.iter().enumerate().filter(|(_, name)| !(may_be_empty && name.is_empty())) {
        let why = if let Err(why) = topic::check_name(name) {
            why
        } else if *name == names::quantity(name) && !list[..index].contains(name) {
            continue;
        } else if list[..index].contains(name) {
            "is there twice".to_owned()
        } else {
            format!("is vigie's own: the quantity is called `{name}_`")
        };
        options.problem(key, format!("`{key}`: the name \"{name}\" {why}"), expected());
        return None;
    }
    Some(list)
}
