//! Whatever comes over a serial line: cut anywhere, it gives the same.
//!
//! The first byte says which driver's it is, the second one where it is cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie::clock::BootTime;
use vigie::drivers::ByteDecoder;
use vigie::drivers::nmea::Nmea;
use vigie::drivers::serial_json::SerialJson;
use vigie::reading::Value;

const DECODERS: [fn() -> Box<dyn ByteDecoder>; 2] = [|| Box::new(SerialJson::new()), || Box::new(Nmea::new())];

fuzz_target!(|input: &[u8]| {
    let [which, cut, bytes @ ..] = input else { return };
    let make = DECODERS[usize::from(*which) % DECODERS.len()];
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    make().feed(bytes, BootTime(0), &mut whole);
    let mut decoder = make();
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
