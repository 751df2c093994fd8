//! Files that are damaged, missing, or not ours.

use super::*;

#[test]
fn a_segment_that_was_superseded_displaces_nothing() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    rig.append(&mut outbox, 10..20);
    rig.wait(SECOND);
    // The next segment's number is taken by what the writer could not remove.
    outbox.log.active = None;
    outbox.log.next_number = 3;
    rig.flush(&mut outbox);
    outbox.commit(rig.now);
    let mut stale = Vec::new();
    let ink = Ink::new(FileId::segment(2), None);
    frame::FileHeader::put(&mut stale, ink, outbox.identity);
    drop(outbox);
    let stored = record::StoredCursors { first: 15, cursors: Vec::new() };
    frame::put(&mut stale, ink, Kind::Cursors, |bytes| record::write(bytes, &stored));
    rig.disk.edit(&Path::new(DISK).join(segment::name(2)), |bytes| *bytes = stale);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..20));
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    assert_eq!(rig.segments().len(), 2, "it is gone");
}

#[test]
fn a_tail_with_a_damaged_header_is_read() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    drop(outbox);
    rig.disk.edit(&rig.tail(), |bytes| bytes[20] ^= 1);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..10));
}

#[test]
fn either_slot_of_the_state_may_be_lost() {
    let rig = Rig::new();
    for _ in 0..2 {
        rig.open().0.close(rig.now).expect("closes");
    }
    let slots = [0, 1].map(|slot| Path::new(DISK).join(flush::state_name(slot)));
    let whole = slots.clone().map(|slot| rig.disk.contents(&slot));
    for slot in [0, 1] {
        rig.disk.edit(&slots[slot], |bytes| bytes[50] ^= 1);
        let (outbox, recovery) = rig.open();
        assert!((2..=3).contains(&outbox.run()) && !recovery.state_lost);
        drop(outbox);
        rig.disk.files(Path::new(TMPFS)).iter().for_each(|path| rig.disk.delete(path));
        for (slot, whole) in slots.iter().zip(&whole) {
            rig.disk.edit(slot, |bytes| bytes.clone_from(whole));
        }
    }
    // Both, while there is a tail that tells that this is not the first start: a random run, never a used one.
    rig.open();
    slots.iter().for_each(|slot| rig.disk.edit(slot, Vec::clear));
    let tail = rig.tail();
    rig.disk.edit(&tail, |bytes| bytes.truncate(frame::FILE_HEADER));
    let (outbox, recovery) = rig.open();
    assert!(recovery.state_lost || outbox.run() == 1, "{recovery:?}");
}

#[test]
fn damage_costs_no_more_than_it_must() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for round in 0..60 {
        rig.append(&mut outbox, round * 1000..(round + 1) * 1000);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    outbox.close(rig.now).expect("closes");
    let segments = rig.segments();
    assert!(segments.len() >= 2);
    rig.disk.edit(&segments[0], |bytes| bytes[100_000] ^= 0x10);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    let read = all(&mut outbox, home);
    assert!(read.len() >= 59_000 && read.len() < 60_000, "{}", read.len());
    let stats = outbox.stats();
    assert_eq!((stats.lost, stats.damage), (60_000 - read.len() as u64, 1));
    assert!(matches!(outbox.take_warnings()[..], [Warning::Damaged { .. }]));
    assert_eq!(outbox.backlog(home), read.len() as u64, "nobody waits for what is lost");
    outbox.ack(home, 0..outbox.end());
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    let kept = rig.disk.files(&Path::new(DISK).join(segment::SET_ASIDE));
    assert_eq!(kept.len(), 1, "the damaged file is set aside");
}

#[test]
fn a_segment_deleted_by_hand_blocks_nothing() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for round in 0..60 {
        rig.append(&mut outbox, round * 1000..(round + 1) * 1000);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    let segments = rig.segments();
    rig.disk.delete(&segments[1]);
    let home = outbox.cursor("home");
    let running = all(&mut outbox, home);
    assert!(running.len() > 30_000 && running.len() < 60_000);
    outbox.close(rig.now).expect("closes");
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), running);
}

#[test]
fn a_newer_format_is_refused_untouched() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    rig.append(&mut outbox, 0..10);
    outbox.close(rig.now).expect("closes");
    for name in [flush::state_name(1), segment::name(1)] {
        let path = Path::new(DISK).join(name);
        let old = rig.disk.contents(&path);
        rig.disk.edit(&path, |bytes| {
            bytes[8] = 4;
            let checksum = crc32fast::hash(&bytes[..32]).to_le_bytes();
            bytes[32..36].copy_from_slice(&checksum);
        });
        let before: Vec<_> = rig.disk.files(Path::new("/")).iter().map(|path| rig.disk.contents(path)).collect();
        let error = rig.try_open().expect_err("newer");
        assert!(matches!(error, OpenError::Newer { version: 4, .. }), "{error}");
        let after: Vec<_> = rig.disk.files(Path::new("/")).iter().map(|path| rig.disk.contents(path)).collect();
        assert_eq!(before, after);
        rig.disk.edit(&path, |bytes| *bytes = old);
    }
    rig.open();
}

#[test]
fn the_tail_of_another_outbox_is_not_taken() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    drop(outbox);
    let tail = rig.disk.contents(&rig.tail());
    let path = rig.tail();
    let other = Rig::new();
    other.open().0.close(other.now).expect("closes");
    other.disk.edit(&path, |bytes| *bytes = tail);
    let (mut outbox, recovery) = other.open();
    assert_eq!((recovery.waiting, recovery.set_aside.len()), (0, 1));
    let home = outbox.cursor("home");
    assert!(all(&mut outbox, home).is_empty());
}
