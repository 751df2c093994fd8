//! The drivers' documentation, made from the registry: `docs/drivers.md` and what `vigie drivers` prints.

use std::fmt::Write;

use super::{DRIVERS, Driver, OptionRow};
use crate::reading::Kind;

/// All drivers, as `docs/drivers.md` holds them.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Drivers\n\n\
         Made from the registry in `src/drivers.rs` by `UPDATE_DOCS=1 cargo test --lib drivers`; do not edit. \
         `vigie drivers NAME` prints the same.\n\n\
         A sensor's table also takes the keys that all sensors have, such as `name`, `room`, `every` and `change`.\n\n",
    );
    for driver in DRIVERS {
        line(&mut page, format_args!("- [`{0}`](#{0}): {1}", driver.name, driver.summary));
    }
    for driver in DRIVERS {
        page.push('\n');
        page.push_str(&self::driver(driver));
    }
    page
}

/// One driver, in Markdown.
#[must_use]
pub fn driver(driver: &Driver) -> String {
    let mut text = String::new();
    line(&mut text, format_args!("## {}\n\n{}.\n\n{}\n", driver.name, driver.summary, driver.notes.trim()));
    line(&mut text, format_args!("```toml\n{}\n```\n", driver.sample.trim()));
    let options: Vec<OptionRow> = driver.all_options().collect();
    if !options.is_empty() {
        line(&mut text, format_args!("| option | values | default | |\n|---|---|---|---|"));
        for option in options {
            let default = option.default.as_deref().unwrap_or("must be given");
            line(&mut text, format_args!("| `{}` | {} | {default} | {} |", option.name, option.values, option.help));
        }
        text.push('\n');
    }
    if driver.quantities.is_empty() {
        line(&mut text, format_args!("The device names the quantities."));
    } else {
        line(&mut text, format_args!("| quantity | unit | kind | |\n|---|---|---|---|"));
        for quantity in driver.quantities {
            let unit = quantity.unit.unwrap_or_default();
            let kind = kind_word(quantity.kind);
            line(&mut text, format_args!("| `{}` | {unit} | {kind} | {} |", quantity.name, quantity.help));
        }
    }
    text
}

/// The drivers' names and what they are for, a line each.
#[must_use]
pub fn list() -> String {
    let width = DRIVERS.iter().map(|driver| driver.name.len()).max().unwrap_or_default();
    let mut text = String::new();
    for driver in DRIVERS {
        line(&mut text, format_args!("{:width$}  {}", driver.name, driver.summary));
    }
    text
}

/// A kind as `kind = "…"` has it.
fn kind_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Number => "number",
        Kind::Switch => "switch",
        Kind::Text => "text",
        Kind::Event => "event",
        Kind::Bytes => "bytes",
    }
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes whatever is written to it");
}
