//! Lines of JSON to samples, as serial-json does it.

use divan::{Bencher, counter::ItemsCount};
use vigie::clock::BootTime;
use vigie::drivers::ByteDecoder;
use vigie::drivers::serial_json::SerialJson;

fn main() {
    divan::main();
}

/// Lines that come with one read.
const LINES: usize = 64;

#[divan::bench(args = ["one", "flat", "nested"])]
fn decode(bencher: Bencher<'_, '_>, shape: &str) {
    let line = match shape {
        "one" => "{\"temp\":21.53}\n",
        "flat" => "{\"temp\":21.53,\"hum\":40.1,\"n\":12345}\r\n",
        _ => "{\"temp\":21.5,\"lumière\":312,\"sol\":[412,398,405],\"air\":{\"humidity\":48.2,\"ok\":true}}\r\n",
    };
    let chunk = line.repeat(LINES);
    let mut decoder = SerialJson::new();
    let mut out = Vec::with_capacity(LINES);
    bencher.counter(ItemsCount::new(LINES)).bench_local(|| {
        out.clear();
        decoder.feed(chunk.as_bytes(), BootTime(1), &mut out);
        assert_eq!(out.len(), LINES);
    });
}
