//! Every key of the configuration, for people: `docs/configuration.md` is made from this.
//!
//! The tests below hold that the readers ask for exactly these keys. The drivers describe theirs themselves.

use std::fmt::Write;

use crate::drivers::OptionInfo;

mod broker;
mod clock;
mod hardware;
mod lan;
mod outbox;
mod payload;
mod place;
mod privacy;
mod sensor;
mod sparkplug;
mod targets;
mod uplink;

use broker::{BROKER, BROKER_JWT, BROKER_LIMITS, BROKER_LISTENER, BROKER_USER, BROKER_WATCH, LISTENER_TLS};
use clock::CLOCK;
use hardware::{EXPANDER, HARDWARE, HARDWARE_FAULT, INTERRUPT, POWER};
use lan::{BROKER_DELIVER, BROKER_INGEST};
use outbox::{ARCHIVE, OUTBOX, OUTBOX_KEY};
use payload::{BATCH, PAYLOAD};
use place::LOCATION;
use privacy::{INTEGRITY, PRIVACY, RATE};
use sensor::{CHANGE, QUANTITY, ROOM, SENSOR};
use sparkplug::SPARKPLUG;
use uplink::{PASSWORD, PROXY, TLS, UPLINK};

/// A table of the configuration.
#[derive(Debug)]
pub struct Section {
    /// Its header as one writes it.
    pub title: &'static str,
    /// What it is for. Markdown.
    pub intro: &'static str,
    /// Its keys, in the order in which to show them.
    pub keys: &'static [OptionInfo],
}

const fn key(
    name: &'static str,
    values: &'static str,
    default: Option<&'static str>,
    help: &'static str,
) -> OptionInfo {
    OptionInfo { name, values, default, help }
}

/// `[gateway]`
static GATEWAY: Section = Section {
    title: "[gateway]",
    intro: "Who and where this gateway is, and on which topics it publishes.",
    keys: &[
        key("name", "name", Some("the host's name"), "Its level in topics."),
        key(
            "id",
            "text",
            Some("the board's serial number, else a hash of the machine id"),
            "Identity that survives renaming.",
        ),
        key("label", "text", Some("none"), "Name for people."),
        key("site", "name", Some("none"), "First level of the default topics."),
        key(
            "topic",
            "topic with `{gateway}` `{site}` `{room}` `{sensor}` `{quantity}` `{tag.NAME}`",
            Some("`\"{site}/{room}/{quantity}\"`"),
            "Where readings are published; a level that comes out empty is left out.",
        ),
        key("location", "table, see [location](#location)", Some("none"), "Where the gateway is."),
    ],
};

/// All tables, in the order in which to show them.
pub static SECTIONS: &[&Section] = &[
    &GATEWAY,
    &LOCATION,
    &CLOCK,
    &HARDWARE,
    &HARDWARE_FAULT,
    &EXPANDER,
    &INTERRUPT,
    &OUTBOX,
    &OUTBOX_KEY,
    &ARCHIVE,
    &UPLINK,
    &PAYLOAD,
    &BATCH,
    &SPARKPLUG,
    &PRIVACY,
    &RATE,
    &INTEGRITY,
    &PASSWORD,
    &TLS,
    &PROXY,
    &BROKER,
    &BROKER_LISTENER,
    &LISTENER_TLS,
    &BROKER_USER,
    &BROKER_JWT,
    &BROKER_WATCH,
    &BROKER_LIMITS,
    &BROKER_INGEST,
    &BROKER_DELIVER,
    &ROOM,
    &SENSOR,
    &POWER,
    &CHANGE,
    &QUANTITY,
];

const HEAD: &str = "\
# Configuration

<!-- Made from src/config/keys.rs by `UPDATE_DOCS=1 cargo test`: change it there. -->

One TOML file, `/etc/vigie/vigie.toml` on an installed gateway, with fragments beside it in `/etc/vigie/vigie.d/*.toml`,
read in the order of their names. Tables of several files merge and `[[sensor]]` lists add up, so that a room or a sensor
can have a file of its own; a key that is given in two files is an error. `vigie.d/host-NAME.toml` is read only on the host
that is called `NAME`, after all others: its sensors are added, and a key that it gives holds instead of theirs. Relative
paths start from the folder of `vigie.toml`.

`vigie check FILE` reports every error with its place, without touching any hardware, and says which fragments it has read;
`--host NAME` checks what holds on another host.

- A *name* becomes a level of topics: up to 128 bytes without `/`, `+`, `#`, braces and control characters, and not
  `availability`, `gaps`, `info` or `set`, which vigie keeps for itself. A *text* for people is free, up to 256 characters.
- A *duration* is a text such as `\"500ms\"`, `\"10s\"`, `\"5m\"` or `\"1h 30m\"`.
- A *size* is a number of bytes or a text such as `\"64MiB\"` or `\"1GB\"`.
";

/// `docs/configuration.md`
#[must_use]
pub fn docs() -> String {
    let mut text = HEAD.to_owned();
    for section in SECTIONS {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n## {}\n\n{}\n\n", section.title, section.intro);
        text.push_str("| Key | Values | Default | |\n|---|---|---|---|\n");
        for key in section.keys {
            let default = key.default.unwrap_or("must be given");
            let _ = writeln!(text, "| `{}` | {} | {default} | {} |", key.name, key.values, key.help);
        }
    }
    text
}

#[cfg(test)]
mod tests;
