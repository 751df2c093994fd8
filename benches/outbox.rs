//! How fast the outbox takes records, gives them back, and opens. The tail is on tmpfs, the log in the system's folder
//! for temporary files.

#![expect(clippy::print_stdout, reason = "a benchmark prints what it has measured")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use divan::Bencher;
use divan::counter::ItemsCount;
use vigie::clock::{BootId, BootTime, WallTime};
use vigie::outbox::{Body, Full, Outbox, Settings};
use vigie::reading::{Descriptor, Kind, Quantity, Value};

/// Records of one commit at full rate: what a readable chunk of a serial port holds.
const BATCH: u32 = 50;

fn main() {
    divan::main();
}

struct Fixture {
    /// Deleted at the end.
    _folders: (tempfile::TempDir, tempfile::TempDir),
    settings: Settings,
    sensor: Arc<Descriptor>,
}

impl Fixture {
    fn new() -> Self {
        let disk = tempfile::tempdir().expect("a folder");
        let tmpfs = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
        let settings = Settings {
            dir: disk.path().join("outbox"),
            tail_dir: tmpfs.path().into(),
            flush: Duration::from_secs(1),
            max_bytes: 256 << 20,
            free_share: 50,
            full: Full::DropOldest,
            memory_bytes: 8 << 20,
            persist: Duration::from_secs(300),
            key: None,
        };
        Self { _folders: (disk, tmpfs), settings, sensor: sensor() }
    }

    fn open(&self) -> Outbox {
        Outbox::open(self.settings.clone(), BootId([1; 16]), BootTime(0)).expect("opens").0
    }

    /// Appends so many records in batches.
    fn append(&self, outbox: &mut Outbox, count: u32) {
        for number in 0..count {
            let at = BootTime(1_000_000_000_000 + u64::from(number) * 20_000);
            outbox.append(at, Some(WallTime(1_795_000_000_000_000_000 + i64::from(number))), self.body(number));
            if number % BATCH == BATCH - 1 {
                outbox.commit(at);
            }
        }
        outbox.commit(BootTime(0));
    }

    fn body(&self, number: u32) -> Body {
        let value = Value::number(f64::from(number) * 0.01).expect("finite");
        Body::Reading { descriptor: Arc::clone(&self.sensor), values: vec![(0, value)] }
    }
}

fn sensor() -> Arc<Descriptor> {
    Arc::new(Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salle-12".into()),
        sensor: "arduino".into(),
        quantities: vec![Quantity::new("temperature", Some("°C"), Kind::Number)],
        ..Descriptor::default()
    })
}

/// Online: each batch is appended, committed and acknowledged.
#[divan::bench(min_time = 1)]
fn append_commit_ack(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::new();
    let mut outbox = fixture.open();
    let cursor = outbox.cursor("home");
    bencher.counter(ItemsCount::new(1000_u32)).bench_local(|| {
        for _ in 0..1000 / BATCH {
            for number in 0..BATCH {
                outbox.append(BootTime(1 << 50), Some(WallTime(1 << 60)), fixture.body(number));
            }
            outbox.commit(BootTime(0));
            outbox.ack(cursor, 0..outbox.end());
        }
    });
}

/// Online at a low rate: one record a commit.
#[divan::bench(min_time = 1)]
fn commit_of_one(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::new();
    let mut outbox = fixture.open();
    let cursor = outbox.cursor("home");
    bencher.counter(ItemsCount::new(1_u32)).bench_local(|| {
        outbox.append(BootTime(1 << 50), Some(WallTime(1 << 60)), fixture.body(1));
        outbox.commit(BootTime(0));
        outbox.ack(cursor, 0..outbox.end());
    });
}

/// Reads and acknowledges what is in memory, a window at a time.
#[divan::bench(min_time = 1)]
fn drain_memory(bencher: Bencher<'_, '_>) {
    const COUNT: u32 = 20_000;
    let fixture = Fixture::new();
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            let mut outbox = fixture.open();
            outbox.cursor("home");
            fixture.append(&mut outbox, COUNT);
            outbox
        })
        .bench_local_values(|mut outbox| {
            drain(&mut outbox, COUNT);
            outbox
        });
}

/// The same from disk.
#[divan::bench(min_time = 1)]
fn drain_disk(bencher: Bencher<'_, '_>) {
    const COUNT: u32 = 100_000;
    let fixture = Fixture::new();
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            fill_disk(&fixture, COUNT);
            fixture.open()
        })
        .bench_local_values(|mut outbox| {
            drain(&mut outbox, COUNT);
            outbox
        });
}

/// Opens with 100,000 records waiting on disk.
#[divan::bench(min_time = 1)]
fn open_100k(bencher: Bencher<'_, '_>) {
    let fixture = Fixture::new();
    fill_disk(&fixture, 100_000);
    bencher.bench_local(|| fixture.open());
}

/// Opens with ten million records waiting on disk (about 300 MB), and reads the first hundred.
#[divan::bench(sample_count = 5, sample_size = 1)]
fn open_and_read_10m(bencher: Bencher<'_, '_>) {
    let mut fixture = Fixture::new();
    fixture.settings.max_bytes = 1 << 30;
    fill_disk(&fixture, 10_000_000);
    let before = resident();
    bencher.bench_local(|| {
        let mut outbox = fixture.open();
        let cursor = outbox.cursor("home");
        assert_eq!(outbox.backlog(cursor), 10_000_000);
        let mut entries = Vec::new();
        outbox.read(cursor, 0, 100, &mut entries);
        assert_eq!((entries.len(), entries[0].seq), (100, 0));
    });
    println!("resident memory: {before} before, {} after", resident());
}

/// What the kernel says of this process's memory.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line of it");
    line.trim_start_matches("VmRSS:").trim().to_owned()
}

fn fill_disk(fixture: &Fixture, count: u32) {
    remove(&fixture.settings.dir);
    let mut outbox = fixture.open();
    outbox.cursor("home");
    for _ in 0..count / 10_000 {
        fixture.append(&mut outbox, 10_000);
        while let Some(job) = outbox.begin_flush(BootTime(0)) {
            let done = job.run();
            outbox.finish_flush(done, BootTime(0));
        }
    }
    outbox.close(BootTime(0)).expect("closes");
}

fn remove(folder: &Path) {
    if folder.exists() {
        std::fs::remove_dir_all(folder).expect("our own folder");
    }
}

fn drain(outbox: &mut Outbox, count: u32) {
    let cursor = outbox.cursor("home");
    let mut entries = Vec::new();
    let mut drained = 0;
    while drained < count {
        entries.clear();
        outbox.read(cursor, 0, 100, &mut entries);
        let (first, last) = (entries.first().expect("more").seq, entries.last().expect("more").seqs().end);
        drained += u32::try_from(entries.len()).expect("at most 100");
        outbox.ack(cursor, first..last);
        outbox.commit(BootTime(0));
    }
}
