//! What drivers of devices on a serial port have in common: their keys.

use std::time::Duration;

use crate::drivers::{Claim, OptionRow};
use crate::hardware::serial::{Format, PortName, Reset, SerialSettings};
use crate::options::Options;

/// What is dropped after a reset of ours: the bootloader of an Uno waits for a second, and many sketches greet.
const DEFAULT_SKIP: Duration = Duration::from_secs(2);

/// The longest `skip`.
const MAX_SKIP: Duration = Duration::from_secs(60);

const RESETS: [(&str, Reset); 2] = [("avoid", Reset::Avoid), ("pulse", Reset::Pulse)];

/// A kind of device on a serial port.
#[derive(Clone, Copy)]
pub struct Info {
    /// Bits per second where nothing is said.
    pub baud: u32,
}

/// What sketches say in `Serial.begin` most often.
pub(crate) const SKETCH: Info = Info { baud: 115_200 };

impl Info {
    /// The keys, for people.
    pub(crate) fn options(&self) -> Vec<OptionRow> {
        vec![
            OptionRow {
                name: "port",
                values: "path, `\"usb:2341:0043\"`, `\"usb:2341:0043:SERIAL\"` or `\"auto\"`".to_owned(),
                default: None,
                help: "Best a path below `/dev/serial/by-id`, which stays the same whichever socket the cable is in; \
                   `auto` is the only serial port on USB.",
            },
            OptionRow {
                name: "baud",
                values: "300 to 4000000".to_owned(),
                default: Some(self.baud.to_string()),
                help: "Bits per second, as the device is set up: in a sketch, by `Serial.begin`.",
            },
            OptionRow {
                name: "format",
                values: "`\"8N1\"`: 7 or 8 data bits, parity `N`, `E` or `O`, 1 or 2 stop bits".to_owned(),
                default: Some("\"8N1\"".to_owned()),
                help: "The form of a character on the wire.",
            },
            OptionRow {
                name: "reset",
                values: "`\"avoid\"` or `\"pulse\"`".to_owned(),
                default: Some("as the kernel does".to_owned()),
                help: "Opening the port resets many boards: `avoid` has that happen at most once, `pulse` each time.",
            },
            OptionRow {
                name: "skip",
                values: "duration up to 1 min".to_owned(),
                default: Some("\"2s\" with `reset = \"pulse\"`, else none".to_owned()),
                help: "What comes in this time after opening is dropped: the boot text of a board that was reset.",
            },
        ]
    }

    /// Reads the keys; problems are noted there.
    pub(crate) fn parse(&self, options: &Options<'_>) -> Option<SerialSettings> {
        let port = options.required::<String>("port");
        let baud = options.optional_in("baud", 300..=4_000_000).unwrap_or(self.baud);
        let format = options.optional_word("format", &Format::ALL).unwrap_or(Format::DEFAULT);
        let reset = options.optional_word("reset", &RESETS).unwrap_or_default();
        let skip = options.optional::<Duration>("skip");
        if skip.is_some_and(|skip| skip > MAX_SKIP) {
            options.problem("skip", "`skip` is too long", Some("expected up to \"1m\"".to_owned()));
        }
        let port = match PortName::parse(&port?) {
            Ok(port) => port,
            Err((what, expected)) => {
                options.problem("port", format!("`port` {what}"), Some(expected));
                return None;
            }
        };
        let skip = skip.unwrap_or(if reset == Reset::Pulse { DEFAULT_SKIP } else { Duration::ZERO });
        Some(SerialSettings { port, baud, format, reset, skip })
    }
}

/// What the sensor has for itself.
pub(crate) fn claims(settings: &SerialSettings) -> Vec<Claim> {
    vec![Claim::Port(settings.port.clone())]
}
