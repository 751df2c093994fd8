//! What configurations call the quantities that a device names.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::agent::sensors::Facts;

/// By the device's name, that under which a quantity is published instead (`as`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Names(BTreeMap<String, String>);

impl Names {
    /// Those of a configuration.
    pub(super) fn of(facts: &Facts) -> Self {
        let quantities = facts.pipeline.quantities.iter();
        Self(quantities.filter_map(|(name, own)| Some((name.clone(), own.rename.clone()?))).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names that a quantity may have had until now, and none has with this configuration.
    pub(super) fn former<'n>(&'n self, now: &'n Facts) -> impl Iterator<Item = &'n str> {
        let own = now.pipeline.quantities.keys().map(|name| (name, name));
        let before = self.0.iter().chain(own);
        let is_former = |(device, name): &(&String, &String)| {
            now.pipeline.name(device) != *name && now.known.quantities.iter().all(|other| *other.name != **name)
        };
        before.filter(is_former).map(|(_, name)| name.as_str())
    }
}
