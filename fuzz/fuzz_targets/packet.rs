//! Whatever a broker may send, in pieces as the network cuts it.
//!
//! The first byte says how large the pieces are, the second one how large a packet may be and which MQTT is spoken.

#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use vigie::config::MqttVersion;
use vigie::uplink::packet;

fuzz_target!(|input: &[u8]| {
    let [piece, limit, bytes @ ..] = input else { return };
    let max = 16 << (limit % 12);
    let version = if *limit < 128 { MqttVersion::V311 } else { MqttVersion::V5 };
    let mut buffer = BytesMut::new();
    for piece in bytes.chunks(usize::from(*piece).max(1)) {
        buffer.extend_from_slice(piece);
        loop {
            let before = buffer.len();
            match packet::read(&mut buffer, version, max) {
                Ok(Some(_)) => assert!(buffer.len() < before, "a packet takes room"),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(buffer.len() <= max as usize + 5, "a whole packet was not taken");
    }
});
