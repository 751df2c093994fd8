//! Tests of the archive as a whole, in a folder of its own.

use std::fs;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::clock::{BootId, BootTime};
use crate::outbox::{Body, Entry, Raw};
use crate::reading::{Descriptor, Finite, Fix, Kind, Location, Quantity, Value};

const SECOND: i64 = 1_000_000_000;
const DAY: i64 = 86_400 * SECOND;

fn settings(dir: &Path) -> Settings {
    Settings { dir: dir.to_owned(), keep: Duration::from_secs(3 * 86_400), max_bytes: 1 << 20 }
}

fn descriptor(sensor: &str) -> Arc<Descriptor> {
    let quantity = Quantity::new("temperature", Some("°C"), Kind::Number);
    Arc::new(Descriptor {
        gateway: "atelier".into(),
        room: Some("salon".into()),
        sensor: sensor.into(),
        quantities: vec![quantity],
        ..Descriptor::default()
    })
}

fn entry(descriptor: &Arc<Descriptor>, seq: u64, time: i64) -> Entry {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let value = Value::number(seq as f64 / 8.0).expect("finite");
    let body = Body::Reading { descriptor: Arc::clone(descriptor), values: vec![(0, value)] };
    Entry {
        seq,
        run: 7,
        boot: BootId([1; 16]),
        at: BootTime(seq * 50_000_000),
        time: Some(WallTime(time)),
        place: None,
        body,
    }
}

fn builder(entries: &[Entry]) -> Builder {
    let mut builder = Builder::default();
    for entry in entries {
        builder.push(entry, entry.time);
    }
    builder
}

/// All records, and how many pieces are damaged.
fn all(dir: &Path, from: Option<i64>, to: Option<i64>) -> (Vec<Entry>, usize) {
    let mut reader = Reader::open(dir, from.map(WallTime), to.map(WallTime)).expect("a folder");
    let (mut records, mut damage) = (Vec::new(), 0);
    while let Some(piece) = reader.step().expect("readable") {
        match piece {
            Piece::Records(more) => records.extend(more),
            Piece::Damage(_) => damage += 1,
        }
    }
    (records, damage)
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let numbers = file::numbers(dir).expect("a folder");
    numbers.into_iter().map(|number| file::path(dir, number)).collect()
}

#[test]
fn what_is_written_is_read_back_across_openings() {
    let dir = tempfile::tempdir().expect("a folder");
    let sensor = descriptor("meteo");
    let mut written = Vec::new();
    for round in 0..5_u64 {
        let mut archive = Archive::open(settings(dir.path())).expect("opens");
        let entries: Vec<Entry> =
            (round * 10..round * 10 + 10).map(|seq| entry(&sensor, seq + 1, SECOND * seq.cast_signed())).collect();
        archive.write(&builder(&entries), Some(WallTime(DAY))).expect("the disk takes it");
        written.extend(entries);
    }
    assert_eq!(files(dir.path()).len(), 1);
    assert_eq!(all(dir.path(), None, None), (written.clone(), 0));
    // Batches outside of the wanted time are not even decompressed.
    assert_eq!(all(dir.path(), Some(40 * SECOND), None).0, written[40..]);
    assert_eq!(all(dir.path(), None, Some(10 * SECOND)).0, written[..10]);
}

#[test]
fn torn_ends_are_cut_off_and_flipped_bits_cost_one_batch() {
    let dir = tempfile::tempdir().expect("a folder");
    let sensor = descriptor("meteo");
    let batches: Vec<Vec<Entry>> =
        (0..3).map(|batch| (1..20).map(|seq| entry(&sensor, batch * 20 + seq, SECOND)).collect()).collect();
    let mut archive = Archive::open(settings(dir.path())).expect("opens");
    let mut ends = vec![file::FILE_HEADER as u64];
    for batch in &batches {
        let bytes = archive.write(&builder(batch), None).expect("the disk takes it");
        ends.push(ends.last().expect("some") + bytes);
    }
    drop(archive);
    let path = files(dir.path()).pop().expect("a file");
    let whole = fs::read(&path).expect("a file");
    assert_eq!(whole.len() as u64, ends[3]);
    for cut in (ends[1]..ends[2]).step_by(7) {
        fs::write(&path, &whole[..usize::try_from(cut).expect("small")]).expect("a file");
        assert_eq!(all(dir.path(), None, None), (batches[0].clone(), 0), "cut at {cut}");
        let mut archive = Archive::open(settings(dir.path())).expect("opens");
        archive.write(&builder(&batches[2]), None).expect("the disk takes it");
        assert_eq!(all(dir.path(), None, None), ([&batches[0][..], &batches[2]].concat(), 0), "cut at {cut}");
    }
    let mut flipped = whole.clone();
    flipped[usize::try_from(ends[2]).expect("small") - 3] ^= 4;
    fs::write(&path, &flipped).expect("a file");
    assert_eq!(all(dir.path(), None, None), ([&batches[0][..], &batches[2]].concat(), 1));
    // The last one, flipped, may be a power cut's: it goes.
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("bytes") ^= 4;
    fs::write(&path, &flipped).expect("a file");
    drop(Archive::open(settings(dir.path())).expect("opens"));
    assert_eq!(fs::metadata(&path).expect("a file").len(), ends[2]);
}

#[test]
fn old_files_go_by_age_and_by_size() {
    let dir = tempfile::tempdir().expect("a folder");
    let sensor = descriptor("meteo");
    let mut archive = Archive::open(settings(dir.path())).expect("opens");
    for day in 0..6 {
        let now = Some(WallTime(DAY * (100 + day) + SECOND * day));
        archive.write(&builder(&[entry(&sensor, 1, day)]), now).expect("the disk takes it");
    }
    let kept: Vec<i64> = all(dir.path(), None, None).0.iter().filter_map(|entry| Some(entry.time?.0)).collect();
    assert_eq!(kept, [2, 3, 4, 5], "three days, and the one that they begin in");

    // By size: what does not compress.
    let mut seed = 1_u64;
    let mut noise = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        seed.to_le_bytes()[7]
    };
    for seq in 0..40 {
        let raw = Raw { topic: "t".into(), payload: (0..50_000).map(|_| noise()).collect(), retain: false };
        let entry = Entry { body: Body::Raw(raw), ..entry(&sensor, seq, 7) };
        archive.write(&builder(&[entry]), Some(WallTime(DAY * 105))).expect("the disk takes it");
        assert!(archive.bytes() <= 1 << 20);
    }
    let sizes: u64 = files(dir.path()).iter().map(|path| fs::metadata(path).expect("a file").len()).sum();
    assert_eq!(sizes, archive.bytes());
    let (records, damage) = all(dir.path(), None, None);
    assert_eq!((records.last().expect("records").seq, damage), (39, 0));
    assert!(records.len() > 15, "{} are left", records.len());
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut header = file::header(3, None);
    header[8] = 2;
    let checksum = crc32fast::hash(&header[..32]).to_le_bytes();
    header[32..36].copy_from_slice(&checksum);
    fs::write(file::path(dir.path(), 3), &header).expect("a file");
    assert!(matches!(Archive::open(settings(dir.path())), Err(Failure::Newer { version: 2, .. })));
    assert_eq!(fs::read(file::path(dir.path(), 3)).expect("a file"), header);
}

#[test]
fn a_folder_that_goes_is_made_again() {
    let dir = tempfile::tempdir().expect("a folder");
    let inner = dir.path().join("archive");
    let mut archive = Archive::open(settings(&inner)).expect("opens");
    let batch = builder(&[entry(&descriptor("meteo"), 1, 1)]);
    archive.write(&batch, None).expect("the disk takes it");
    fs::remove_dir_all(&inner).expect("it is there");
    fs::write(&inner, "in the way").expect("a file");
    assert!(archive.write(&batch, None).is_err());
    fs::remove_file(&inner).expect("it is there");
    archive.write(&batch, None).expect("the folder can be made");
    assert_eq!(all(&inner, None, None).0.len(), 1);
}

/// Temperatures as a BME280 gives them, at 20 readings a second from four sensors: what an hour of them costs.
#[test]
fn an_hour_costs_no_more_than_the_documentation_says() {
    let sensors: Vec<_> = ["salon", "cave", "atelier", "grenier"].map(descriptor).into();
    let (mut seed, mut values, mut bytes) = (1_u64, [20_000_i32; 4], 0);
    for batch in 0..12_u64 {
        let mut builder = Builder::default();
        for index in batch * 6_000..(batch + 1) * 6_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (sensor, noise) = ((index % 4) as usize, (seed >> 33) % 21);
            values[sensor] += i32::try_from(noise).expect("small") - 10;
            let value = Value::number(f64::from(values[sensor]) / 1_000.0).expect("finite");
            let body = Body::Reading { descriptor: Arc::clone(&sensors[sensor]), values: vec![(0, value)] };
            // A timer's jitter.
            let at = BootTime(index * 50_000_000 + (seed >> 44));
            let time = Some(WallTime(1_795_256_130_000_000_000 + at.0.cast_signed()));
            builder.push(&Entry { seq: index, run: 1, boot: BootId([3; 16]), at, time, place: None, body }, time);
        }
        assert!(builder.has_room(), "five minutes are one batch");
        bytes += file::batch(&builder.finish()).len();
    }
    println!("{bytes} bytes an hour, {} a reading", bytes / 72_000);
    assert!(bytes < 500_000, "{bytes} bytes");
}

fn some_entry() -> impl Strategy<Value = Entry> {
    let value = prop_oneof![
        prop::num::f64::NORMAL.prop_map(|number| Value::number(number).expect("finite")),
        any::<bool>().prop_map(Value::Switch),
        ".{0,20}".prop_map(|text| Value::Text(text.into())),
        prop::collection::vec(any::<u8>(), 0..20).prop_map(|bytes| Value::Bytes(bytes.into())),
    ];
    let values = prop::collection::vec((0_u16..3, value), 1..4);
    let raw = (".{0,9}", prop::collection::vec(any::<u8>(), 0..30));
    let body = prop_oneof![
        ("[a-c]", values).prop_map(|(sensor, values)| Body::Reading { descriptor: descriptor(&sensor), values }),
        raw.prop_map(|(topic, bytes)| Body::Raw(Raw { topic: topic.into(), payload: bytes.into(), retain: true })),
    ];
    let place = prop::option::of((-90.0..90.0, -180.0..180.0, any::<u32>()).prop_map(|(latitude, longitude, age)| {
        let finite = |number| Finite::new(number).expect("finite");
        let location = Location { latitude: finite(latitude), longitude: finite(longitude), altitude: None };
        Fix { location, accuracy: Some(finite(2.5)), age }
    }));
    let ids = (any::<u32>(), any::<[u8; 16]>());
    (0_u64..1 << 62, ids, any::<u64>(), any::<Option<i64>>(), place, body).prop_map(
        |(seq, (run, boot), at, time, place, body)| Entry {
            seq,
            run,
            boot: BootId(boot),
            at: BootTime(at),
            time: time.map(WallTime),
            // A receiver says nothing of what LAN clients send.
            place: place.filter(|_| matches!(body, Body::Reading { .. })),
            body,
        },
    )
}

proptest! {
    #[test]
    fn any_records_come_back(entries in prop::collection::vec(some_entry(), 1..30)) {
        let batch = builder(&entries).finish();
        prop_assert_eq!(batch::read(&batch.payload, batch.raw_bytes), Some(entries));
    }

    #[test]
    fn damage_never_panics(entries in prop::collection::vec(some_entry(), 1..5), at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let batch = builder(&entries).finish();
        let mut raw = miniz_oxide::inflate::decompress_to_vec(&batch.payload).expect("ours");
        let at = at.index(raw.len());
        raw[at] ^= 1 << bit;
        let payload = miniz_oxide::deflate::compress_to_vec(&raw, 1);
        let _ = batch::read(&payload, raw.len());
        let _ = batch::read(&raw, raw.len());
    }

    #[test]
    fn a_file_of_any_bytes_is_read_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        let dir = tempfile::tempdir().expect("a folder");
        let mut content = if header { file::header(1, None) } else { Vec::new() };
        content.extend(bytes);
        fs::write(file::path(dir.path(), 1), content).expect("a file");
        let _ = all(dir.path(), None, None);
        prop_assert!(Archive::open(settings(dir.path())).is_ok());
    }
}
