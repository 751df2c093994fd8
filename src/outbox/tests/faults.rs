//! A disk, or the folder of the tail, that fails, hangs or loses its power.

use super::*;

#[test]
fn a_dead_disk_costs_memory_then_the_oldest_and_heals() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    let fault = Fault { below: DISK.into(), after: 0, times: u64::MAX, kind: io::ErrorKind::StorageFull };
    rig.disk.fail(Some(fault));
    let mut attempts = 0;
    for round in 0..40 {
        rig.append(&mut outbox, round * 1000..(round + 1) * 1000);
        rig.wait(SECOND);
        let before = outbox.stats().write_errors;
        rig.flush(&mut outbox);
        attempts += outbox.stats().write_errors - before;
    }
    assert!((3..10).contains(&attempts), "retries are paced: {attempts}");
    let stats = outbox.stats();
    assert!(!stats.disk_works && stats.memory_bytes <= rig.settings.memory_bytes, "{stats:?}");
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::DiskFailed { .. }]), "once, not at each try: {warnings:?}");
    let drops = outbox.take_drops();
    assert_eq!((drops[0].reason, drops[0].span.start), (DropReason::MemoryFull, 0));
    let first = u32::try_from(drops[0].count).expect("few");
    assert_eq!(all(&mut outbox, home), numbers(first..40_000));

    rig.disk.fail(None);
    rig.wait(60 * SECOND);
    rig.flush(&mut outbox);
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::DiskWorks]), "{warnings:?}");
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(first..40_000));
}

#[test]
fn a_failed_sync_is_never_taken_for_done() {
    for after in 0..8 {
        let mut rig = Rig::new();
        let (mut outbox, _) = rig.open();
        outbox.cursor("home");
        rig.append(&mut outbox, 0..10);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
        rig.append(&mut outbox, 10..20);
        rig.wait(SECOND);
        let other = io::ErrorKind::Other;
        rig.disk.fail(Some(Fault { below: DISK.into(), after, times: 1, kind: other }));
        rig.flush(&mut outbox);
        rig.wait(2 * SECOND);
        rig.flush(&mut outbox);
        assert!(outbox.oldest_unflushed().is_none());
        drop(outbox);
        rig.disk.power_cut(|| false);
        let (mut outbox, _) = rig.open();
        let home = outbox.cursor("home");
        assert_eq!(all(&mut outbox, home), numbers(0..20), "operation {after} failed");
    }
}

#[test]
fn a_segment_that_takes_no_writes_is_left() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    // A bad block: this file fails for ever, others do not.
    let below = Path::new(DISK).join(segment::name(1));
    rig.disk.fail(Some(Fault { below, after: 0, times: u64::MAX, kind: io::ErrorKind::Other }));
    rig.append(&mut outbox, 10..20);
    for _ in 0..3 {
        rig.wait(2 * SECOND);
        rig.flush(&mut outbox);
    }
    assert_eq!((outbox.stats().write_errors, outbox.oldest_unflushed()), (1, None));
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..20));
}

#[test]
fn what_a_failed_sync_left_in_the_page_cache_is_not_trusted() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    rig.append(&mut outbox, 10..20);
    rig.wait(SECOND);
    rig.disk.fail(Some(Fault { below: DISK.into(), after: 1, times: 1, kind: io::ErrorKind::Other }));
    rig.flush(&mut outbox);
    assert_eq!(outbox.stats().write_errors, 1);
    drop(outbox);

    // The frames are there to be read, and yet they are not on disk.
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    rig.disk.edit(&Path::new(DISK).join(segment::name(1)), |bytes| bytes[4096..].fill(0));
    while outbox.memory.pop_front_until(outbox.on_disk) {}
    assert_eq!(outbox.memory.first(), None);
    assert_eq!(all(&mut outbox, home), numbers(0..20));
    assert_eq!(outbox.stats().damage, 0);
}

#[test]
fn a_torn_flush_is_not_written_over() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for round in 0..2 {
        rig.append(&mut outbox, round * 10..(round + 1) * 10);
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    drop(outbox);
    rig.disk.files(Path::new(TMPFS)).iter().for_each(|path| rig.disk.delete(path));
    let path = Path::new(DISK).join(segment::name(1));
    rig.disk.edit(&path, |bytes| bytes[4096 + 200..].fill(0));
    let torn = rig.disk.contents(&path);
    let (mut outbox, recovery) = rig.open();
    let home = outbox.cursor("home");
    let kept = all(&mut outbox, home);
    assert!(kept.len() > 10 && kept.len() < 20, "{kept:?}");
    assert_eq!(recovery.waiting, kept.len() as u64);
    rig.append(&mut outbox, 20..30);
    rig.wait(SECOND);
    rig.flush(&mut outbox);
    assert_eq!(rig.segments().len(), 2);
    assert_eq!(rig.disk.contents(&path), torn);
    assert_eq!(outbox.stats().damage, 0, "a torn end is no damage");
}

#[test]
fn without_a_tail_it_goes_on_and_flushes_at_once() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    let full = io::ErrorKind::StorageFull;
    rig.disk.fail(Some(Fault { below: TMPFS.into(), after: 0, times: u64::MAX, kind: full }));
    rig.append(&mut outbox, 10..20);
    assert_eq!(outbox.flush_due(), Some(rig.now));
    assert!(matches!(outbox.take_warnings()[..], [Warning::TailFailed { .. }]));
    rig.flush(&mut outbox);
    outbox.ack(home, 0..15);
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    drop(outbox);

    // The tail that was left behind is older than the log.
    rig.disk.fail(None);
    let (mut outbox, recovery) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(15..20));
    assert_eq!(recovery.waiting, 5);
    rig.append(&mut outbox, 20..30);
    drop(outbox);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(15..30));
}

#[test]
fn the_tail_stays_small_and_heals() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    let mut longest = 0;
    for round in 0..300 {
        rig.append(&mut outbox, round * 1000..(round + 1) * 1000);
        longest = longest.max(outbox.stats().tail_bytes);
        outbox.ack(home, 0..outbox.end() - 5);
        outbox.commit(rig.now);
        longest = longest.max(outbox.stats().tail_bytes);
    }
    assert!((1 << 20..2 << 20).contains(&longest), "{longest}");
    assert!(rig.disk.written().0 < 1 << 20, "the tail is not on disk");
    assert_eq!(rig.disk.files(Path::new(TMPFS)).len(), 1);
    rig.disk.fail(Some(Fault { below: TMPFS.into(), after: 0, times: 3, kind: io::ErrorKind::Other }));
    rig.append(&mut outbox, 300_000..300_001);
    rig.wait(10 * SECOND);
    outbox.commit(rig.now);
    rig.wait(10 * SECOND);
    outbox.commit(rig.now);
    rig.wait(10 * SECOND);
    outbox.commit(rig.now);
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::TailFailed { .. }, Warning::TailWorks]), "{warnings:?}");
    drop(outbox);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(299_995..300_001));
}

#[test]
fn a_torn_tail_gives_what_was_whole() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    outbox.commit(rig.now);
    rig.append(&mut outbox, 0..10);
    drop(outbox);
    rig.disk.edit(&rig.tail(), |bytes| bytes.truncate(bytes.len() - 3));
    let (mut outbox, recovery) = rig.open();
    assert!(recovery.tail_torn);
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..9));
}

#[test]
fn closing_needs_no_tail() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    outbox.ack(home, 0..4);
    outbox.put_state("counter", Some(vec![1, 2, 3]));
    outbox.close(rig.now).expect("closes");
    assert_eq!(rig.disk.files(Path::new(TMPFS)), Vec::<PathBuf>::new());
    rig.disk.power_cut(|| false);
    let (mut outbox, recovery) = rig.open();
    assert_eq!((outbox.run(), recovery.waiting), (2, 6));
    assert_eq!(outbox.state("counter"), Some(&[1, 2, 3][..]));
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(4..10));
}

#[test]
fn a_flush_survives_a_kill_and_a_power_cut_right_after_each_other() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    rig.append(&mut outbox, 0..10);
    rig.wait(SECOND);
    // The tail is not told of this flush any more.
    rig.flush(&mut outbox);
    drop(outbox);
    drop(rig.open());
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    assert_eq!(all(&mut outbox, home), numbers(0..10));
}
