//! What is published of a quantity: the chain of its filters, and what comes out of them.

use super::chain::{Chain, Link, Misfit};
use super::filter::{self, Part, Shape};
use super::{PipelineConfig, QuantityConfig};
use crate::reading::{Kind, Quantity};

/// What is published of a quantity.
#[derive(Clone, Debug)]
pub struct Published {
    /// How the measured values are treated: what goes into the filters.
    pub kind: Kind,
    /// Its filters.
    pub chain: Chain,
    /// What comes out of them: one quantity, or the parts of one.
    pub quantities: Vec<Quantity>,
    /// The parts; empty where the quantity is not divided.
    pub parts: Vec<Part>,
}

impl PipelineConfig {
    /// The name under which a quantity of the driver is published, unless a filter divides it.
    #[must_use]
    pub fn name<'n>(&'n self, quantity: &'n str) -> &'n str {
        self.quantities.get(quantity).and_then(|own| own.rename.as_deref()).unwrap_or(quantity)
    }

    /// The filters of a quantity by the driver's name, in the order in which they work: `multiply`, `offset`, those in
    /// `filters`, `round`, `change` with `heartbeat`.
    #[must_use]
    pub fn chain(&self, quantity: &str) -> Chain {
        let nothing = QuantityConfig::default();
        let own = self.quantities.get(quantity).unwrap_or(&nothing);
        let name = self.name(quantity);
        let multiply = own.multiply.map(|by| Link::of_key("multiply", "multiply", filter::multiply(by)));
        let offset = own.offset.map(|by| Link::of_key("offset", "offset", filter::offset(by)));
        let round = own.round.map(|digits| Link::of_key("round", "round", filter::digits(digits)));
        let change = self.change.get(name);
        let change = change.map(|band| Link::of_key("delta", "change", filter::delta(*band, self.heartbeat)));
        let given = self.filters.get(name).into_iter().flatten().cloned();
        Chain::new(multiply.into_iter().chain(offset).chain(given).chain(round).chain(change).collect())
    }

    /// What is published of a quantity by the driver's name. `kind` and `unit` are what the driver says of it, or the
    /// device; `certain`: the driver declares the kind, it is no guess from a first value.
    ///
    /// # Errors
    /// A filter that cannot stand where it does.
    pub fn published(
        &self,
        quantity: &str,
        kind: Kind,
        certain: bool,
        unit: Option<&str>,
    ) -> Result<Published, Misfit> {
        let nothing = QuantityConfig::default();
        let own = self.quantities.get(quantity).unwrap_or(&nothing);
        let chain = match own.kind.unwrap_or(kind) {
            // Of a device that names its quantities, it may only show now that one is an event.
            Kind::Event => self.chain(quantity).without_key("change"),
            _ => self.chain(quantity),
        };
        let source = own.of.as_ref().and_then(|source| self.quantities.get(source)).unwrap_or(own);
        let unit = source.measured_unit.as_deref().or(unit);
        let input = |kind| Shape { kind, unit: unit.map(Into::into), parts: Vec::new() };
        let guessed = own.kind.is_none() && !certain && kind != Kind::Event;
        let kind = own.kind.unwrap_or(kind);
        let (kind, shape) = match chain.shape(input(kind)) {
            // A device's first value may be a text for want of a number; filters for numbers say what it is meant to be.
            Err(misfit) if guessed => (Kind::Number, chain.shape(input(Kind::Number)).map_err(|_| misfit)?),
            shape => (kind, shape?),
        };
        let name = self.name(quantity);
        let given = own.unit.as_deref().map(Into::into);
        let undivided = Quantity {
            name: name.into(),
            unit: given.or(shape.unit),
            kind: shape.kind,
            topic: own.topic.as_deref().map(Into::into),
            content_type: None,
        };
        let part = |part: &Part| Quantity {
            name: format!("{name}_{}", part.name()).into(),
            unit: undivided.unit.clone().filter(|_| *part != Part::Count),
            topic: undivided.topic.as_ref().map(|topic| format!("{topic}_{}", part.name()).into()),
            ..undivided.clone()
        };
        let parts: Vec<Quantity> = shape.parts.iter().map(part).collect();
        let quantities = if parts.is_empty() { vec![undivided] } else { parts };
        Ok(Published { kind, chain, quantities, parts: shape.parts })
    }
}
