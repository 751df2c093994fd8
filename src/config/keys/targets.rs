//! The keys of an uplink that have to do with the system at the other end.

use super::key;
use crate::drivers::OptionInfo;

/// `preset`
pub(super) const PRESET: OptionInfo = key(
    "preset",
    "name of a target",
    Some("none"),
    "Sets what a certain system wants, as [targets](targets.md) lists it; a key that is given beside it wins.",
);

/// `shared_access_key`
pub(super) const SHARED_ACCESS_KEY: OptionInfo = key(
    "shared_access_key",
    "table, see [password](#password)",
    Some("none"),
    "Where a device's key at Azure is read from. The password is signed with it, anew for each connection; a connection \
     is made anew before its signature expires. As that takes the time, nothing connects while the clock is not set.",
);

/// `signature_lifetime`
pub(super) const SIGNATURE_LIFETIME: OptionInfo = key(
    "signature_lifetime",
    "duration, `\"5m\"` to `\"30d\"`",
    Some("`\"1h\"`"),
    "How long such a signature holds. The connection is made anew when four fifths of it are over.",
);

/// `state`
pub(super) const STATE: OptionInfo = key(
    "state",
    "true or false",
    Some("true"),
    "Are availability (as the will, too), information about the gateway and gaps published? They are always retained. \
     Not for systems that take readings only.",
);

/// `discovery`
pub(super) const DISCOVERY: OptionInfo = key(
    "discovery",
    "true or false",
    Some("false"),
    "Announces the sensors, their quantities and their availability to Home Assistant, so that they appear there by \
     themselves; see [targets](targets.md).",
);

/// `discovery_prefix`
pub(super) const DISCOVERY_PREFIX: OptionInfo = key(
    "discovery_prefix",
    "topic",
    Some("`\"homeassistant\"`"),
    "First levels of the topics on which they are announced, as Home Assistant is set to.",
);
