//! Tests of the outbox as a whole, on a simulated file system.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::frame::{FileId, Ink, Kind};
use super::segment::SEGMENT_SIZE;
use super::simulated::{Fault, Simulated};
use super::*;
use crate::reading::{Kind as ValueKind, Quantity};

mod damage;
mod faults;

pub(super) const DISK: &str = "/disk/outbox";
pub(super) const TMPFS: &str = "/run/vigie";
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const BOOT: BootId = BootId([7; 16]);

pub(super) fn descriptor(sensor: &str) -> Arc<Descriptor> {
    let quantity = |name: &str| Quantity::new(name, None, ValueKind::Number);
    Arc::new(Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: sensor.into(),
        quantities: vec![quantity("temperature"), quantity("humidity")],
        ..Descriptor::default()
    })
}

impl Settings {
    /// For the test of something that has an outbox.
    pub(crate) fn of_a_test(dir: impl Into<PathBuf>, tail_dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            tail_dir: tail_dir.into(),
            flush: SECOND,
            max_bytes: 64 * SEGMENT_SIZE,
            free_share: 50,
            full: Full::DropOldest,
            memory_bytes: 1024 * 1024,
            persist: 300 * SECOND,
            key: None,
        }
    }
}

pub(super) fn settings() -> Settings {
    Settings::of_a_test(DISK, TMPFS)
}

/// A key.
pub(super) fn key() -> Key {
    Arc::new(Box::new([7; KEY_BYTES]).into())
}

/// A body of one position that says which it is.
pub(super) fn body(sensor: &Arc<Descriptor>, number: u32) -> Body {
    let value = Value::number(f64::from(number)).expect("finite");
    Body::Reading { descriptor: Arc::clone(sensor), values: vec![(0, value)] }
}

fn number_of(entry: &Entry) -> u32 {
    match &entry.body {
        Body::Reading { values, .. } => match &values[0].1 {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "body() made it")]
            Value::Number(number) => number.get() as u32,
            other => panic!("not from body(): {other:?}"),
        },
        Body::Raw(raw) => panic!("not from body(): {raw:?}"),
    }
}

pub(super) struct Rig {
    pub(super) disk: Simulated,
    pub(super) settings: Settings,
    pub(super) sensor: Arc<Descriptor>,
    pub(super) now: BootTime,
}

impl Rig {
    pub(super) fn new() -> Self {
        Self {
            disk: Simulated::new(Path::new("/run")),
            settings: settings(),
            sensor: descriptor("meteo"),
            now: BootTime(0),
        }
    }

    pub(super) fn try_open(&self) -> Result<(Outbox, Recovery), OpenError> {
        recovery::open(Arc::new(self.disk.clone()), self.settings.clone(), BOOT, self.now)
    }

    pub(super) fn open(&self) -> (Outbox, Recovery) {
        self.try_open().expect("opens")
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
    }

    pub(super) fn append(&self, outbox: &mut Outbox, numbers: std::ops::Range<u32>) {
        for number in numbers {
            outbox.append(self.now, None, body(&self.sensor, number));
        }
        outbox.commit(self.now);
    }

    pub(super) fn flush(&self, outbox: &mut Outbox) {
        while let Some(job) = outbox.begin_flush(self.now) {
            let done = job.run();
            let failed = done.error().is_some();
            outbox.finish_flush(done, self.now);
            if failed {
                break;
            }
        }
    }

    pub(super) fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.disk.files(Path::new(DISK));
        files.retain(|path| path.file_name().expect("name").to_str().expect("ASCII").starts_with("segment-"));
        files
    }

    pub(super) fn tail(&self) -> PathBuf {
        self.disk.files(Path::new(TMPFS)).pop().expect("a tail")
    }
}

pub(super) fn all(outbox: &mut Outbox, cursor: CursorId) -> Vec<u32> {
    let mut entries = Vec::new();
    let mut from = 0;
    // In small steps, as an uplink reads.
    loop {
        let before = entries.len();
        outbox.read(cursor, from, 7, &mut entries);
        let Some(last) = entries.last().filter(|_| entries.len() > before) else { break };
        from = last.seqs().end;
    }
    assert!(entries.windows(2).all(|pair| pair[0].seqs().end <= pair[1].seq), "order");
    entries.iter().map(number_of).collect()
}

pub(super) fn numbers(range: std::ops::Range<u32>) -> Vec<u32> {
    range.collect()
}

#[test]
fn what_is_taken_survives_the_process() {
    let rig = Rig::new();
    let (mut outbox, recovery) = rig.open();
    assert_eq!((outbox.run(), recovery.waiting), (1, 0));
    assert!(recovery.run_counted && !recovery.state_lost);
    let home = outbox.cursor("home");
    rig.append(&mut outbox, 0..100);
    outbox.ack(home, 0..10);
    outbox.ack(home, 20..30);
    outbox.commit(rig.now);
    // Acknowledged, but not committed: may come again.
    outbox.ack(home, 30..40);
    outbox.append(rig.now, None, body(&rig.sensor, 100));
    drop(outbox);

    let (mut outbox, recovery) = rig.open();
    assert_eq!(outbox.run(), 2);
    assert_eq!((recovery.waiting, recovery.from_tail, recovery.tail_torn), (80, 80, false));
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), [numbers(10..20), numbers(30..100)].concat());
    assert_eq!(outbox.end(), 100);
    let mut entries = Vec::new();
    outbox.read(home, 0, 1, &mut entries);
    assert_eq!((entries[0].seq, entries[0].run, entries[0].boot), (10, 1, BOOT));
    assert_eq!(outbox.append(rig.now, None, body(&rig.sensor, 1000)), 100..101);
}

#[test]
fn online_nothing_is_written_to_disk() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    let before = rig.disk.written();
    for number in 0..6000 {
        rig.append(&mut outbox, number..number + 1);
        rig.wait(Duration::from_millis(50));
        outbox.ack(home, 0..outbox.end());
        outbox.commit(rig.now);
        assert_eq!(outbox.flush_due(), None);
        assert!(outbox.begin_flush(rig.now).is_none());
    }
    assert_eq!(rig.disk.written(), before);
    assert!(outbox.stats().memory_bytes < 64 * 1024);
}

#[test]
fn what_is_unacknowledged_is_flushed_in_time_and_survives_a_power_cut() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    rig.append(&mut outbox, 0..50);
    assert_eq!(outbox.flush_due(), Some(rig.now.after(SECOND)));
    rig.wait(SECOND);
    outbox.ack(home, 0..20);
    outbox.commit(rig.now);
    rig.flush(&mut outbox);
    assert_eq!(outbox.flush_due(), None);
    rig.append(&mut outbox, 50..60);
    assert_eq!(outbox.flush_due(), Some(rig.now.after(SECOND)));
    drop(outbox);
    rig.disk.power_cut(|| false);

    let (mut outbox, recovery) = rig.open();
    assert_eq!((outbox.run(), recovery.waiting), (2, 30));
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(20..50));
    assert!(outbox.append(rig.now, None, body(&rig.sensor, 0)).start >= 50);
}

#[test]
fn a_flush_is_one_sequential_write_and_one_sync() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..1);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    let before = rig.disk.written();
    for number in 1..20 {
        rig.append(&mut outbox, number..number + 1);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    let after = rig.disk.written();
    assert_eq!((after.0 - before.0, after.1 - before.1), (19 * 4096, 19));
    assert_eq!(rig.segments().len(), 1);
}

#[test]
fn zero_flush_is_due_at_once() {
    let mut rig = Rig::new();
    rig.settings.flush = Duration::ZERO;
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.wait(SECOND);
    rig.append(&mut outbox, 0..1);
    assert_eq!(outbox.flush_due(), Some(rig.now));
}

#[test]
fn space_is_freed_when_every_cursor_is_past_it() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let (home, cloud) = (outbox.cursor("home"), outbox.cursor("cloud"));
    for round in 0..60 {
        rig.append(&mut outbox, round * 2000..(round + 1) * 2000);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    let full = rig.segments().len();
    assert!(full > 3, "{full}");
    let stats = outbox.stats();
    assert!(stats.memory_bytes <= rig.settings.memory_bytes / 2 + 64 * 1024, "{stats:?}");
    assert_eq!((stats.dropped, stats.lost, stats.waiting), (0, 0, 120_000));

    outbox.ack(home, 0..outbox.end());
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    assert_eq!(rig.segments().len(), full, "the other one still needs them");
    assert_eq!(all(&mut outbox, cloud), numbers(0..120_000));
    assert!(all(&mut outbox, home).is_empty());

    outbox.ack(cloud, 0..outbox.end());
    outbox.commit(rig.now);
    assert!(outbox.flush_due().is_some());
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    assert_eq!(rig.segments().len(), 1, "the active one stays");
    assert_eq!(outbox.flush_due(), None);

    // What is freed is used again, and old frames in it are not taken for new ones.
    let (created, now) = (outbox.stats().segments_created, 120_000);
    rig.append(&mut outbox, now..now + 9000);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    rig.append(&mut outbox, now + 9000..now + 27_000);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    assert_eq!(outbox.stats().segments_created, created);
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let cloud = outbox.cursor("cloud");
    assert_eq!(all(&mut outbox, cloud), numbers(now..now + 27_000));
    assert_eq!(outbox.stats().damage, 0);
}

#[test]
fn at_the_limit_the_oldest_goes_but_never_what_is_in_flight() {
    let mut rig = Rig::new();
    rig.settings.max_bytes = 3 * SEGMENT_SIZE;
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    outbox.set_in_flight(home, &[5..9, 9..15]);
    for round in 0..60 {
        rig.append(&mut outbox, round * 2000..(round + 1) * 2000);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    assert_eq!(rig.segments().len(), 3);
    let drops = outbox.take_drops();
    assert_eq!(drops.len(), 1, "{drops:?}");
    assert_eq!((drops[0].reason, drops[0].sensor.as_deref()), (DropReason::DiskFull, Some("meteo")));
    let kept = all(&mut outbox, home);
    assert_eq!(kept[..20], numbers(0..20), "the segment with what is in flight stays");
    assert_eq!(kept.len() as u64 + drops[0].count, 120_000);
    assert_eq!(outbox.stats().dropped, drops[0].count);
    assert_eq!((drops[0].span.end - drops[0].span.start), drops[0].count);
    assert_eq!(kept.last(), Some(&119_999));
    assert_eq!(outbox.backlog(home), kept.len() as u64);
}

#[test]
fn state_is_in_the_tail_at_the_commit_and_on_disk_in_time() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.put_state("total", Some(vec![1]));
    outbox.commit(rig.now);
    assert_eq!(outbox.flush_due(), Some(rig.now.after(300 * SECOND)));
    drop(outbox);
    let (mut outbox, _) = rig.open();
    assert_eq!(outbox.state("total"), Some(&[1][..]), "survives the process");
    rig.wait(300 * SECOND);
    rig.flush(&mut outbox);
    outbox.put_state("total", Some(vec![2]));
    outbox.put_state("gone", Some(vec![2]));
    outbox.commit(rig.now);
    outbox.persist_soon();
    assert!(outbox.flush_due().is_some_and(|due| due <= rig.now));
    rig.flush(&mut outbox);
    outbox.put_state("gone", None);
    outbox.put_state("total", Some(vec![3]));
    outbox.commit(rig.now);
    drop(outbox);
    let (outbox, _) = rig.open();
    assert_eq!((outbox.state("total"), outbox.state("gone")), (Some(&[3][..]), None));
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (outbox, _) = rig.open();
    assert_eq!(outbox.state("total"), Some(&[3][..]), "opening wrote it together with the run");
}

#[test]
fn the_state_is_not_put_off_by_flushes_nor_they_by_it() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    let below = Path::new(DISK).join(flush::state_name(0));
    rig.disk.fail(Some(Fault { below, after: 0, times: 1, kind: io::ErrorKind::Other }));
    outbox.put_state("total", Some(vec![1]));
    for second in 0..700 {
        rig.append(&mut outbox, second..second + 1);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
        assert_eq!(outbox.oldest_unflushed(), None, "after {second} s");
        assert_eq!(outbox.state.is_dirty(), second + 1 < 600, "after {second} s");
    }
    assert!(matches!(outbox.take_warnings()[..], [Warning::StateFailed { .. }]));
}

#[test]
fn the_run_is_random_where_it_cannot_be_counted() {
    let rig = Rig::new();
    let refused = io::ErrorKind::ReadOnlyFilesystem;
    let state = Path::new(DISK).join(flush::state_name(1));
    rig.disk.fail(Some(Fault { below: state, after: 0, times: 1, kind: refused }));
    let (outbox, recovery) = rig.open();
    assert!(outbox.run() >= 1 << 31 && !recovery.run_counted);
}

#[test]
fn a_second_process_is_told_who_has_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = Settings { dir: folder.path().join("outbox"), tail_dir: folder.path().into(), ..settings() };
    let (outbox, _) = Outbox::open(settings.clone(), BOOT, BootTime(0)).expect("opens");
    let error = Outbox::open(settings.clone(), BOOT, BootTime(0)).expect_err("in use");
    assert!(error.to_string().contains(settings.dir.to_str().expect("UTF-8")), "{error}");
    drop(outbox);
    Outbox::open(settings, BOOT, BootTime(0)).expect("free again");
}

#[test]
fn new_cursors_start_at_what_is_kept() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    rig.append(&mut outbox, 0..10);
    let home = outbox.cursor("home");
    assert_eq!(outbox.backlog(home), 10, "kept while there was no cursor");
    outbox.ack(home, 0..5);
    outbox.ack(home, 7..8);
    let cloud = outbox.cursor("cloud");
    assert_eq!(all(&mut outbox, cloud), [5, 6, 8, 9]);
    outbox.ack(cloud, 0..10);
    outbox.retain_cursors(&["cloud"]);
    assert_eq!(outbox.stats().waiting, 0);
    outbox.retain_cursors(&[]);
    let later = outbox.cursor("later");
    assert_eq!(outbox.backlog(later), 0, "what the last one had done is not done again");
    assert!(outbox.is_acked(home, 9), "nobody waits for a forgotten cursor");
}

#[test]
fn every_kind_of_value_comes_back_from_memory_tail_and_disk() {
    let rig = Rig::new();
    let values = vec![
        (0, Value::number(-0.1).expect("finite")),
        (1, Value::Switch(true)),
        (0, Value::Text("été".into())),
        (1, Value::Bytes([0, 255, 7].into())),
    ];
    let bodies = [
        Body::Reading { descriptor: Arc::clone(&rig.sensor), values },
        Body::Raw(Raw { topic: "a/b".into(), payload: [1, 2].into(), retain: true }),
        Body::Raw(Raw { topic: "c".into(), payload: vec![3; 200_000].into(), retain: false }),
    ];
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for body in &bodies {
        outbox.append(BootTime(5), Some(WallTime(-3)), body.clone());
    }
    outbox.commit(rig.now);
    let check = |outbox: &mut Outbox| {
        let home = outbox.cursor("home");
        let mut entries = Vec::new();
        outbox.read(home, 0, 10, &mut entries);
        assert_eq!(entries.iter().map(Entry::seqs).collect::<Vec<_>>(), [0..4, 4..5, 5..6]);
        for (entry, body) in entries.iter().zip(&bodies) {
            assert_eq!((&entry.body, entry.at, entry.time, entry.run), (body, BootTime(5), Some(WallTime(-3)), 1));
        }
    };
    check(&mut outbox);
    drop(outbox);
    let (mut outbox, _) = rig.open();
    check(&mut outbox);
    outbox.close(rig.now).expect("closes");
    check(&mut rig.open().0);
}

#[test]
fn too_large_records_are_refused_and_counted() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let raw = |size| Body::Raw(Raw { topic: "t".into(), payload: vec![0; size].into(), retain: false });
    assert_eq!(outbox.append(rig.now, None, raw(MAX_RECORD)), 0..0);
    assert_eq!(outbox.append(rig.now, None, raw(MAX_RECORD - 100)), 0..1);
    let big = Arc::new(Descriptor { label: Some("x".repeat(100_000).into()), ..(*descriptor("big")).clone() });
    assert_eq!(outbox.append(rig.now, None, body(&big, 1)), 1..1);
    let drops = outbox.take_drops();
    assert_eq!(drops.iter().map(|drop| drop.sensor.as_deref()).collect::<Vec<_>>(), [None, Some("big")]);
    assert!(drops.iter().all(|drop| drop.reason == DropReason::TooLarge && drop.count == 1));
}

#[test]
fn renamed_sensors_keep_their_old_names_in_the_backlog() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for number in 0..5000 {
        // More than are ever needed at once, and each with an allocation of its own.
        let sensor = descriptor(&format!("sensor-{}", number / 3));
        outbox.append(rig.now, None, body(&sensor, number));
        if number % 100 == 0 {
            outbox.commit(rig.now);
            rig.wait(SECOND);
            rig.flush(&mut outbox);
        }
    }
    outbox.commit(rig.now);
    let names = |outbox: &mut Outbox| {
        let home = outbox.cursor("home");
        let mut entries = Vec::new();
        outbox.read(home, 0, 10_000, &mut entries);
        assert_eq!(entries.len(), 5000);
        for entry in &entries {
            assert_eq!(entry.sensor(), Some(&*format!("sensor-{}", number_of(entry) / 3)));
        }
    };
    names(&mut outbox);
    drop(outbox);
    names(&mut rig.open().0);
}
