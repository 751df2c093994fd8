//! `discovery`: sensors are announced to a home automation.

use super::{Format, UplinkConfig};
use crate::options::{Options, Problem, Problems};
use crate::topic;

/// `discovery_prefix` where it is not given: Home Assistant's own default.
const DEFAULT_PREFIX: &str = "homeassistant";

/// `discovery = true`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// First levels of the topics on which sensors are announced.
    pub prefix: String,
}

impl Discovery {
    /// Where the home automation says that it has started.
    #[must_use]
    pub fn birth_topic(&self) -> String {
        format!("{}/status", self.prefix)
    }

    /// Where a device with this identifier is announced.
    #[must_use]
    pub fn device_topic(&self, id: &str) -> String {
        format!("{}/device/{id}/config", self.prefix)
    }
}

/// `discovery` and `discovery_prefix`
pub(super) fn discovery(options: &Options<'_>) -> Option<Discovery> {
    let is_on = options.optional("discovery").unwrap_or(false);
    let prefix = options.optional::<String>("discovery_prefix");
    if let Some(why) = prefix.as_deref().and_then(|prefix| topic::check(prefix).err()) {
        options.problem(
            "discovery_prefix",
            format!("`discovery_prefix` of {} {why}", options.what()),
            Some(format!("expected the prefix that Home Assistant is set to, such as \"{DEFAULT_PREFIX}\"")),
        );
    }
    if prefix.is_some() && !is_on {
        options.problem_with_help(
            "discovery_prefix",
            format!("{} has `discovery_prefix` without `discovery`", options.what()),
            None,
            Some("add discovery = true, or take it out".to_owned()),
        );
    }
    is_on.then(|| Discovery { prefix: prefix.unwrap_or_else(|| DEFAULT_PREFIX.to_owned()) })
}

/// What discovery needs of the uplink it is on.
pub(super) fn check(uplink: &UplinkConfig, at: &std::ops::Range<usize>, problems: &Problems) {
    let form = uplink.payload.format;
    if uplink.discovery.is_some() && !matches!(form, Format::Json | Format::Value) {
        let message = format!(
            "[uplink.{}] has `discovery` with format = \"{}\", which Home Assistant cannot be told to read",
            uplink.name,
            form.info().name
        );
        problems.push(Problem::new(at.clone(), message).help("take `format` out, or write format = \"value\""));
    }
    if uplink.discovery.is_some() && !uplink.state {
        let message = format!("[uplink.{}] has `discovery` without `state`", uplink.name);
        problems.push(Problem::new(at.clone(), message).help(
            "take out state = false: what is announced is state, and its availability is looked for on the topics of it",
        ));
    }
}
