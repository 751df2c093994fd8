//! `[sensor.quantity.NAME]` and `change`: what is made of a sensor's quantities.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::DeValue;

use super::filters::{self, Filters};
use super::gateway::check_outright_topic;
use super::read;
use crate::drivers::Driver;
use crate::options::{FromToml, Options, Problem, Problems, did_you_mean, unit};
use crate::pipeline::filter::MAX_DIGITS;
use crate::pipeline::{Deadband, Origin, QuantityConfig};
use crate::reading::{Finite, Kind};

/// `[sensor.quantity.NAME]`, with their filters by published name.
pub(super) fn quantities(
    options: &Options<'_>,
    driver: Option<&'static Driver>,
) -> (BTreeMap<String, QuantityConfig>, Filters) {
    let (mut quantities, mut filters) = (BTreeMap::new(), Filters::default());
    let Some(table) = options.section("quantity") else { return (quantities, filters) };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        let what = format!("quantity `{name}` of {}", options.what());
        let Some(own) = Options::table(value, what, options.problems()) else { continue };
        if let Some(driver) = driver {
            check_source(name, key.span(), &own, options.what(), &declared(driver));
        }
        let (quantity, given) = quantity(&own);
        if quantity.rename.is_none()
            && let Err(why) = read::check_name(name)
        {
            options.problems().push(
                Problem::new(key.span(), format!("the quantity name `{name}` {why}"))
                    .help("give it a name for topics: as = \"…\""),
            );
        }
        own.finish();
        let published = quantity.rename.as_deref().unwrap_or(name).to_owned();
        for short in ["multiply", "offset", "round"] {
            if let Some(value) = own.raw(short) {
                filters.note_key(&published, short, value.span());
            }
        }
        filters.add(given.map(|given| (published, given)), &Origin::Quantity);
        quantities.insert(name.to_owned(), quantity);
    }
    for (name, quantity) in &quantities {
        let source = quantity.of.as_ref().and_then(|source| quantities.get(source));
        if source.is_some_and(|source| source.of.is_some()) {
            let message =
                format!("`of` of quantity `{name}` of {} names one that is itself made of another", options.what());
            let key = table.entries().find(|(key, _)| key.get_ref().as_ref() == name);
            let at = key.map_or_else(|| options.span(), |(key, _)| key.span());
            options.problems().push(Problem::new(at, message).help("name the driver's own quantity"));
        }
    }
    (quantities, filters)
}

/// Notes it if a quantity is neither the driver's own nor made of one, or both.
fn check_source(name: &str, at: Range<usize>, own: &Options<'_>, sensor: &str, known: &[&str]) {
    let Some(source) = own.raw("of") else {
        own.problems().extend(unknown_quantity(name, at, sensor, known));
        return;
    };
    if known.contains(&name) {
        let problem =
            Problem::new(at, format!("{sensor} has a quantity `{name}` by itself: it cannot be made of another"));
        own.problems().push(problem.help("give it a name of its own"));
    }
    if let Some(text) = source.get_ref().as_str() {
        own.problems().extend(unknown_quantity(text, source.span(), sensor, known));
    }
}

/// The keys of a quantity, and its filters.
pub(super) fn quantity(options: &Options<'_>) -> (QuantityConfig, Option<filters::Given>) {
    let kind = options.optional_word(
        "kind",
        &[
            ("number", Kind::Number),
            ("switch", Kind::Switch),
            ("text", Kind::Text),
            ("event", Kind::Event),
            ("bytes", Kind::Bytes),
        ],
    );
    let quantity = QuantityConfig {
        of: options.optional("of"),
        rename: read::name(options, "as"),
        unit: unit(options),
        measured_unit: None,
        kind,
        topic: outright_topic(options),
        multiply: options.optional("multiply").and_then(Finite::new),
        offset: options.optional("offset").and_then(Finite::new),
        round: options.optional_in("round", 0..=MAX_DIGITS),
    };
    if quantity.multiply.is_some_and(|factor| factor.get() == 0.0) {
        options.problem("multiply", format!("`multiply` of {} is 0: every value would be 0", options.what()), None);
    }
    (quantity, filters::of_quantity(options))
}

fn outright_topic(options: &Options<'_>) -> Option<String> {
    let topic = options.optional::<String>("topic")?;
    match check_outright_topic(&topic) {
        Ok(()) => Some(topic),
        Err(why) => {
            options.problem(
                "topic",
                format!("`topic` of {} {why}", options.what()),
                Some("expected a topic such as \"maison/salon/temperature\"".to_owned()),
            );
            None
        }
    }
}

/// `change = { QUANTITY = 0.1, QUANTITY = { relative = 0.01 } }`
pub(super) fn change(
    options: &Options<'_>,
    driver: Option<&'static Driver>,
    quantities: &BTreeMap<String, QuantityConfig>,
    filters: &mut Filters,
) -> BTreeMap<String, Deadband> {
    let mut change = BTreeMap::new();
    let Some(table) = options.section("change") else { return change };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        check_published(name, &key.span(), options, driver, quantities);
        let event = quantities.iter().any(|(given, quantity)| {
            quantity.kind == Some(Kind::Event) && quantity.rename.as_deref().unwrap_or(given) == name
        });
        if event {
            let message = format!("`change` cannot filter `{name}` of {}: events are always published", options.what());
            options.problems().push(Problem::new(key.span(), message));
        }
        if let Some(deadband) = deadband(value, name, options.what(), options.problems()) {
            filters.note_key(name, "change", key.span());
            change.insert(name.to_owned(), deadband);
        }
    }
    change
}

/// Notes it if a sensor has no quantity that is published under that name.
pub(super) fn check_published(
    name: &str,
    at: &Range<usize>,
    options: &Options<'_>,
    driver: Option<&'static Driver>,
    quantities: &BTreeMap<String, QuantityConfig>,
) {
    if let Some(driver) = driver
        && let Some(problem) = unknown_quantity(name, at.clone(), options.what(), &published(driver, quantities))
    {
        let renamed = quantities.get(name).and_then(|quantity| quantity.rename.as_deref());
        options.problems().push(match renamed {
            Some(now) => problem.help(format!("`{name}` is published as `{now}`: write that here")),
            None => problem,
        });
    }
}

fn deadband<'a>(value: &'a Spanned<DeValue<'a>>, name: &str, sensor: &str, problems: &'a Problems) -> Option<Deadband> {
    let what = format!("`change` for `{name}` of {sensor}");
    if let Some(table) = value.get_ref().as_table() {
        let options = Options::new(table, value.span(), what.as_str(), problems);
        let fraction = relative(&options);
        options.finish();
        return fraction.map(Deadband::Relative);
    }
    match f64::from_toml(value.get_ref()) {
        Ok(number) if number >= 0.0 => return Finite::new(number).map(Deadband::Absolute),
        Ok(_) => problems.push(
            Problem::new(value.span(), format!("{what} is negative"))
                .expected("expected a number from 0 on; 0 means any change at all"),
        ),
        Err(why) => {
            let why =
                why.unwrap_or_else(|| format!("has the wrong type: this is of type {}", value.get_ref().type_str()));
            problems.push(
                Problem::new(value.span(), format!("{what} {why}"))
                    .expected("expected a number in the quantity's unit, or { relative = 0.01 }"),
            );
        }
    }
    None
}

/// The key of a relative deadband.
pub(super) fn relative(options: &Options<'_>) -> Option<Finite> {
    let fraction = options.required::<f64>("relative")?;
    if fraction > 0.0 && fraction < 1.0 {
        return Finite::new(fraction);
    }
    options.problem(
        "relative",
        format!("`relative` of {} is out of range", options.what()),
        Some("expected a fraction above 0 and below 1; 0.01 is one percent".to_owned()),
    );
    None
}

/// The names that the driver gives its quantities; none where the device or the configuration names them.
fn declared(driver: &'static Driver) -> Vec<&'static str> {
    driver.quantities.iter().map(|quantity| quantity.name).collect()
}

/// The names under which a driver's declared quantities are published, and those that are made of them.
pub(super) fn published<'q>(driver: &'static Driver, quantities: &'q BTreeMap<String, QuantityConfig>) -> Vec<&'q str> {
    let declared = declared(driver);
    let derived = quantities.iter().filter(|(_, own)| own.of.is_some() && !declared.is_empty());
    let derived = derived.map(|(name, own)| own.rename.as_deref().unwrap_or(name));
    let name = |name| quantities.get(name).and_then(|quantity| quantity.rename.as_deref()).unwrap_or(name);
    declared.iter().copied().map(name).chain(derived).collect()
}

fn unknown_quantity(name: &str, at: Range<usize>, sensor: &str, known: &[&str]) -> Option<Problem> {
    if known.is_empty() || known.contains(&name) {
        return None;
    }
    let problem = Problem::new(at, format!("{sensor} has no quantity `{name}`"));
    Some(match did_you_mean(name, known) {
        Some(word) => problem.help(format!("did you mean `{word}`?")),
        None => problem.help(format!("it has: {}", known.join(", "))),
    })
}
