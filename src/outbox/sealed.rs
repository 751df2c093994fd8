//! Encryption at rest: what a thief reads, what a wrong key does, and that no nonce comes twice.

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;

use super::frame::{FILE_HEADER, FRAME_HEADER, FileId, Found, Kind, PAGE, SEALED_VERSION, VERSION};
use super::simulated::Simulated;
use super::tests::{DISK, Rig, SECOND, all, body, descriptor, key, numbers};
use super::*;

const TEXT: &str = "a text that nobody else may read";

fn other_key() -> Key {
    Arc::new(Box::new([8; KEY_BYTES]).into())
}

fn rig(key: Option<Key>) -> Rig {
    let mut rig = Rig::new();
    rig.settings.key = key;
    rig
}

/// Everything on both file systems.
fn contents(disk: &Simulated) -> BTreeMap<PathBuf, Vec<u8>> {
    let files = disk.files(Path::new("/"));
    files.into_iter().map(|path| (path.clone(), disk.contents(&path))).collect()
}

fn version(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"))
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// An outbox with records in the log, others in the tail, acknowledgements, state and a message of a client; open, so
/// that the tail is there.
fn fill(rig: &mut Rig) -> Outbox {
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("name-of-an-uplink");
    let text = vec![(0, Value::Text(TEXT.into()))];
    for _ in 0..2 {
        let end = outbox.end();
        rig.append(&mut outbox, 0..30);
        let body = Body::Reading { descriptor: descriptor("name-of-a-sensor"), values: text.clone() };
        outbox.append(rig.now, None, body);
        let raw = Raw { topic: "topic/of-a-client".into(), payload: TEXT.as_bytes().into(), retain: false };
        outbox.append(rig.now, None, Body::Raw(raw));
        outbox.put_state("key-of-the-state", Some(TEXT.into()));
        outbox.ack(home, end..end + 3);
        outbox.commit(rig.now);
        rig.wait(SECOND);
        outbox.persist_soon();
        if end == 0 {
            rig.flush(&mut outbox);
        }
    }
    outbox
}

const SECRETS: [&str; 5] = ["name-of-a-sensor", TEXT, "topic/of-a-client", "key-of-the-state", "name-of-an-uplink"];

#[test]
fn a_thief_reads_nothing() {
    for sealed in [false, true] {
        let mut rig = rig(sealed.then(key));
        drop(fill(&mut rig));
        let files = contents(&rig.disk);
        assert_eq!(files.len(), 4, "a segment, a tail, two slots: {:?}", files.keys());
        for secret in SECRETS {
            let found = files.values().filter(|bytes| holds(bytes, secret)).count();
            assert_eq!(found > 0, !sealed, "{secret} in {found} files");
        }
        let expected = if sealed { SEALED_VERSION } else { VERSION };
        assert!(files.values().all(|bytes| version(bytes) == expected));
    }
}

#[test]
fn the_key_is_shown_nowhere() {
    let shown = format!("{:?}", fill(&mut rig(Some(Arc::new(Box::new([0xA5; KEY_BYTES]).into())))));
    assert!(shown.contains("REDACTED") && !shown.contains("165, 165, 165, 165") && !shown.contains("a5a5"), "{shown}");
}

#[test]
fn a_wrong_or_missing_key_is_told_and_changes_nothing() {
    let mut rig = rig(Some(key()));
    drop(fill(&mut rig));
    let before = contents(&rig.disk);
    // Each of the files tells alone.
    for only in before.keys() {
        for path in before.keys() {
            if path == only {
                rig.disk.edit(path, |bytes| bytes.clone_from(&before[path]));
            } else {
                rig.disk.delete(path);
            }
        }
        let alone = contents(&rig.disk);
        rig.settings.key = None;
        let error = rig.try_open().expect_err("no key");
        assert!(matches!(&error, OpenError::KeyMissing { file } if file == only), "{error}");
        rig.settings.key = Some(other_key());
        let error = rig.try_open().expect_err("another key");
        assert!(matches!(&error, OpenError::WrongKey { file } if file == only), "{error}");
        assert_eq!(contents(&rig.disk), alone);
    }
    for (path, bytes) in &before {
        rig.disk.edit(path, |old| old.clone_from(bytes));
    }
    rig.settings.key = Some(key());
    let (mut outbox, recovery) = rig.open();
    let home = outbox.cursor("name-of-an-uplink");
    assert_eq!((outbox.backlog(home), recovery.state_lost), (58, false));
    assert_eq!(outbox.state("key-of-the-state"), Some(TEXT.as_bytes()));
    assert_eq!((outbox.stats().damage, outbox.stats().lost), (0, 0));
}

#[test]
fn a_damaged_header_hides_no_wrong_key() {
    let mut rig = rig(Some(key()));
    drop(fill(&mut rig));
    for path in rig.disk.files(Path::new("/")) {
        rig.disk.edit(&path, |bytes| bytes[12] ^= 1);
    }
    for wrong in [None, Some(other_key())] {
        rig.settings.key = wrong;
        let before = contents(&rig.disk);
        rig.try_open().expect_err("the seals are still there");
        assert_eq!(contents(&rig.disk), before);
    }
}

#[test]
fn another_outboxs_file_does_not_ask_for_its_key() {
    let mut ours = rig(Some(key()));
    let mut theirs = rig(Some(other_key()));
    drop(fill(&mut ours));
    drop(fill(&mut theirs));
    let segment = theirs.disk.contents(&theirs.segments()[0]);
    // Its number is in its header and in each of its frames.
    ours.disk.edit(&ours.segments()[0], |bytes| *bytes = segment);
    let (_, recovery) = ours.open();
    assert_eq!(recovery.set_aside.len(), 1);
}

#[test]
fn what_was_plain_is_read_and_what_is_written_is_sealed() {
    let mut rig = rig(None);
    drop(fill(&mut rig));
    rig.settings.key = Some(key());
    let (mut outbox, recovery) = rig.open();
    assert!(recovery.sealed_from_now);
    let home = outbox.cursor("name-of-an-uplink");
    assert_eq!(outbox.backlog(home), 58);
    rig.append(&mut outbox, 100..110);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    let plain = |rig: &Rig| -> Vec<PathBuf> {
        let files = contents(&rig.disk);
        files.iter().filter(|(_, bytes)| version(bytes) == VERSION).map(|(path, _)| path.clone()).collect()
    };
    // The older slot is the next one to be written.
    let names = plain(&rig).iter().map(|path| path.file_name().expect("a name").to_owned()).collect::<Vec<_>>();
    assert_eq!(names, ["segment-000000000001", "state-0"]);
    assert_eq!(outbox.backlog(home), 68);
    // What is sent is deleted, not used again: old records would stay in it behind new ones.
    outbox.ack(home, 0..outbox.end());
    outbox.put_state("more", Some(vec![1]));
    outbox.persist_soon();
    outbox.close(rig.now).expect("closes");
    assert_eq!(plain(&rig), Vec::<PathBuf>::new());
    for secret in SECRETS {
        assert!(!contents(&rig.disk).values().any(|bytes| holds(bytes, secret)), "{secret}");
    }
    let (_, recovery) = rig.open();
    assert!(!recovery.sealed_from_now, "said once");
}

#[test]
fn spare_segments_that_are_plain_are_deleted() {
    let mut rig = rig(None);
    drop(fill(&mut rig));
    let old = rig.segments()[0].clone();
    let bytes = rig.disk.contents(&old);
    rig.disk.delete(&old);
    rig.disk.edit(&Path::new(DISK).join(segment::spare_name(1)), |spare| *spare = bytes);
    rig.settings.key = Some(key());
    let (mut outbox, _) = rig.open();
    rig.append(&mut outbox, 0..10);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    let files = contents(&rig.disk);
    assert!(files.iter().all(|(path, bytes)| path.ends_with("state-0") || version(bytes) == SEALED_VERSION));
}

#[test]
fn a_flipped_bit_costs_a_record() {
    let mut rig = rig(Some(key()));
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..100);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    outbox.close(rig.now).expect("closes");
    let path = rig.segments()[0].clone();
    let whole = rig.disk.contents(&path);
    let frames = frames(&whole);
    let readings: Vec<usize> =
        frames.iter().filter(|frame| frame.kind == Kind::Reading).map(|frame| frame.at).collect();
    let seals: Vec<usize> = frames.iter().filter(|frame| frame.kind == Kind::Seal).map(|frame| frame.at).collect();
    assert_eq!((readings.len(), seals.len()), (100, 2));
    // In a record, which loses this record; in one of the seals, which loses nothing.
    for (at, lost) in [(readings[40] + 20, 1), (seals[0] + 20, 0), (seals[1] + 20, 0)] {
        rig.disk.edit(&path, |bytes| {
            bytes.clone_from(&whole);
            bytes[at] ^= 4;
        });
        let disk = contents(&rig.disk);
        let (mut outbox, _) = rig.open();
        let home = outbox.cursor("home");
        assert_eq!(all(&mut outbox, home).len(), 100 - lost, "at {at}");
        drop(outbox);
        for (path, bytes) in disk {
            rig.disk.edit(&path, |old| *old = bytes);
        }
    }
}

/// A frame as it lies in a file.
#[derive(Debug)]
struct Stored<'a> {
    at: usize,
    kind: Kind,
    sealed: bool,
    payload: &'a [u8],
}

/// All frames that are whole, as far as one follows the other or begins a page.
fn frames(bytes: &[u8]) -> Vec<Stored<'_>> {
    let Some(number) = bytes.get(16..24) else { return Vec::new() };
    let file = FileId::segment(u64::from_le_bytes(number.try_into().expect("eight bytes")));
    let (mut at, mut found) = (FILE_HEADER, Vec::new());
    while at < bytes.len() {
        if let Found::Frame(kind, sealed, payload, size) = frame::find(&bytes[at..], file) {
            found.push(Stored { at, kind, sealed, payload });
            at += size;
        } else {
            at = (at / PAGE + 1) * PAGE;
        }
    }
    found
}

#[derive(Clone, Debug)]
enum Step {
    Append(u32),
    Flush,
    /// The next write below the disk or the tail fails.
    Fail(bool),
    State,
    Kill,
    PowerCut(u64),
    /// All files are put back as they were at the last one.
    Restore,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u32..200).prop_map(Step::Append),
        4 => Just(Step::Flush),
        1 => any::<bool>().prop_map(Step::Fail),
        2 => Just(Step::State),
        2 => Just(Step::Kill),
        1 => any::<u64>().prop_map(Step::PowerCut),
        1 => Just(Step::Restore),
    ]
}

/// What was sealed with which salt and count.
#[derive(Default)]
struct Seen(BTreeMap<(Vec<u8>, Vec<u8>), Vec<u8>>);

impl Seen {
    /// Looks at all files.
    fn note(&mut self, disk: &Simulated) {
        for (path, bytes) in contents(disk) {
            let mut salt = None;
            for frame in frames(&bytes) {
                match frame.kind {
                    Kind::Seal => salt = Some(frame.payload[..32].to_vec()),
                    _ if frame.sealed => {
                        let pair = (salt.clone().expect("a seal comes first"), frame.payload[..8].to_vec());
                        let before = self.0.entry(pair).or_insert_with(|| frame.payload.to_vec());
                        assert_eq!(before, frame.payload, "in {}", path.display());
                    }
                    kind => {
                        assert!(matches!(kind, Kind::Padding | Kind::Part), "a frame of kind {kind:?} is not sealed");
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 50, ..ProptestConfig::default() })]

    #[test]
    fn no_nonce_comes_twice(steps in prop::collection::vec(step(), 1..40)) {
        let mut rig = rig(Some(key()));
        let (mut outbox, _) = rig.open();
        let mut cursor = outbox.cursor("home");
        let (mut seen, mut backup, mut number) = (Seen::default(), contents(&rig.disk), 0);
        let mut open = Some(outbox);
        for step in steps {
            let Some(mut outbox) = open.take() else { unreachable!("opened at the end of each step") };
            match step {
                Step::Append(count) => {
                    rig.append(&mut outbox, number..number + count);
                    number += count;
                    outbox.ack(cursor, outbox.end() - 1..outbox.end());
                }
                Step::Flush => {
                    rig.wait(2 * SECOND);
                    outbox.commit(rig.now);
                    rig.flush(&mut outbox);
                }
                Step::Fail(tail) => {
                    let below = if tail { "/run" } else { "/disk" }.into();
                    rig.disk.fail(Some(simulated::Fault { below, after: 0, times: 1, kind: io::ErrorKind::Other }));
                }
                Step::State => {
                    outbox.put_state("number", Some(number.to_le_bytes().into()));
                    outbox.persist_soon();
                }
                Step::Kill | Step::PowerCut(_) | Step::Restore => {
                    drop(outbox);
                    rig.disk.fail(None);
                    if let Step::PowerCut(seed) = step {
                        let mut random = seed | 1;
                        rig.disk.power_cut(|| {
                            random ^= random << 13;
                            random ^= random >> 7;
                            random ^= random << 17;
                            !random.is_multiple_of(4)
                        });
                    }
                    if let Step::Restore = step {
                        for path in rig.disk.files(Path::new("/")) {
                            rig.disk.delete(&path);
                        }
                        for (path, bytes) in &backup {
                            rig.disk.edit(path, |old| old.clone_from(bytes));
                        }
                    }
                    backup = contents(&rig.disk);
                    outbox = rig.open().0;
                    cursor = outbox.cursor("home");
                }
            }
            seen.note(&rig.disk);
            open = Some(outbox);
        }
    }

    #[test]
    fn a_flipped_bit_never_gives_another_record(
        which: prop::sample::Index,
        at: prop::sample::Index,
        bit in 0u8..8,
        mend: bool,
    ) {
        let mut rig = rig(Some(key()));
        let (mut outbox, _) = rig.open();
        outbox.cursor("home");
        rig.append(&mut outbox, 0..50);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
        rig.append(&mut outbox, 50..100);
        drop(outbox);
        let files: Vec<PathBuf> = rig.disk.files(Path::new("/"));
        let mut hit = Kind::Padding;
        rig.disk.edit(&files[which.index(files.len())], |bytes| {
            let places: Vec<_> = frames(bytes).iter().map(|it| (it.kind, it.at, it.payload.len())).collect();
            let (kind, start, length) = places[at.index(places.len())];
            hit = kind;
            let within = start + 8 + at.index(length + 1);
            let before = crc32fast::hash(&bytes[start + 8..start + FRAME_HEADER + length]);
            bytes[within] ^= 1 << bit;
            if mend {
                // Whoever flips it on purpose mends the checksum too.
                let after = crc32fast::hash(&bytes[start + 8..start + FRAME_HEADER + length]);
                let mended = before ^ after;
                for (byte, by) in bytes[start + 4..start + 8].iter_mut().zip(mended.to_le_bytes()) {
                    *byte ^= by;
                }
            }
        });
        match rig.try_open() {
            Ok((mut outbox, _)) => {
                let home = outbox.cursor("home");
                let found = all(&mut outbox, home);
                prop_assert!(found.iter().all(|it| *it < 100), "{found:?}");
                prop_assert!(found.is_sorted());
                prop_assert!(hit != Kind::Reading || found.len() >= 99, "{} left", found.len());
            }
            // The check of a seal, with its checksum mended.
            Err(error) => prop_assert!(mend && matches!(error, OpenError::WrongKey { .. }), "{}", error),
        }
    }
}

#[test]
fn a_segment_of_one_run_goes_on_with_the_next_ones_seal() {
    let rig = rig(Some(key()));
    for run in 0..4 {
        let (mut outbox, _) = rig.open();
        outbox.cursor("home");
        rig.append(&mut outbox, run * 10..run * 10 + 10);
        outbox.close(rig.now).expect("closes");
    }
    assert_eq!(rig.segments().len(), 1);
    let seals = frames(&rig.disk.contents(&rig.segments()[0])).iter().filter(|frame| frame.kind == Kind::Seal).count();
    assert_eq!(seals, 8, "two a run");
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..40));
    let body = body(&descriptor("meteo"), 1);
    outbox.append(rig.now, None, body);
    outbox.close(rig.now).expect("closes");
}
