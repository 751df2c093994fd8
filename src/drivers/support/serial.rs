//! What drivers of devices on a serial port have in common: their keys.

use std::path::PathBuf;

use crate::drivers::{Claim, OptionRow};
use crate::hardware::SerialSettings;
use crate::options::Options;

/// What sketches say in `Serial.begin` most often.
const DEFAULT_BAUD: u32 = 115_200;

/// The keys, for people.
pub(crate) fn options() -> Vec<OptionRow> {
    vec![
        OptionRow {
            name: "port",
            values: "path of a serial port".to_owned(),
            default: None,
            help: "Best one below `/dev/serial/by-id`, which stays the same whichever socket the cable is in.",
        },
        OptionRow {
            name: "baud",
            values: "300 to 4000000".to_owned(),
            default: Some(DEFAULT_BAUD.to_string()),
            help: "Bits per second, as in the sketch's `Serial.begin`; 8 data bits, no parity, 1 stop bit.",
        },
    ]
}

/// Reads the keys; problems are noted there.
pub(crate) fn parse(options: &Options<'_>) -> Option<SerialSettings> {
    let port = options.required::<String>("port");
    let baud = options.optional_in("baud", 300..=4_000_000).unwrap_or(DEFAULT_BAUD);
    let port = port?;
    if port.is_empty() {
        options.problem("port", "`port` is empty", Some("expected a path such as \"/dev/ttyUSB0\"".to_owned()));
        return None;
    }
    Some(SerialSettings { port: PathBuf::from(port), baud })
}

/// What the sensor has for itself.
pub(crate) fn claims(settings: &SerialSettings) -> Vec<Claim> {
    vec![Claim::Port(settings.port.clone())]
}
