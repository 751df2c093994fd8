//! The filters of a quantity, one behind the other.

use std::fmt;
use std::time::Duration;

use super::filter::{Due, Filter, Part, Shape, Step, Why};
use crate::clock::BootTime;
use crate::reading::{Kind, Value};

/// Where a filter was configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `filters` of the quantity itself.
    Quantity,
    /// `filters` of the sensor.
    Sensor,
    /// `filters` of the room with that name.
    Room(String),
    /// A key that is the short form of a filter.
    Key(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quantity => f.write_str("filters of the quantity"),
            Self::Sensor => f.write_str("filters of the sensor"),
            Self::Room(name) => write!(f, "filters of [room.{name}]"),
            Self::Key(key) => write!(f, "the key `{key}`"),
        }
    }
}

/// A filter in its place.
#[derive(Clone, Debug)]
pub struct Link {
    /// The filter's name.
    pub name: &'static str,
    /// The filter.
    pub filter: Box<dyn Filter>,
    /// Where it was configured.
    pub origin: Origin,
}

impl Link {
    /// A filter that a key stands for.
    #[must_use]
    pub fn of_key(name: &'static str, key: &'static str, filter: Box<dyn Filter>) -> Self {
        Self { name, filter, origin: Origin::Key(key) }
    }
}

impl PartialEq for Link {
    /// They do the same, wherever they were configured.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl fmt::Display for Link {
    /// As in TOML.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.name, self.filter.settings())
    }
}

/// A filter that cannot stand where it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Which of the chain.
    pub link: usize,
    /// Why, as the rest of a sentence that begins with its name.
    pub why: String,
}

/// What became of a value.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// This is to be published.
    Passed(Value),
    /// That filter holds it back.
    Held(usize, Why),
    /// That filter cannot use it.
    Rejected(usize, String),
}

/// What a chain did by itself when time had passed.
#[derive(Debug, PartialEq)]
pub(super) enum Released {
    /// This is to be published, as measured at that time.
    Values(BootTime, Vec<(Option<Part>, Value)>),
    /// A filter let this go, but a later one holds it back.
    Held(BootTime, Value, usize, Why),
    /// A filter let something go that a later one cannot use.
    Rejected(usize, String),
    /// That filter misses values.
    Absent(usize, String),
}

/// Filters in the order in which they work.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    links: Vec<Link>,
}

impl Chain {
    /// Of these filters.
    #[must_use]
    pub fn new(links: Vec<Link>) -> Self {
        Self { links }
    }

    /// Its filters.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// The longest time between two values that come out while the sensor works, where that is certain. `input`: the same
    /// of the values that go in.
    #[must_use]
    pub fn pace(&self, input: Option<Duration>) -> Option<Duration> {
        self.links.iter().fold(input, |pace, link| link.filter.pace(pace))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    /// The same without the filter that a key stands for.
    pub(super) fn without_key(mut self, key: &str) -> Self {
        self.links.retain(|link| !matches!(link.origin, Origin::Key(own) if own == key));
        self
    }

    /// Leaves only the filters that change each value by itself and hold none back.
    pub(super) fn retain_maps(&mut self) {
        self.links.retain(|link| link.filter.is_map());
    }

    /// What comes out where that goes in.
    ///
    /// # Errors
    /// The first filter that cannot stand where it does.
    pub fn shape(&self, input: Shape) -> Result<Shape, Misfit> {
        let mut shape = input;
        for (link, Link { filter, .. }) in self.links.iter().enumerate() {
            let why = if filter.is_map() {
                None
            } else if shape.kind == Kind::Event {
                Some("holds values back or remembers them, but this is an event: each is published")
            } else if shape.parts.is_empty() {
                None
            } else {
                Some("stands behind `aggregate`: there, only filters may that change each value by itself")
            };
            shape = match why {
                Some(why) => Err(why.to_owned()),
                None => filter.shape(shape),
            }
            .map_err(|why| Misfit { link, why })?;
        }
        Ok(shape)
    }

    /// Takes a value. Whatever was due by then must have been released.
    pub(super) fn take(&mut self, value: Value, at: BootTime) -> Taken {
        self.from(0, value, at)
    }

    fn from(&mut self, first: usize, mut value: Value, at: BootTime) -> Taken {
        for (index, link) in self.links.iter_mut().enumerate().skip(first) {
            value = match link.filter.take(value, at) {
                Step::Pass(value) => value,
                Step::Hold(why) => return Taken::Held(index, why),
                Step::Reject(why) => return Taken::Rejected(index, why),
            };
        }
        Taken::Passed(value)
    }

    /// When it wants to do something by itself.
    pub(super) fn next_due(&self) -> Option<BootTime> {
        self.links.iter().filter_map(|link| link.filter.next_due()).min()
    }

    /// Does what is due at `now`, in the order of the times at which it was due.
    pub(super) fn release(&mut self, now: BootTime, out: &mut Vec<Released>) {
        while let Some((due, index)) =
            self.links.iter().enumerate().filter_map(|(index, link)| Some((link.filter.next_due()?, index))).min()
            && due <= now
        {
            match self.links[index].filter.tick(now) {
                Due::Nothing => {}
                Due::Absent(why) => out.push(Released::Absent(index, why)),
                Due::Value(at, value) => {
                    let came = value.clone();
                    out.push(match self.from(index + 1, value, at) {
                        Taken::Passed(value) => Released::Values(at, vec![(None, value)]),
                        Taken::Held(link, why) => Released::Held(at, came, link, why),
                        Taken::Rejected(link, why) => Released::Rejected(link, why),
                    });
                }
                Due::Parts(at, parts) => {
                    let mut values = Vec::with_capacity(parts.len());
                    for (part, value) in parts {
                        if part == Part::Count {
                            values.push((Some(part), value));
                            continue;
                        }
                        match self.from(index + 1, value, at) {
                            Taken::Passed(value) => values.push((Some(part), value)),
                            // Only maps stand there, and they hold nothing back.
                            Taken::Held(..) => {}
                            Taken::Rejected(link, why) => out.push(Released::Rejected(link, why)),
                        }
                    }
                    out.push(Released::Values(at, values));
                }
            }
        }
    }

    /// Does one of its filters miss values?
    pub(super) fn misses(&self) -> bool {
        self.links.iter().any(|link| link.filter.misses())
    }

    /// The sensor had a fault.
    pub(super) fn interrupted(&mut self) {
        for link in &mut self.links {
            link.filter.interrupted();
        }
    }

    /// What its filters keep across restarts, each with a name of its own in the chain: `integral/0` is the first
    /// `integral`.
    pub(super) fn keep(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        self.named().filter_map(|(name, link)| Some((name, self.links[link].filter.keep()?)))
    }

    /// Goes on from what was kept under a name.
    pub(super) fn restore(&mut self, mut kept: impl FnMut(&str) -> Option<(Vec<u8>, bool)>) {
        let named: Vec<(String, usize)> = self.named().collect();
        for (name, link) in named {
            if let Some((state, same_boot)) = kept(&name) {
                self.links[link].filter.restore(&state, same_boot);
            }
        }
    }

    fn named(&self) -> impl Iterator<Item = (String, usize)> {
        self.links.iter().enumerate().map(|(index, link)| {
            let before = self.links[..index].iter().filter(|other| other.name == link.name).count();
            (format!("{}/{before}", link.name), index)
        })
    }
}
