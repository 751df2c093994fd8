//! Topic aliases (MQTT 5, 3.3.2.3.4): a number of two bytes for a topic that was sent before on this connection.

use std::collections::HashMap;

use super::packet::Alias;

/// No more topics than this get an alias, whatever the broker allows: what is kept for them stays below some 100 KiB.
pub const MAX_ALIASES: u16 = 1_024;

/// An alias takes three bytes, so that it gains nothing for a topic that is no longer.
const COST: usize = 3;

/// The aliases of one connection: first come, first served.
#[derive(Debug, Default)]
pub struct Aliases {
    allowed: u16,
    numbers: HashMap<Box<str>, u16>,
}

impl Aliases {
    /// None yet; the broker allows so many.
    #[must_use]
    pub fn new(allowed: u16) -> Self {
        Self { allowed: allowed.min(MAX_ALIASES), numbers: HashMap::new() }
    }

    /// The alias to send a topic with, if it has one or may get one.
    #[must_use]
    pub fn get(&self, topic: &str) -> Option<Alias> {
        if self.allowed == 0 || topic.len() <= COST {
            return None;
        }
        if let Some(&number) = self.numbers.get(topic) {
            return Some(Alias { number, known: true });
        }
        let number = u16::try_from(self.numbers.len() + 1).ok().filter(|number| *number <= self.allowed)?;
        Some(Alias { number, known: false })
    }

    /// The topic was encoded with the alias that [`get`](Self::get) gave, so that it can be left out from now on.
    pub fn sent(&mut self, topic: &str, alias: Alias) {
        if !alias.known {
            self.numbers.insert(topic.into(), alias.number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut aliases = Aliases::new(2);
        for (topic, number) in [("a/bc", 1), ("a/bd", 2)] {
            let alias = aliases.get(topic).expect("there is room");
            assert_eq!(alias, Alias { number, known: false });
            assert_eq!(aliases.get(topic), Some(alias), "not sent yet: it may have been refused");
            aliases.sent(topic, alias);
            assert_eq!(aliases.get(topic), Some(Alias { number, known: true }));
        }
        assert_eq!((aliases.get("a/be"), aliases.get("a/b")), (None, None), "no room; nothing to gain");
        assert_eq!(Aliases::new(0).get("a/bc"), None);
    }

    #[test]
    fn there_is_a_bound_of_ours() {
        let mut aliases = Aliases::new(u16::MAX);
        let given = (0..2_000).filter_map(|number| {
            let topic = format!("topic/{number}");
            aliases.get(&topic).inspect(|alias| aliases.sent(&topic, *alias))
        });
        assert_eq!(given.count(), usize::from(MAX_ALIASES));
    }
}
