//! Whatever comes over a serial line: cut anywhere, it gives the same.
//!
//! The first byte says whose it is, the second one where it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use toml::de::DeTable;
use vigie::clock::BootTime;
use vigie::drivers::{self, ByteDecoder, Source};
use vigie::options::{Options, Problems};
use vigie::reading::Value;

/// Drivers with their keys.
const LINKS: [(&str, &str); 7] = [
    ("serial-json", ""),
    ("nmea", ""),
    ("serial-json", "acknowledge = \"1s\"\nmillis = \"ms\""),
    ("serial-lines", ""),
    ("serial-lines", "decimal = \",\"\nignore_other = true\nacknowledge = \"1s\"\nmillis = \"ms\""),
    ("serial-lines", "form = \"csv\"\ncolumns = [\"a\", \"b\"]\nline_end = \"\\r\""),
    ("serial-lines", "form = \"pattern\"\npattern = '(?<a>\\S+)=(?<b>.*)'\nencoding = \"latin-1\""),
];

/// A decoder as the agent makes it from its configuration.
fn decoder((driver, keys): (&str, &str)) -> Box<dyn ByteDecoder> {
    let keys = format!("port = \"/dev/ttyUSB0\"\n{keys}");
    let table = DeTable::parse(&keys).expect("TOML");
    let problems = Problems::new();
    let options = Options::new(table.get_ref(), 0..0, "the sensor", &problems);
    let driver = drivers::find(driver).expect("a driver");
    match (driver.parse)(&options).map(|parsed| parsed.source) {
        Some(Source::Serial { decoder, .. }) => decoder(),
        _ => panic!("a serial driver"),
    }
}

fuzz_target!(|input: &[u8]| {
    let [which, cut, bytes @ ..] = input else { return };
    let link = LINKS[usize::from(*which) % LINKS.len()];
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    decoder(link).feed(bytes, BootTime(0), &mut whole);
    let mut decoder = decoder(link);
    for piece in bytes.chunks(usize::from(*cut).max(1)) {
        decoder.feed(piece, BootTime(0), &mut pieces);
    }
    assert_eq!(whole, pieces);
    for sample in whole.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).flatten() {
        if let Value::Number(number) = &sample.value {
            assert!(number.get().is_finite());
        }
    }
});
