//! The outbox against a simple model, under crashes, power cuts and failing operations; and on arbitrary bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::simulated::{Fault, Simulated};
use super::tests::{body, descriptor, key, settings};
use super::*;

const NAMES: [&str; 2] = ["home", "cloud"];

#[derive(Clone, Debug)]
enum Step {
    /// So many records, of one to three positions each, some of them long.
    Append(u32),
    Commit,
    /// A part of what a cursor has to acknowledge, from a place in it; both in thousandths.
    Ack(usize, u64, u64),
    Wait(u64),
    /// Begins a flush and runs it.
    Flush,
    /// Hands over what became of it.
    Finish,
    /// Gives all memory free that can be given free, as if it were full.
    Evict,
    State(u8, Option<u8>),
    /// The process is killed.
    Kill,
    /// The power goes; the seed says what of the unsynced sectors survives.
    PowerCut(u64),
    /// A key is given from the next start on, if none was.
    GiveKey,
    /// Operations fail: below the tail or the disk, after so many, so many times.
    Fail(bool, u64, u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (1u32..400).prop_map(Step::Append),
        6 => Just(Step::Commit),
        6 => (0..NAMES.len(), 0u64..1000, 0u64..1500).prop_map(|(cursor, at, part)| Step::Ack(cursor, at, part)),
        3 => (1u64..2500).prop_map(Step::Wait),
        5 => Just(Step::Flush),
        5 => Just(Step::Finish),
        2 => Just(Step::Evict),
        2 => (0u8..3, any::<Option<u8>>()).prop_map(|(key, value)| Step::State(key, value)),
        2 => Just(Step::Kill),
        2 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::GiveKey),
        1 => (any::<bool>(), 0u64..12, 1u64..4).prop_map(|(tail, after, times)| Step::Fail(tail, after, times)),
    ]
}

/// The record of that number.
fn record(number: u32) -> Body {
    let sensor = descriptor(["meteo", "cave"][number as usize % 2]);
    let mut values = vec![(0, Value::number(f64::from(number)).expect("finite"))];
    if number.is_multiple_of(7) {
        values.push((1, Value::Text("x".repeat(number as usize % 5000).into())));
    }
    if number.is_multiple_of(3) {
        values.push((1, Value::Switch(true)));
    }
    Body::Reading { descriptor: sensor, values }
}

/// A model's settings: records wait for flushes that may fail, and none of them may be dropped.
fn roomy(key: Option<Key>) -> Settings {
    Settings { memory_bytes: 64 << 20, key, ..settings() }
}

/// What must hold.
#[derive(Default)]
struct Model {
    /// Committed records and what they say; with the number under which they were appended.
    taken: BTreeMap<Seq, u32>,
    /// Appended since the last commit.
    buffered: BTreeMap<Seq, u32>,
    /// Everything ever appended at a position: what is read must be one of these.
    ever: BTreeMap<Seq, BTreeSet<u32>>,
    /// Records below are on disk or acknowledged.
    flushed: Seq,
    acked: [BTreeSet<Seq>; 2],
    acked_committed: [BTreeSet<Seq>; 2],
    /// As the flush found it that was last begun, and as the last one left it on disk that wrote to the log.
    acked_flushing: [BTreeSet<Seq>; 2],
    acked_flushed: [BTreeSet<Seq>; 2],
    state: BTreeMap<u8, Option<u8>>,
    state_committed: BTreeMap<u8, Option<u8>>,
    /// The tail failed since the last crash: only what was flushed is promised.
    tail_failed: bool,
    /// A sync may have failed: without a tail nobody knows after a crash that what can be read is not on disk.
    disk_failed: bool,
}

struct Run {
    disk: Simulated,
    now: BootTime,
    outbox: Option<Outbox>,
    done: Option<FlushDone>,
    cursors: [CursorId; 2],
    model: Model,
    next_number: u32,
    runs: BTreeSet<u32>,
    key: Option<Key>,
}

impl Run {
    fn new(sealed: bool) -> Self {
        let mut run = Self {
            disk: Simulated::new(Path::new("/run")),
            now: BootTime(0),
            outbox: None,
            done: None,
            cursors: [CursorId(0); 2],
            model: Model::default(),
            next_number: 0,
            runs: BTreeSet::new(),
            key: sealed.then(key),
        };
        run.open();
        run
    }

    fn open(&mut self) {
        self.done = None;
        let open = || recovery::open(Arc::new(self.disk.clone()), roomy(self.key.clone()), BootId([1; 16]), self.now);
        let (mut outbox, _) = open().unwrap_or_else(|error| {
            assert!(matches!(error, OpenError::Io { .. }), "{error}");
            self.disk.fail(None);
            open().expect("opens when nothing fails")
        });
        self.cursors = NAMES.map(|name| outbox.cursor(name));
        outbox.commit(self.now);
        assert!(self.runs.insert(outbox.run()), "run {} was there before", outbox.run());
        self.outbox = Some(outbox);
    }

    fn outbox(&mut self) -> &mut Outbox {
        self.outbox.as_mut().expect("open between steps")
    }

    fn read(&mut self, cursor: usize) -> BTreeMap<Seq, u32> {
        let id = self.cursors[cursor];
        let mut read = BTreeMap::new();
        let (mut from, mut entries) = (0, Vec::new());
        loop {
            entries.clear();
            self.outbox().read(id, from, 50, &mut entries);
            let Some(last) = entries.last() else { break };
            assert!(entries[0].seq >= from && entries.windows(2).all(|pair| pair[0].seq < pair[1].seq), "order");
            from = last.seqs().end;
            for entry in &entries {
                let Body::Reading { values, .. } = &entry.body else { panic!("only readings were appended") };
                let Value::Number(number) = values[0].1 else { panic!("the first is a number") };
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "as appended")]
                let number = number.get() as u32;
                assert_eq!(&entry.body, &record(number));
                let open = entry.seqs().filter(|seq| !self.outbox().is_acked(id, *seq));
                read.extend(open.map(|seq| (seq, number)));
            }
        }
        read
    }

    fn step(&mut self, step: &Step) {
        let now = self.now;
        match *step {
            Step::Append(count) => {
                for number in self.next_number..self.next_number + count {
                    let body = record(number);
                    let length = body.len();
                    let seqs = self.outbox().append(now, None, body);
                    assert_eq!(seqs.end - seqs.start, length);
                    for seq in seqs {
                        self.model.buffered.insert(seq, number);
                        self.model.ever.entry(seq).or_default().insert(number);
                    }
                }
                self.next_number += count;
            }
            Step::Commit => {
                self.outbox().commit(now);
                let model = &mut self.model;
                model.taken.append(&mut model.buffered);
                model.acked_committed = model.acked.clone();
                model.state_committed = model.state.clone();
                self.model.tail_failed |= !self.outbox().stats().tail_works;
            }
            Step::Ack(cursor, at, part) => {
                let open: Vec<Seq> =
                    self.model.taken.keys().filter(|seq| !self.model.acked[cursor].contains(seq)).copied().collect();
                let length = open.len() as u64;
                let index = |thousandths: u64| usize::try_from(length * thousandths.min(1000) / 1000).expect("small");
                let some = &open[index(at)..index(at + part).max(index(at))];
                for seq in some {
                    let id = self.cursors[cursor];
                    self.outbox().ack(id, *seq..*seq + 1);
                    self.model.acked[cursor].insert(*seq);
                }
            }
            Step::Wait(milliseconds) => self.now = now.after(Duration::from_millis(milliseconds)),
            Step::Flush => {
                if self.done.is_none() {
                    self.done = self.outbox().begin_flush(now).map(FlushJob::run);
                    self.model.acked_flushing = self.model.acked.clone();
                }
            }
            Step::Finish => {
                if let Some(done) = self.done.take() {
                    if matches!(done.log, Some(Ok(_))) {
                        self.model.acked_flushed = std::mem::take(&mut self.model.acked_flushing);
                    }
                    self.outbox().finish_flush(done, now);
                    self.model.flushed = self.model.flushed.max(self.outbox().on_disk);
                }
            }
            Step::Evict => {
                let outbox = self.outbox();
                outbox.settle();
                while outbox.memory.pop_front_until(outbox.on_disk) {}
            }
            Step::State(key, value) => {
                self.outbox().put_state(&key.to_string(), value.map(|value| vec![value]));
                self.model.state.insert(key, value);
            }
            Step::GiveKey => self.key = Some(key()),
            Step::Kill => self.kill(),
            Step::PowerCut(seed) => self.power_cut(seed),
            Step::Fail(tail, after, times) => {
                let below = if tail { "/run" } else { "/disk" }.into();
                self.disk.fail(Some(Fault { below, after, times, kind: io::ErrorKind::Other }));
                self.model.tail_failed |= tail;
                self.model.disk_failed |= !tail;
            }
        }
    }

    fn kill(&mut self) {
        self.outbox = None;
        self.open();
        if self.model.tail_failed {
            return self.check_flushed();
        }
        let state = std::mem::take(&mut self.model.state_committed);
        for (key, value) in &state {
            assert_eq!(self.outbox().state(&key.to_string()), value.map(|value| vec![value]).as_deref());
        }
        for (cursor, name) in NAMES.iter().enumerate() {
            let read = self.read(cursor);
            let model = &self.model;
            for (seq, number) in &model.taken {
                let read = read.get(seq);
                if model.acked_committed[cursor].contains(seq) {
                    assert_eq!(read, None, "{seq} of {name} came back");
                } else if !model.acked[cursor].contains(seq) {
                    assert_eq!(read, Some(number), "{seq} of {name} is lost");
                }
            }
            let foreign: Vec<_> = read.keys().filter(|seq| !model.taken.contains_key(seq)).collect();
            assert!(foreign.is_empty(), "{foreign:?} were never taken");
        }
        assert_eq!(self.outbox().stats().lost, 0);
        self.start_over(state);
    }

    fn power_cut(&mut self, seed: u64) {
        self.outbox = None;
        let mut random = seed | 1;
        self.disk.power_cut(|| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            !random.is_multiple_of(4)
        });
        self.model.disk_failed = false;
        self.open();
        for (cursor, name) in NAMES.iter().enumerate() {
            let read = self.read(cursor);
            let again: Vec<_> = self.model.acked_flushed[cursor].iter().filter(|seq| read.contains_key(seq)).collect();
            assert!(again.is_empty(), "{again:?} of {name} came back");
        }
        self.check_flushed();
        self.model.flushed = self.outbox().on_disk;
    }

    /// What was flushed and not acknowledged is there, and nothing that never was.
    fn check_flushed(&mut self) {
        for (cursor, name) in NAMES.iter().enumerate() {
            let read = self.read(cursor);
            let model = &self.model;
            for (seq, number) in model.taken.range(..model.flushed) {
                if !model.acked[cursor].contains(seq) {
                    assert_eq!(read.get(seq), Some(number), "{seq} of {name} is lost");
                }
            }
            for (seq, number) in &read {
                assert!(model.ever.get(seq).is_some_and(|ever| ever.contains(number)), "{seq} was never {number}");
            }
        }
        // What was found missing in a torn write is counted once: from this commit on nobody waits for it any more.
        let now = self.now;
        self.outbox().commit(now);
        let state = (0..3).map(|key| (key, self.outbox().state(&key.to_string()).map(|value| value[0]))).collect();
        self.start_over(state);
    }

    /// The model goes on from what was found.
    fn start_over(&mut self, state: BTreeMap<u8, Option<u8>>) {
        let read = [self.read(0), self.read(1)];
        let on_disk = self.outbox().on_disk;
        let tail_works = self.outbox().stats().tail_works;
        let model = &mut self.model;
        if !(model.tail_failed && model.disk_failed) {
            model.flushed = model.flushed.max(on_disk);
        }
        // The fault may last: then the new tail failed as well.
        model.tail_failed = !tail_works;
        model.buffered.clear();
        model.taken.clear();
        for read in &read {
            model.taken.extend(read);
        }
        for (cursor, read) in read.iter().enumerate() {
            model.acked[cursor] = model.taken.keys().filter(|seq| !read.contains_key(seq)).copied().collect();
        }
        model.acked_committed = model.acked.clone();
        (model.state, model.state_committed) = (state.clone(), state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn nothing_taken_is_lost_and_nothing_acknowledged_comes_back(
        sealed: bool,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut run = Run::new(sealed);
        for step in &steps {
            run.step(step);
        }
        run.step(&Step::Kill);
        run.step(&Step::PowerCut(1));
    }

    #[test]
    fn arbitrary_bytes_never_stop_it(
        sealed: bool,
        files in prop::collection::vec((0usize..7, prop::collection::vec(any::<u8>(), 0..6000)), 1..5),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), any::<u8>()), 0..40),
    ) {
        let mut run = Run::new(sealed);
        for step in [Step::Append(300), Step::Commit, Step::Ack(0, 0, 300), Step::Wait(1000), Step::Flush, Step::Finish,
            Step::Append(300), Step::Commit, Step::State(1, Some(1)), Step::Commit] {
            run.step(&step);
        }
        run.outbox = None;
        let tail = run.disk.files(Path::new("/run"))[0].clone();
        // Bit flips in real files...
        let real = run.disk.files(Path::new("/"));
        for (file, at, bits) in &flips {
            run.disk.edit(&real[file.index(real.len())], |bytes| {
                let at = at.index(bytes.len());
                bytes[at] ^= *bits;
            });
        }
        // ...and files of plain garbage beside them or in their place.
        for (which, bytes) in files {
            let path = match which {
                0 => tail.clone(),
                1 => tail.with_file_name("tail-000000000099"),
                2..4 => Path::new("/disk/outbox").join(segment::name(which as u64 - 1)),
                4 => Path::new("/disk/outbox").join(segment::spare_name(5)),
                _ => Path::new("/disk/outbox").join(flush::state_name(which as u64)),
            };
            run.disk.edit(&path, |old| *old = bytes);
        }
        let settings = Settings { key: run.key.clone(), ..settings() };
        match recovery::open(Arc::new(run.disk.clone()), settings, BootId([1; 16]), run.now) {
            Ok((mut outbox, _)) => {
                let home = outbox.cursor("home");
                let mut entries = Vec::new();
                outbox.read(home, 0, 10_000, &mut entries);
                prop_assert!(entries.len() <= 600);
                outbox.ack(home, 0..outbox.end());
                outbox.append(run.now, None, body(&descriptor("meteo"), 1));
                outbox.commit(run.now);
                outbox.close(run.now).expect("closes");
            }
            Err(error) => prop_assert!(matches!(error, OpenError::Newer { .. }), "{}", error),
        }
    }
}

/// Found by the property test: a fault that lasts over a start costs the tail that was there before.
#[test]
fn a_tail_that_fails_at_a_start_promises_nothing() {
    let mut run = Run::new(false);
    for step in [Step::Append(4), Step::Fail(true, 3, 3), Step::Commit, Step::Kill, Step::Kill] {
        run.step(&step);
    }
}

/// A flush for the sake of acknowledgements, the first one after a crash, began a segment without the records that the
/// one before it no longer counted for.
#[test]
fn a_segment_that_is_begun_for_acknowledgements_has_the_records_of_the_one_it_replaces() {
    use Step::{Append, Commit, Finish, Flush, Kill, PowerCut, Wait};
    let mut run = Run::new(false);
    let steps = [
        [Append(1), Commit, Wait(1000), Flush].as_slice(),
        &[Append(1), Commit, Finish, Wait(1000), Flush, Commit, Finish],
        &[Kill, Flush, Kill, PowerCut(1)],
    ];
    steps.concat().iter().for_each(|step| run.step(step));
}
