//! Tests of what may happen to the files of an outbox: damaged, deleted, on a disk that takes no writes.

use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::log::PART;
use super::simulated::Fault;
use super::tests::{BOOT, DISK, Rig, SECOND, TMPFS, all, body, descriptor, numbers};
use super::*;

const SENSORS: [&str; 3] = ["meteo", "cave", "roof"];

/// The record of that number; its sensor is one of a few, and now and then it is long.
fn record(number: u32) -> Body {
    let mut record = body(&descriptor(SENSORS[number as usize % SENSORS.len()]), number);
    if let Body::Reading { values, .. } = &mut record
        && number.is_multiple_of(1000)
    {
        values[0].1 = Value::Bytes(vec![number.to_le_bytes()[0]; 200_000].into());
    }
    record
}

/// An outbox that was closed with records of a few sensors in large and small flushes.
fn written() -> (Rig, u32) {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    let mut next = 0;
    for round in 0..60 {
        let end = next + if round % 20 == 0 { 3500 } else { 20 };
        for number in next..end {
            outbox.append(rig.now, None, record(number));
        }
        next = end;
        outbox.commit(rig.now);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    outbox.close(rig.now).expect("closes");
    (rig, next)
}

/// Opens the outbox and reads it; everything that can be read must be right. Gives how much cannot.
fn missing(rig: &Rig, count: u32) -> u64 {
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    let mut entries = Vec::new();
    outbox.read(home, 0, usize::MAX, &mut entries);
    for entry in &entries {
        assert_eq!(entry.body, record(u32::try_from(entry.seq).expect("few")), "at {}", entry.seq);
    }
    let missing = u64::from(count) - entries.len() as u64;
    assert_eq!(outbox.stats().lost, missing);
    let drops = outbox.take_drops();
    assert_eq!(drops.iter().filter(|it| it.reason == DropReason::Damaged).map(|it| it.count).sum::<u64>(), missing);
    assert_eq!(outbox.backlog(home), entries.len() as u64, "nobody waits for what is lost");
    missing
}

/// Positions of the records that can be read.
fn read(outbox: &mut Outbox, cursor: CursorId) -> Vec<Seq> {
    let mut entries = Vec::new();
    outbox.read(cursor, 0, usize::MAX, &mut entries);
    entries.iter().map(|entry| entry.seq).collect()
}

/// The smallest record that is written here, in bytes.
const SMALL: u64 = 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_costs_no_more_than_a_part(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let (rig, count) = written();
        let segment = rig.segments().remove(0);
        rig.disk.edit(&segment, |bytes| {
            let used = bytes.iter().rposition(|byte| *byte != 0).expect("records");
            bytes[at.index(used)] ^= 1 << bit;
        });
        let missing = missing(&rig, count);
        prop_assert!(missing <= PART / SMALL, "{missing}");
    }

    #[test]
    fn a_flipped_bit_in_the_tail_costs_little(at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let rig = Rig::new();
        let (mut outbox, _) = rig.open();
        outbox.cursor("home");
        outbox.commit(rig.now);
        rig.append(&mut outbox, 0..1000);
        drop(outbox);
        let tail = rig.tail();
        let (mut descriptor_at, mut flipped) = (0..0, 0);
        rig.disk.edit(&tail, |bytes| {
            // The one descriptor is needed by all.
            let name = bytes.windows(7).position(|window| window == b"atelier").expect("the descriptor");
            descriptor_at = name - 20..name + 80;
            flipped = at.index(bytes.len());
            bytes[flipped] ^= 1 << bit;
        });
        let (mut outbox, _) = rig.open();
        let home = outbox.cursor("home");
        let read = all(&mut outbox, home);
        prop_assert!(read.windows(2).all(|pair| pair[0] < pair[1]) && read.last().is_none_or(|last| *last < 1000));
        // A length that is damaged hides what follows; anything else costs its frame.
        let lost = 1000 - read.len();
        let hidden = outbox.end() < 1000;
        prop_assert!(lost <= 1 || hidden || descriptor_at.contains(&flipped), "{lost}");
    }
}

#[test]
fn damage_to_a_record_costs_that_record_alone() {
    let (rig, count) = written();
    let segment = rig.segments().remove(0);
    // In the middle of the first flush, far from its descriptors: the value of a record.
    let value = 1500_f64.to_le_bytes();
    rig.disk.edit(&segment, |bytes| {
        let at = bytes.windows(8).position(|window| window == value).expect("the record");
        bytes[at] ^= 1;
    });
    assert_eq!(missing(&rig, count), 1);
}

#[test]
fn damage_to_a_descriptor_costs_no_more_than_a_part() {
    let (rig, count) = written();
    let segment = rig.segments().remove(0);
    rig.disk.edit(&segment, |bytes| {
        let at = bytes.windows(4).position(|window| window == b"cave").expect("a descriptor");
        bytes[at] ^= 1;
    });
    let missing = missing(&rig, count);
    assert!((2..PART / SMALL).contains(&missing), "{missing}");
}

#[test]
fn segments_that_are_gone_at_the_start_are_told_of() {
    for which in [0, 1, 2] {
        let (rig, count) = written();
        let segments = rig.segments();
        rig.disk.delete(&segments[which.min(segments.len() - 1)]);
        let (mut outbox, _) = rig.open();
        let home = outbox.cursor("home");
        let read = read(&mut outbox, home);
        let stats = outbox.stats();
        assert!(read.len() < count as usize && stats.waiting == read.len() as u64, "segment {which}: {stats:?}");
        if which + 1 < segments.len() {
            // Of the last one, nobody knows what it had.
            assert_eq!(stats.lost, u64::from(count) - read.len() as u64, "segment {which}");
        }
        let next = outbox.append(rig.now, None, record(7)).start;
        assert!(next >= *read.last().expect("some"), "positions only grow");
    }
}

#[test]
fn empty_files_are_survived() {
    let (rig, count) = written();
    for path in rig.disk.files(Path::new(DISK)) {
        let whole = rig.disk.contents(&path);
        rig.disk.edit(&path, Vec::clear);
        let (mut outbox, recovery) = rig.open();
        let home = outbox.cursor("home");
        let read = read(&mut outbox, home);
        assert!(read.len() <= count as usize && !recovery.state_lost, "{}", path.display());
        drop(outbox);
        rig.disk.files(Path::new(TMPFS)).iter().for_each(|path| rig.disk.delete(path));
        rig.disk.edit(&path, |bytes| *bytes = whole);
    }
    for slot in 0..2 {
        rig.disk.edit(&Path::new(DISK).join(flush::state_name(slot)), Vec::clear);
    }
    let (mut outbox, recovery) = rig.open();
    assert!(recovery.state_lost && outbox.run() >= 1 << 31);
    let home = outbox.cursor("home");
    assert!(read(&mut outbox, home).len() <= count as usize);
}

#[test]
fn a_disk_that_takes_no_writes_is_told_of_once_and_used_again() {
    // A full disk, a read-only remount, EIO.
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::ReadOnlyFilesystem, io::ErrorKind::Other] {
        let mut rig = Rig::new();
        let (mut outbox, _) = rig.open();
        outbox.cursor("home");
        rig.append(&mut outbox, 0..100);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
        rig.disk.fail(Some(Fault { below: DISK.into(), after: 0, times: u64::MAX, kind }));
        for round in 1..20 {
            rig.append(&mut outbox, round * 100..(round + 1) * 100);
            rig.wait(10 * SECOND);
            rig.flush(&mut outbox);
        }
        assert!(matches!(outbox.take_warnings()[..], [Warning::DiskFailed { .. }]), "{kind}");
        assert!(!outbox.stats().disk_works);
        rig.disk.fail(None);
        rig.wait(60 * SECOND);
        rig.flush(&mut outbox);
        assert!(matches!(outbox.take_warnings()[..], [Warning::DiskWorks]), "{kind}");
        drop(outbox);
        rig.disk.power_cut(|| false);
        let (mut outbox, _) = rig.open();
        let home = outbox.cursor("home");
        assert_eq!(all(&mut outbox, home), numbers(0..2000), "{kind}");
    }
}

#[test]
fn the_folder_is_made_again_with_what_memory_has() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    outbox.put_state("total", Some(vec![7]));
    for round in 0..3 {
        rig.append(&mut outbox, round * 10..(round + 1) * 10);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    rig.disk.delete_folder(Path::new("/disk"));
    for round in 3..6 {
        rig.append(&mut outbox, round * 10..(round + 1) * 10);
        rig.wait(2 * SECOND);
        rig.flush(&mut outbox);
    }
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::DiskFailed { .. }, Warning::DiskWorks]), "{warnings:?}");
    assert_eq!(outbox.oldest_unflushed(), None);
    let error = rig.try_open().expect_err("the new folder is locked too");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let run = outbox.run();
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..60));
    assert_eq!((outbox.run(), outbox.state("total")), (run + 1, Some(&[7][..])));
}

#[test]
fn a_tail_that_was_removed_is_written_anew() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    rig.disk.delete_folder(Path::new(TMPFS));
    rig.wait(SECOND);
    rig.append(&mut outbox, 10..20);
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::TailFailed { .. }, Warning::TailWorks]), "{warnings:?}");
    drop(outbox);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..20));
}

/// The same on the machine's own file system: the folder goes with its parent, then the tail's.
#[test]
fn real_folders_may_be_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = |name: &str| -> PathBuf { folder.path().join(name) };
    let settings = Settings { dir: place("state/outbox"), tail_dir: place("tail"), ..Rig::new().settings };
    let mut rig = Rig::new();
    let (mut outbox, _) = Outbox::open(settings.clone(), BOOT, rig.now).expect("opens");
    let home = outbox.cursor("home");
    for removed in ["none", "state", "tail", "state/outbox"] {
        if removed != "none" {
            std::fs::remove_dir_all(place(removed)).expect("it was there");
        }
        for _ in 0..2 {
            let number = u32::try_from(outbox.end()).expect("few");
            rig.append(&mut outbox, number..number + 5);
            rig.wait(2 * SECOND);
            rig.flush(&mut outbox);
        }
        assert_eq!((outbox.oldest_unflushed(), outbox.stats().tail_works), (None, true), "{removed}");
    }
    assert_eq!(all(&mut outbox, home), numbers(0..40));
    outbox.persist_soon();
    rig.flush(&mut outbox);
    drop(outbox);
    let (mut outbox, recovery) = Outbox::open(settings, BOOT, rig.now).expect("opens");
    let home = outbox.cursor("home");
    assert_eq!((outbox.run(), recovery.state_lost), (2, false));
    assert_eq!(all(&mut outbox, home), numbers(0..40));
}
