//! What comes of a reload.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a reload ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reloaded {
    /// The agent runs on the new configuration.
    Done(Box<Changes>),
    /// The new configuration is wrong, and nothing has changed: the report.
    Wrong(String),
    /// These keys hold from the start to the end of the agent, and nothing has changed.
    NeedsRestart(Vec<String>),
    /// It was not possible, and why.
    Failed(String),
}

/// What a reload has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// Hash of the configuration before and after.
    pub configuration: (String, String),
    /// What works, but not as well as it could: a report.
    pub warnings: Option<String>,
    /// Sensors.
    pub sensors: Changed,
    /// Uplinks.
    pub uplinks: Changed,
}

/// Names of what was touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Those that are new.
    pub added: Vec<String>,
    /// Those that are there no more.
    pub removed: Vec<String>,
    /// Sensors whose device is opened anew; uplinks that connect anew.
    pub anew: Vec<String>,
    /// Sensors of which something else has changed: their devices stay open.
    pub changed: Vec<String>,
    /// How many go on untouched.
    pub untouched: usize,
}

impl Changed {
    /// For people: `added: a, b; removed: c; 17 untouched`.
    fn text(&self, anew: &str) -> String {
        let lists =
            [("added", &self.added), ("removed", &self.removed), (anew, &self.anew), ("changed", &self.changed)];
        let named = lists.into_iter().filter(|(_, names)| !names.is_empty());
        let mut parts: Vec<String> = named.map(|(what, names)| format!("{what}: {}", names.join(", "))).collect();
        parts.push(format!("{} untouched", self.untouched));
        parts.join("; ")
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sensors, uplinks) = (self.sensors.text("opened anew"), self.uplinks.text("connected anew"));
        write!(f, "sensors: {sensors}. Uplinks: {uplinks}")
    }
}

/// Why a reload was refused, for people.
#[must_use]
pub fn needs_restart(keys: &[String]) -> String {
    format!(
        "nothing has changed: the new configuration needs a restart (`systemctl restart vigie`), because of {}",
        keys.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_is_said_by_name() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let sensors = Changed { added: names(&["a", "b"]), anew: names(&["c"]), untouched: 17, ..Changed::default() };
        let changes =
            Changes { sensors, uplinks: Changed { untouched: 1, ..Changed::default() }, ..Changes::default() };
        assert_eq!(changes.to_string(), "sensors: added: a, b; opened anew: c; 17 untouched. Uplinks: 1 untouched");
    }
}
