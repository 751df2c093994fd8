//! Templates for payloads, in the language of Jinja: `format = "template"`.
//!
//! A template has what it is given and nothing else: no files, no other templates, no functions, no clock. It runs for at
//! most [`FUEL`] steps and gives at most [`MAX_OUTPUT`] bytes, so that none can hold up the gateway. It knows nothing of
//! readings: what it is given is the caller's business.

use std::fmt;
use std::io;

use minijinja::{Environment, ErrorKind, UndefinedBehavior};

pub use minijinja::Value;

/// Steps of one rendering, in the units of the template engine: a loop over a hundred values takes about a thousand.
pub const FUEL: u64 = 50_000;

/// Bytes of one rendering; brokers as they come take 1 MiB.
pub const MAX_OUTPUT: usize = 1 << 20;

/// Bytes of a template.
pub const MAX_SOURCE: usize = 64 * 1_024;

/// The engine keeps templates by name, and there is one.
const NAME: &str = "payload";

/// A template that was understood.
#[derive(Clone)]
pub struct Template {
    engine: Environment<'static>,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct Wrong {
    /// For people, with the line where that is known.
    pub what: String,
    /// It depends on the values: with others the template may work.
    pub by_values: bool,
}

impl Template {
    /// Reads a template that may use these names.
    ///
    /// # Errors
    /// What cannot be understood, with its line.
    pub fn parse(source: &str, names: &[&str]) -> Result<Self, Wrong> {
        let wrong = |what| Wrong { what, by_values: false };
        if source.len() > MAX_SOURCE {
            return Err(wrong(format!("it is longer than {MAX_SOURCE} bytes")));
        }
        let mut engine = Environment::new();
        let functions: Vec<String> = engine.globals().map(|(name, _)| name.to_owned()).collect();
        for function in &functions {
            engine.remove_global(function);
        }
        engine.set_fuel(Some(FUEL));
        // What a sensor does not have comes out empty, as it is left out of other forms.
        engine.set_undefined_behavior(UndefinedBehavior::Chainable);
        engine.add_template_owned(NAME, source.to_owned()).map_err(|error| explain(&error))?;
        let mut unknown: Vec<String> = engine
            .get_template(NAME)
            .map_err(|error| explain(&error))?
            .undeclared_variables(false)
            .into_iter()
            .filter(|name| !names.contains(&name.as_str()))
            .collect();
        unknown.sort();
        if let Some(name) = unknown.first() {
            return Err(wrong(format!("it uses `{name}`, which there is not; there are {}", names.join(", "))));
        }
        Ok(Self { engine })
    }

    /// Appends what the template makes of these values.
    ///
    /// # Errors
    /// It does something with a value that is not possible, or takes too long, or gives too much.
    pub fn render(&self, values: Value, out: &mut impl Extend<u8>) -> Result<(), Wrong> {
        let mut limited = Limited { bytes: Vec::with_capacity(256) };
        let template = self.engine.get_template(NAME).map_err(|error| explain(&error))?;
        template.render_captured_to(values, &mut limited).map_err(|error| explain(&error))?;
        out.extend(limited.bytes);
        Ok(())
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        let source = |template: &Self| Some(template.engine.get_template(NAME).ok()?.source().to_owned());
        source(self) == source(other)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Template").finish_non_exhaustive()
    }
}

/// Takes no more than [`MAX_OUTPUT`].
struct Limited {
    bytes: Vec<u8>,
}

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other("too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(error: &minijinja::Error) -> Wrong {
    let what = match error.kind() {
        ErrorKind::OutOfFuel => format!("it takes more than {FUEL} steps"),
        ErrorKind::WriteFailure => format!("it gives more than {MAX_OUTPUT} bytes"),
        kind => match error.detail() {
            Some(detail) => format!("{kind}: {detail}"),
            None => kind.to_string(),
        },
    };
    let by_values = matches!(
        error.kind(),
        ErrorKind::NonPrimitive
            | ErrorKind::NonKey
            | ErrorKind::InvalidOperation
            | ErrorKind::UndefinedError
            | ErrorKind::CannotUnpack
    );
    let what = error.line().map_or_else(|| what.clone(), |line| format!("line {line}: {what}"));
    Wrong { what, by_values }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const NAMES: &[&str] = &["value", "room", "values"];

    fn render(source: &str) -> Result<String, Wrong> {
        let values = BTreeMap::from([("temperature", Value::from(21.5)), ("humidity", Value::from(40.0))]);
        let given =
            BTreeMap::from([("value", Value::from(21.53)), ("room", Value::from("salon")), ("values", values.into())]);
        let mut out = Vec::new();
        Template::parse(source, NAMES)?.render(given.into(), &mut out)?;
        Ok(String::from_utf8(out).expect("UTF-8"))
    }

    #[test]
    fn values_are_filled_in() {
        for (source, expected) in [
            ("{{ value }}", "21.53"),
            ("{{ value|round(1) }} {{ room|upper }}", "21.5 SALON"),
            (r#"{"v":{{ value|tojson }},"r":{{ room|tojson }}}"#, r#"{"v":21.53,"r":"salon"}"#),
            ("{% for name in values %}{{ name }}={{ values[name] }};{% endfor %}", "humidity=40.0;temperature=21.5;"),
            ("[{{ values.pressure }}]", "[]"),
        ] {
            assert_eq!(render(source).expect(source), expected);
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        for (source, expected) in [
            ("{{ value", "line 1: syntax error"),
            ("a\n{{ rom }}", "it uses `rom`, which there is not; there are value, room, values"),
            ("a\n{{ value|nosuch }}", "line 2: unknown filter: filter nosuch is unknown"),
            ("{% for i in range(5) %}{% endfor %}", "it uses `range`"),
            ("{% include 'x' %}", "line 1: syntax error"),
        ] {
            let wrong = render(source).expect_err(source);
            assert!(wrong.what.starts_with(expected) && !wrong.by_values, "{source}: {wrong:?}");
        }
        assert!(render("{{ room + 1 }}").expect_err("no number").by_values);
    }

    #[test]
    fn no_template_runs_for_ever() {
        let letters = "'0123456789'";
        let nested = format!("{}x{}", format!("{{% for c in {letters} %}}").repeat(6), "{% endfor %}".repeat(6));
        assert!(render(&nested).expect_err("a million rounds").what.contains("50000 steps"), "{nested}");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\{\\{|\\}\\}|\\{%|%\\}|value|room|\\||\\.|[ a-z0-9'(\\[\\])+*/-]){0,40}") {
            let _ = render(&text);
        }
    }
}
