//! One sensor's way through the pipeline.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::chain::{Chain, Released, Taken};
use super::filter::Part;
use super::frozen::{self, Stillness};
use super::{
    Declared, GARBLED_IN_A_ROW, Health, Held, Late, MAX_KEPT_FILTERS, MAX_QUANTITIES, Outcome, PipelineConfig, convert,
};
use crate::clock::BootTime;
use crate::reading::{Descriptor, Fault, FaultCode, Kind, Sample, Value, Values};

#[derive(Debug)]
pub(super) struct Sensor {
    descriptor: Arc<Descriptor>,
    declared: Vec<Declared>,
    config: Arc<PipelineConfig>,
    /// One for each quantity of the driver.
    slots: Vec<Slot>,
    by_name: HashMap<Box<str>, u16>,
    /// Quantities that take the values of one of the driver's, by that one's name.
    derived: BTreeMap<String, Vec<String>>,
    /// `None` until the first observation.
    health: Option<Health>,
    garbled: u32,
    stillness: Stillness,
    /// Some quantity has filters that do more than change each value by itself.
    remembers: bool,
    /// When the first of the filters wants to do something by itself.
    due: Option<BootTime>,
    /// What filters keep, by quantity and filter; of those that have not been seen yet, from an earlier run.
    kept: Kept,
    same_boot: bool,
    /// Filters that hold back or remember are left out.
    only_looks: bool,
}

/// What filters keep across restarts: `QUANTITY/FILTER/NUMBER` and the filter's bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept(BTreeMap<Box<str>, Vec<u8>>);

#[derive(Debug)]
struct Slot {
    /// The driver's name.
    name: Box<str>,
    /// Of what goes into the filters.
    kind: Kind,
    /// Index of what is published of it in the descriptor; of its first part.
    first: u16,
    /// Its parts, where it is divided.
    parts: Vec<Part>,
    chain: Chain,
    /// What a filter that misses values said.
    absent: Option<String>,
    /// Why none of its values can be used: a filter does not fit them.
    unusable: Option<String>,
    /// Filters of it keep something.
    keeps: bool,
}

impl Sensor {
    pub(super) fn new(
        descriptor: Descriptor,
        declared: Vec<Declared>,
        config: Arc<PipelineConfig>,
        only_looks: bool,
    ) -> Self {
        let mut derived: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, own) in &config.quantities {
            if let Some(source) = &own.of {
                derived.entry(source.clone()).or_default().push(name.clone());
            }
        }
        Self {
            descriptor: Arc::new(descriptor),
            declared,
            config,
            slots: Vec::new(),
            by_name: HashMap::new(),
            derived,
            health: None,
            garbled: 0,
            stillness: Stillness::default(),
            remembers: false,
            due: None,
            kept: Kept::default(),
            same_boot: false,
            only_looks,
        }
    }

    pub(super) fn descriptor(&self) -> &Arc<Descriptor> {
        &self.descriptor
    }

    pub(super) fn health(&self) -> Option<&Health> {
        self.health.as_ref()
    }

    /// As another one that it takes the place of: what is known of its health is no news.
    pub(super) fn with_health_of(self, other: &Self) -> Self {
        Self { health: other.health.clone(), ..self }
    }

    /// The same sensor under other names; `descriptor` has no quantities.
    pub(super) fn describe(&mut self, descriptor: &Descriptor) {
        let quantities = self.descriptor.quantities.clone();
        let described = Descriptor { quantities, ..descriptor.clone() };
        // Whoever compares pointers sees that nothing is new.
        if described != *self.descriptor {
            self.descriptor = Arc::new(described);
        }
    }

    pub(super) fn next_due(&self) -> Option<BootTime> {
        self.due
    }

    pub(super) fn restore(&mut self, kept: &[u8], same_boot: bool) {
        self.kept = postcard::from_bytes(kept).unwrap_or_default();
        self.same_boot = same_boot;
    }

    pub(super) fn samples(&mut self, samples: Vec<Sample>, at: BootTime, explain: bool) -> Outcome {
        let mut outcome = Outcome::default();
        self.release(at, explain, &mut outcome);
        let frozen = self.frozen(&samples, at);
        if frozen.is_some() {
            self.interrupted();
        }
        self.garbled = 0;
        let mut values = Vec::with_capacity(samples.len());
        for (position, sample) in samples.into_iter().enumerate() {
            // A frozen number is not published; a button of the same device is.
            if frozen.is_some() && frozen::counts(&sample) {
                continue;
            }
            // Most sensors have none.
            let derived = if self.derived.is_empty() { Vec::new() } else { self.derive(&sample) };
            let all = std::iter::once((position, sample)).chain(derived.into_iter().map(|sample| (usize::MAX, sample)));
            for (position, sample) in all {
                let name = sample.quantity.clone();
                match self.sample(position, sample, at, explain, &mut outcome) {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => {}
                    Err(reason) => outcome.rejected.push(format!("{name}: {reason}")),
                }
            }
        }
        if !values.is_empty() {
            outcome.reading = Some((self.descriptor.clone(), values));
        }
        let health = match frozen {
            Some(still) => Health::Fault(frozen::fault(still)),
            None => self.health_of_values(),
        };
        outcome.health = self.turns(health).or(outcome.health);
        self.after(&mut outcome);
        outcome
    }

    /// The same sample for each quantity that takes its values.
    fn derive(&self, sample: &Sample) -> Vec<Sample> {
        let names = self.derived.get(&*sample.quantity).into_iter().flatten();
        names.map(|name| Sample { quantity: name.clone().into(), ..sample.clone() }).collect()
    }

    /// For how long the numbers have stood still, if that is too long.
    fn frozen(&mut self, samples: &[Sample], at: BootTime) -> Option<Duration> {
        let limit = self.config.frozen_after?;
        Some(self.stillness.observe(samples, at)).filter(|still| *still >= limit)
    }

    /// What comes next is news, however little it differs from what was before.
    fn interrupted(&mut self) {
        for slot in &mut self.slots {
            slot.chain.interrupted();
        }
    }

    /// The sensor gives values: is one missing all the same?
    fn health_of_values(&self) -> Health {
        match self.slots.iter().find_map(|slot| Some((slot, slot.absent.as_ref()?))) {
            None => Health::Online,
            Some((slot, why)) => {
                let detail = format!("{}: {why}", self.config.name(&slot.name));
                Health::Fault(Fault::new(FaultCode::Silent, detail))
            }
        }
    }

    /// The value to publish, with its quantity's index; `None` where a filter holds it back.
    fn sample(
        &mut self,
        position: usize,
        sample: Sample,
        at: BootTime,
        explain: bool,
        outcome: &mut Outcome,
    ) -> Result<Option<(u16, Value)>, String> {
        let index = self.slot(position, &sample, at, explain, outcome)?;
        if let Some(why) = &self.slots[index].unusable {
            return Err(why.clone());
        }
        self.note_content_type(index, &sample);
        let slot = &mut self.slots[index];
        let value = convert::to_kind(sample.value, slot.kind)?;
        if slot.chain.is_empty() {
            return Ok(Some((slot.first, value)));
        }
        let came = explain.then(|| value.clone());
        let taken = slot.chain.take(value, at);
        if slot.absent.is_some() && !slot.chain.misses() {
            slot.absent = None;
        }
        match taken {
            Taken::Passed(value) => Ok(Some((slot.first, value))),
            Taken::Held(link, why) => {
                if let Some(value) = came {
                    let (quantity, by) = (self.config.name(&slot.name).to_owned(), by(&slot.chain, link));
                    outcome.held.push(Held { at, quantity, value, by, why: why.to_string() });
                }
                Ok(None)
            }
            Taken::Rejected(link, why) => Err(format!("{}: {why}", by(&slot.chain, link))),
        }
    }

    /// Finds the sample's quantity, or makes it. Devices send the same quantities in the same order, so the position
    /// is tried first.
    fn slot(
        &mut self,
        position: usize,
        sample: &Sample,
        at: BootTime,
        explain: bool,
        outcome: &mut Outcome,
    ) -> Result<usize, String> {
        if self.slots.get(position).is_some_and(|slot| *slot.name == *sample.quantity) {
            return Ok(position);
        }
        if let Some(index) = self.by_name.get(&*sample.quantity) {
            return Ok(usize::from(*index));
        }
        let index = self.new_slot(sample)?;
        if !self.kept.0.is_empty() {
            self.restore_slot(index);
            // A window of an earlier run may have ended before this value.
            self.release_slot(index, at, explain, outcome);
        }
        Ok(index)
    }

    fn new_slot(&mut self, sample: &Sample) -> Result<usize, String> {
        const FULL: &str = "the sensor already has as many quantities as it may have";
        let name: Box<str> = sample.quantity.as_ref().into();
        let source = self.config.quantities.get(&*name).and_then(|own| own.of.as_deref()).unwrap_or(&name);
        let declared = self.declared.iter().find(|declared| declared.name == source);
        let kind = declared.map_or_else(|| kind_of(sample), |declared| declared.kind);
        let unit = declared.and_then(|declared| declared.unit).or(sample.unit.as_deref());
        if self.slots.len() >= MAX_QUANTITIES {
            return Err(format!("{FULL} ({MAX_QUANTITIES})"));
        }
        let first = self.descriptor.quantities.len();
        let mut slot = Slot {
            name: name.clone(),
            kind,
            first: u16::try_from(first).expect("at most MAX_QUANTITIES"),
            parts: Vec::new(),
            chain: Chain::default(),
            absent: None,
            unusable: None,
            keeps: false,
        };
        match self.config.published(&name, kind, declared.is_some(), unit) {
            Ok(published) => {
                if first + published.quantities.len() > MAX_QUANTITIES {
                    return Err(format!("{FULL} ({MAX_QUANTITIES})"));
                }
                slot.kind = published.kind;
                slot.chain = published.chain;
                slot.parts = published.parts;
                let mut quantities = published.quantities;
                if self.only_looks {
                    slot.chain.retain_maps();
                    if !slot.parts.is_empty() {
                        slot.parts.clear();
                        quantities.truncate(1);
                        quantities[0].name = self.config.name(&name).into();
                    }
                }
                quantities[0].content_type.clone_from(&sample.content_type);
                self.remembers |= slot.chain.links().iter().any(|link| !link.filter.is_map());
                slot.keeps = slot.chain.keep().next().is_some();
                let mut descriptor = Descriptor::clone(&self.descriptor);
                descriptor.quantities.append(&mut quantities);
                self.descriptor = Arc::new(descriptor);
            }
            Err(misfit) => {
                let by = by(&self.config.chain(&name), misfit.link);
                slot.unusable = Some(format!("{by} {}", misfit.why));
            }
        }
        let index = self.slots.len();
        self.by_name.insert(name, u16::try_from(index).expect("at most MAX_QUANTITIES"));
        self.slots.push(slot);
        Ok(index)
    }

    fn restore_slot(&mut self, index: usize) {
        let (slot, kept, same_boot) = (&mut self.slots[index], &self.kept.0, self.same_boot);
        slot.chain.restore(|filter| Some((kept.get(&*key(&slot.name, filter))?.clone(), same_boot)));
    }

    /// A quantity's bytes may become another type of bytes; from then on the sensor has another descriptor.
    fn note_content_type(&mut self, index: usize, sample: &Sample) {
        if sample.content_type.is_none() {
            return;
        }
        let index = usize::from(self.slots[index].first);
        let Some(quantity) = self.descriptor.quantities.get(index) else { return };
        if sample.content_type != quantity.content_type {
            let mut descriptor = Descriptor::clone(&self.descriptor);
            descriptor.quantities[index].content_type.clone_from(&sample.content_type);
            self.descriptor = Arc::new(descriptor);
        }
    }

    pub(super) fn tick(&mut self, now: BootTime, explain: bool) -> Outcome {
        let mut outcome = Outcome::default();
        self.release(now, explain, &mut outcome);
        self.after(&mut outcome);
        outcome
    }

    /// Does what filters want to do by themselves at `now`.
    fn release(&mut self, now: BootTime, explain: bool, outcome: &mut Outcome) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        for index in 0..self.slots.len() {
            self.release_slot(index, now, explain, outcome);
        }
        // Values of several quantities that were measured together, or whose windows end together, go together.
        outcome.late.sort_by_key(|late| late.at);
        outcome.late.dedup_by(|later, earlier| {
            let together = later.at == earlier.at && disjoint(&earlier.values, &later.values);
            if together {
                earlier.values.append(&mut later.values);
            }
            together
        });
        // While it has another fault, that one is the news.
        if matches!(self.health, Some(Health::Online)) {
            let health = self.health_of_values();
            outcome.health = self.turns(health);
        }
    }

    fn release_slot(&mut self, index: usize, now: BootTime, explain: bool, outcome: &mut Outcome) {
        let slot = &mut self.slots[index];
        let mut released = Vec::new();
        slot.chain.release(now, &mut released);
        let name = self.config.name(&slot.name);
        for event in released {
            match event {
                Released::Values(at, values) => {
                    let place = |part: Option<Part>| slot.parts.iter().position(|other| Some(*other) == part);
                    let index = |part| slot.first + u16::try_from(place(part).unwrap_or_default()).unwrap_or_default();
                    let values: Values = values.into_iter().map(|(part, value)| (index(part), value)).collect();
                    if !values.is_empty() {
                        outcome.late.push(Late { at, descriptor: self.descriptor.clone(), values });
                    }
                }
                Released::Held(at, value, link, why) if explain => {
                    let (quantity, by) = (name.to_owned(), by(&slot.chain, link));
                    outcome.held.push(Held { at, quantity, value, by, why: why.to_string() });
                }
                Released::Held(..) => {}
                Released::Rejected(link, why) => {
                    outcome.rejected.push(format!("{name}: {}: {why}", by(&slot.chain, link)));
                }
                Released::Absent(link, why) => {
                    let filter = slot.chain.links().get(link).map(ToString::to_string).unwrap_or_default();
                    slot.absent = Some(format!("{why} ({filter})"));
                }
            }
        }
    }

    /// What must be known after anything went through the filters: when they want to do something by themselves, and
    /// what they keep.
    fn after(&mut self, outcome: &mut Outcome) {
        if !self.remembers {
            return;
        }
        self.due = self.slots.iter().filter_map(|slot| slot.chain.next_due()).min();
        let mut changed = false;
        for slot in self.slots.iter().filter(|slot| slot.keeps) {
            for (filter, state) in slot.chain.keep() {
                let key = key(&slot.name, &filter);
                if self.kept.0.get(&*key) != Some(&state) {
                    self.kept.0.insert(key, state);
                    changed = true;
                }
            }
        }
        if changed {
            self.forget_strangers();
            outcome.keep = postcard::to_allocvec(&self.kept).ok();
        }
    }

    /// Holds what is kept to its bound. What no filter has asked for goes first.
    fn forget_strangers(&mut self) {
        while self.kept.0.len() > MAX_KEPT_FILTERS {
            let known = |key: &str| {
                let quantity = key.rsplitn(3, '/').nth(2).unwrap_or_default();
                self.by_name.get(quantity).is_some_and(|slot| self.slots[usize::from(*slot)].keeps)
            };
            let stranger = self.kept.0.keys().find(|key| !known(key)).or(self.kept.0.keys().next_back()).cloned();
            let Some(key) = stranger else { return };
            self.kept.0.remove(&key);
        }
    }

    pub(super) fn fault(&mut self, fault: Fault, at: BootTime, explain: bool) -> Outcome {
        let mut outcome = Outcome::default();
        self.release(at, explain, &mut outcome);
        if fault.code.is_garbled() {
            self.garbled = self.garbled.saturating_add(1);
            if self.garbled < GARBLED_IN_A_ROW {
                outcome.rejected.push(fault.detail);
                self.after(&mut outcome);
                return outcome;
            }
        }
        self.interrupted();
        // Time in which nothing could be read says nothing about standing still.
        self.stillness = Stillness::default();
        outcome.health = self.turns(Health::Fault(fault)).or(outcome.health);
        self.after(&mut outcome);
        outcome
    }

    /// Notes the health; `Some` if it is another one than before. A fault with other words is the same fault.
    fn turns(&mut self, health: Health) -> Option<Health> {
        let same = match (&self.health, &health) {
            (Some(Health::Online), Health::Online) => true,
            (Some(Health::Fault(before)), Health::Fault(now)) => before.code == now.code,
            _ => false,
        };
        if same {
            return None;
        }
        self.health = Some(health.clone());
        Some(health)
    }
}

/// A filter for people: as in TOML, and where it was configured.
fn by(chain: &Chain, link: usize) -> String {
    chain.links().get(link).map_or_else(String::new, |link| format!("{link} ({})", link.origin))
}

/// What a filter of a quantity keeps is stored under this.
fn key(quantity: &str, filter: &str) -> Box<str> {
    format!("{quantity}/{filter}").into()
}

fn disjoint(a: &Values, b: &Values) -> bool {
    a.iter().all(|(index, _)| b.iter().all(|(other, _)| index != other))
}

/// What a quantity is that neither the driver nor the configuration speaks of: what its first value is.
fn kind_of(sample: &Sample) -> Kind {
    if sample.event {
        return Kind::Event;
    }
    match sample.value {
        Value::Number(_) => Kind::Number,
        Value::Switch(_) => Kind::Switch,
        Value::Text(_) => Kind::Text,
        Value::Bytes(_) => Kind::Bytes,
    }
}
