//! Whatever lies in the folders of an outbox: it opens, gives what it can, takes new records, and opens again.
//!
//! The input is a list of changes to the files of a real outbox. Some of them mend the checksum behind them, as
//! `docs/outbox-format.md` describes it: else nothing would be seen of the code behind it.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use vigie::clock::{BootId, BootTime};
use vigie::outbox::{Body, Full, OpenError, Outbox, Raw, Settings};

/// Bytes of a file's header, and where its number stands.
const HEADER: usize = 40;
const NUMBER: usize = 16;

/// Changes of one input.
const MAX_CHANGES: usize = 32;

/// Always the same folder: the tail's is named after it. In memory, where there is such a place.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let shm = Path::new("/dev/shm");
    let parent = if shm.is_dir() { shm.to_owned() } else { std::env::temp_dir() };
    parent.join(format!("vigie-fuzz-{}", std::process::id()))
});

/// The files of a real outbox, of which some records are on disk, some acknowledged and some in the tail only.
static REAL: LazyLock<Vec<(PathBuf, Vec<u8>)>> = LazyLock::new(|| {
    clear();
    let (mut outbox, _) = open().expect("an empty folder opens");
    let (home, _) = (outbox.cursor("home"), outbox.cursor("cloud"));
    for round in 0..4_u64 {
        (0..40).for_each(|_| append(&mut outbox));
        outbox.put_state("counter", Some(vec![1, 2, 3]));
        outbox.ack(home, round * 40 + 5..round * 40 + 20);
        outbox.commit(BootTime(0));
        if round < 2 {
            let later = BootTime(0).after(Duration::from_secs(3600 * (round + 1)));
            while let Some(job) = outbox.begin_flush(later) {
                let done = job.run();
                outbox.finish_flush(done, later);
            }
        }
    }
    drop(outbox);
    let mut files = Vec::new();
    read_files(&FOLDER, &mut files);
    files.sort();
    assert!(files.len() >= 3, "segments, state and tail");
    files
});

fn settings() -> Settings {
    Settings {
        dir: FOLDER.join("outbox"),
        tail_dir: FOLDER.join("tail"),
        flush: Duration::from_secs(1),
        max_bytes: 8 << 20,
        free_share: 100,
        full: Full::DropOldest,
        memory_bytes: 1 << 20,
        persist: Duration::from_secs(300),
        key: None,
    }
}

fn open() -> Result<(Outbox, vigie::outbox::Recovery), OpenError> {
    Outbox::open(settings(), BootId([1; 16]), BootTime(0))
}

fn append(outbox: &mut Outbox) {
    let raw = Raw { topic: "a/b".into(), payload: b"some bytes".as_slice().into(), retain: false };
    outbox.append(BootTime(7), None, Body::Raw(raw));
}

fn clear() {
    let _ = fs::remove_dir_all(&*FOLDER);
    fs::create_dir_all(&*FOLDER).expect("a folder can be made");
}

fn read_files(folder: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).expect("our own folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            read_files(&path, files);
        } else {
            let mut bytes = fs::read(&path).expect("our own file");
            // A segment ends in a megabyte of zeros, which say nothing.
            let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            bytes.truncate(used.next_multiple_of(4096));
            files.push((path, bytes));
        }
    }
}

/// The input, taken apart; zeros when it is at its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> usize {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        usize::from(*first)
    }

    fn number(&mut self) -> usize {
        self.byte() << 8 | self.byte()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = self.byte().min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }
}

/// Where the frames of a file lie, header included.
fn frames(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let (mut found, mut at) = (Vec::new(), HEADER);
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
        let end = at.saturating_add(8).saturating_add(length);
        if length == 0 || end > bytes.len() {
            break;
        }
        found.push(at..end);
        at = end;
    }
    found
}

/// Gives the frame a length and a checksum that fit.
fn seal(bytes: &mut [u8], frame: std::ops::Range<usize>) {
    let number = bytes.get(NUMBER..NUMBER + 4).map_or(0, |low| u32::from_le_bytes([low[0], low[1], low[2], low[3]]));
    let checksum = crc32fast::hash(&bytes[frame.start + 8..frame.end]) ^ number.wrapping_mul(0x9E37_79B1);
    let length = u32::try_from(frame.len() - 8).expect("small");
    bytes[frame.start..frame.start + 4].copy_from_slice(&length.to_le_bytes());
    bytes[frame.start + 4..frame.start + 8].copy_from_slice(&checksum.to_le_bytes());
}

fn change(files: &mut [(PathBuf, Vec<u8>)], input: &mut Input<'_>) {
    let what = input.byte();
    let index = input.byte() % files.len();
    let bytes = &mut files[index].1;
    let frames = frames(bytes);
    match what % 6 {
        0 if !bytes.is_empty() => {
            let at = input.number() % bytes.len();
            bytes[at] ^= u8::try_from(input.byte()).expect("a byte");
        }
        1 => bytes.truncate(input.number()),
        // Bytes of a frame are written over, and its checksum mended.
        2 | 3 if !frames.is_empty() => {
            let frame = frames[input.byte() % frames.len()].clone();
            let at = frame.start + 8 + input.number() % (frame.len() - 8);
            for (byte, new) in bytes[at..frame.end].iter_mut().zip(input.bytes()) {
                *byte = new;
            }
            seal(bytes, frame);
        }
        // A frame is put at the end.
        4 => {
            let start = frames.last().map_or(bytes.len(), |last| last.end);
            bytes.truncate(start);
            bytes.extend_from_slice(&[0; 8]);
            bytes.push(u8::try_from(input.byte() % 12).expect("a byte"));
            bytes.extend(input.bytes());
            let end = bytes.len();
            seal(bytes, start..end);
        }
        // A file is as another one.
        5 => {
            let other = input.byte() % files.len();
            files[index].1 = files[other].1.clone();
        }
        _ => {}
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut files = REAL.clone();
    let mut input = Input(bytes);
    for _ in 0..MAX_CHANGES {
        if input.0.is_empty() {
            break;
        }
        change(&mut files, &mut input);
    }
    clear();
    for (path, bytes) in &files {
        fs::create_dir_all(path.parent().expect("below a folder")).expect("a folder can be made");
        fs::write(path, bytes).expect("a file can be written");
    }
    let mut outbox = match open() {
        Ok((outbox, _)) => outbox,
        Err(OpenError::Newer { .. }) => return,
        Err(error) => panic!("{error}"),
    };
    let cursors = ["home", "cloud"].map(|name| outbox.cursor(name));
    for cursor in cursors {
        let (mut from, mut entries) = (0, Vec::new());
        loop {
            entries.clear();
            outbox.read(cursor, from, 50, &mut entries);
            let Some(last) = entries.last() else { break };
            assert!(last.seqs().end > from, "it goes on");
            from = last.seqs().end;
        }
    }
    append(&mut outbox);
    outbox.commit(BootTime(0));
    for cursor in cursors {
        outbox.ack(cursor, 0..outbox.end());
    }
    outbox.commit(BootTime(0));
    let end = outbox.end();
    outbox.close(BootTime(0)).expect("it closes");
    let (mut outbox, recovery) = open().expect("it opens again");
    assert!(!recovery.state_lost, "the state was written when it was closed");
    assert!(outbox.end() >= end, "positions never go back");
    for name in ["home", "cloud"] {
        let cursor = outbox.cursor(name);
        assert_eq!(outbox.backlog(cursor), 0, "everything was acknowledged");
    }
});
