//! `filters`, in a quantity, a sensor or a room. The filters themselves read their options: see
//! [`crate::pipeline::filter`].

use std::collections::BTreeMap;
use std::ops::Range;

use super::read;
use crate::drivers::Driver;
use crate::options::{Options, Problem, Problems};
use crate::pipeline::filter::{self, Placed};
use crate::pipeline::{Link, Misfit, Origin, PipelineConfig};
use crate::reading::Kind;

/// The filters of one quantity as they stand in one place of the configuration.
#[derive(Clone, Debug)]
pub(super) struct Given {
    list: Vec<Placed>,
    /// Where.
    at: Range<usize>,
}

/// Filters of quantities by their published names, with where they come from.
#[derive(Debug, Default)]
pub(super) struct Filters {
    lists: BTreeMap<String, (Given, Origin)>,
    /// Where the keys stand that are short forms, by published name and key.
    keys: BTreeMap<(String, &'static str), Range<usize>>,
}

/// `filters = [{ … }, { … }]` of a quantity.
pub(super) fn of_quantity(options: &Options<'_>) -> Option<Given> {
    let value = options.raw("filters")?;
    let list = filter::list(value, &format!("`filters` of {}", options.what()), options.problems());
    Some(Given { list, at: value.span() })
}

/// `filters = { QUANTITY = [{ … }, { … }], … }`; `check` notes what is wrong with a quantity's name.
pub(super) fn by_quantity(options: &Options<'_>, check: impl Fn(&str, Range<usize>)) -> BTreeMap<String, Given> {
    let mut found = BTreeMap::new();
    let Some(table) = options.section("filters") else { return found };
    for (key, value) in table.entries() {
        let name = key.get_ref().as_ref();
        check(name, key.span());
        let list = filter::list(value, &format!("`filters` for `{name}` of {}", options.what()), options.problems());
        found.insert(name.to_owned(), Given { list, at: value.span() });
    }
    found
}

impl Filters {
    /// Adds what stands in one place; where a quantity has filters already, those stay.
    pub(super) fn add(&mut self, given: impl IntoIterator<Item = (String, Given)>, origin: &Origin) {
        for (name, given) in given {
            self.lists.entry(name).or_insert_with(|| (given, origin.clone()));
        }
    }

    /// Notes where a key stands that is the short form of a filter.
    pub(super) fn note_key(&mut self, quantity: &str, key: &'static str, at: Range<usize>) {
        self.keys.insert((quantity.to_owned(), key), at);
    }

    /// Notes which of these would be the second list of a quantity in the same sensor.
    pub(super) fn refuse_twice(&self, given: &BTreeMap<String, Given>, problems: &Problems) {
        for (name, second) in given {
            if let Some((first, _)) = self.lists.get(name) {
                problems.push(
                    Problem::new(second.at.clone(), format!("the filters of `{name}` are given twice"))
                        .related(first.at.clone(), "and here")
                        .help("put all of them into one list, in the order in which they work"),
                );
            }
        }
    }

    /// As the pipeline takes them.
    pub(super) fn links(&self) -> BTreeMap<String, Vec<Link>> {
        let link = |placed: &Placed, origin: &Origin| Link {
            name: placed.name,
            filter: placed.filter.clone(),
            origin: origin.clone(),
        };
        let links = self.lists.iter().map(|(name, (given, origin))| {
            (name.clone(), given.list.iter().map(|placed| link(placed, origin)).collect())
        });
        links.collect()
    }

    /// Notes every filter that cannot stand where it does, as far as the kinds of the quantities are known. `at` is
    /// where the sensor's name stands.
    pub(super) fn check(
        &self,
        sensor: &str,
        at: &Range<usize>,
        driver: &'static Driver,
        pipeline: &PipelineConfig,
        problems: &Problems,
    ) {
        for KnownQuantity { name, kind, unit } in known_quantities(driver, pipeline) {
            match pipeline.published(&name, kind.unwrap_or(Kind::Number), kind.is_some(), unit) {
                Err(misfit) => problems.push(self.misfit(&name, &misfit, sensor, at, pipeline)),
                Ok(published) => {
                    for part in published.quantities.iter().filter(|_| !published.parts.is_empty()) {
                        if let Err(why) = read::check_name(&part.name) {
                            let message =
                                format!("`{}`, which `aggregate` makes of `{name}` of {sensor}, {why}", part.name);
                            let problem = Problem::new(at.clone(), message);
                            problems.push(problem.help("give the quantity another name with `as`"));
                        }
                    }
                }
            }
        }
    }

    fn misfit(
        &self,
        quantity: &str,
        misfit: &Misfit,
        sensor: &str,
        at: &Range<usize>,
        pipeline: &PipelineConfig,
    ) -> Problem {
        let chain = pipeline.chain(quantity);
        let links = chain.links();
        let name = pipeline.name(quantity);
        let Some(link) = links.get(misfit.link) else { return Problem::new(at.clone(), misfit.why.clone()) };
        if let Origin::Key(key) = link.origin {
            let message = format!("`{key}` for `{name}` of {sensor} {}", misfit.why);
            return Problem::new(at.clone(), message)
                .help("leave it out, or put the filter into `filters` where it fits");
        }
        let before = links.iter().take_while(|link| matches!(link.origin, Origin::Key(_))).count();
        let place = self.lists.get(name).and_then(|(given, _)| given.list.get(misfit.link - before));
        let message = format!("the filter `{}` for `{name}` of {sensor} {}", link.name, misfit.why);
        let problem = Problem::new(place.map_or_else(|| at.clone(), |placed| placed.at.clone()), message);
        match link.origin {
            Origin::Room(_) => problem
                .related(at.clone(), "this sensor")
                .help(format!("give the sensor its own: filters = {{ {name} = [] }}")),
            _ => problem,
        }
    }
}

/// A quantity of a sensor that is known before the sensor is read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownQuantity {
    /// The driver's or the device's name for it.
    pub name: String,
    /// How its values are treated, if that is known.
    pub kind: Option<Kind>,
    /// The unit that the driver declares.
    pub unit: Option<&'static str>,
}

/// The quantities that the driver declares, in its order, and then those that the configuration names besides.
pub(super) fn known_quantities(driver: &'static Driver, pipeline: &PipelineConfig) -> Vec<KnownQuantity> {
    let of = |name: &str| {
        let own = pipeline.quantities.get(name);
        let source = own.and_then(|own| own.of.as_deref()).unwrap_or(name);
        let declared = driver.quantities.iter().find(|quantity| quantity.name == source);
        let kind = own.and_then(|own| own.kind).or(declared.map(|declared| declared.kind));
        KnownQuantity { name: name.to_owned(), kind, unit: declared.and_then(|declared| declared.unit) }
    };
    let mut known: Vec<KnownQuantity> = driver.quantities.iter().map(|quantity| of(quantity.name)).collect();
    for name in pipeline.quantities.keys() {
        if known.iter().all(|quantity| quantity.name != *name) {
            known.push(of(name));
        }
    }
    // These go by published names. What a room says of a quantity does not mean that a sensor has it.
    let of_sensor = pipeline.filters.iter().filter(|(_, links)| links.iter().any(|link| link.origin == Origin::Sensor));
    for name in of_sensor.map(|(name, _)| name).chain(pipeline.change.keys()) {
        if known.iter().all(|quantity| pipeline.name(&quantity.name) != name) {
            known.push(KnownQuantity { name: name.clone(), kind: None, unit: None });
        }
    }
    known
}
