//! Whatever comes over a serial line of frames: cut anywhere, it gives the same.
//!
//! The first byte says where it is cut. A random input hardly ever has a right checksum, so the bytes are also put into
//! frames: split at 0xff, and each piece sealed as a device would.

#![no_main]

use libfuzzer_sys::fuzz_target;
use vigie::clock::BootTime;
use vigie::drivers::ByteDecoder;
use vigie::drivers::serial_frames::{SerialFrames, seal};
use vigie::reading::Value;

fuzz_target!(|input: &[u8]| {
    let [cut, bytes @ ..] = input else { return };
    let sealed: Vec<u8> = bytes.split(|byte| *byte == 0xff).flat_map(|piece| seal(piece.to_vec())).collect();
    for bytes in [bytes, &sealed] {
        let (mut whole, mut pieces) = (Vec::new(), Vec::new());
        let mut at_once = SerialFrames::new(Vec::new(), None);
        at_once.feed(bytes, BootTime(0), &mut whole);
        let mut decoder = SerialFrames::new(Vec::new(), None);
        for piece in bytes.chunks(usize::from(*cut).max(1)) {
            decoder.feed(piece, BootTime(0), &mut pieces);
        }
        assert_eq!(whole, pieces);
        assert_eq!(at_once.answers(), decoder.answers());
        for sample in whole.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()).flatten() {
            if let Value::Number(number) = &sample.value {
                assert!(number.get().is_finite());
            }
        }
    }
});
