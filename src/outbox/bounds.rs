//! Tests of the outbox's limits: what goes when one is reached, and what is told of it.

use super::segment::SEGMENT_SIZE;
use super::tests::{BOOT, Rig, SECOND, all, body, numbers};
use super::*;

/// Appends and flushes so many times two thousand records.
fn fill(rig: &mut Rig, outbox: &mut Outbox, rounds: std::ops::Range<u32>) {
    for round in rounds {
        rig.append(outbox, round * 2000..(round + 1) * 2000);
        rig.wait(SECOND);
        rig.flush(outbox);
    }
}

#[test]
fn the_newest_go_where_that_is_wanted_and_room_is_used_at_once() {
    let mut rig = Rig::new();
    rig.settings.max_bytes = 3 * SEGMENT_SIZE;
    rig.settings.full = Full::DropNewest;
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    fill(&mut rig, &mut outbox, 0..80);
    assert!(!outbox.congested(), "nobody should wait for a log that takes nothing");
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::NewestGo]), "once: {warnings:?}");
    let drops = outbox.take_drops();
    assert_eq!((drops.len(), drops[0].reason), (1, DropReason::DiskFull), "{drops:?}");
    let kept = all(&mut outbox, home);
    assert!(kept == numbers(0..u32::try_from(kept.len()).expect("few")), "the oldest stay");
    assert_eq!(kept.len() as u64 + drops[0].count, 160_000);
    assert!(outbox.stats().memory_bytes <= rig.settings.memory_bytes && rig.segments().len() == 3);
    let (first, last) = drops[0].when.expect("they were just measured");
    assert!(first.at < last.at && last.boot == BOOT);

    outbox.ack(home, 0..outbox.end());
    outbox.commit(rig.now);
    rig.wait(2 * SECOND);
    fill(&mut rig, &mut outbox, 80..82);
    assert_eq!(outbox.take_drops(), []);
    assert!(all(&mut outbox, home) == numbers(160_000..164_000));
}

#[test]
fn others_that_fill_the_disk_are_left_their_share() {
    let mut rig = Rig::new();
    let size = 40 * SEGMENT_SIZE;
    rig.disk.limit(size, 0);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    fill(&mut rig, &mut outbox, 0..60);
    let before = rig.segments().len();
    assert!((4..10).contains(&before) && outbox.take_warnings().is_empty());

    // What is left is 12 segments, ours included: 6 may be ours.
    rig.disk.limit(size, 28 * SEGMENT_SIZE);
    fill(&mut rig, &mut outbox, 60..200);
    assert!(rig.segments().len() <= 6, "{:?}", rig.segments());
    let warnings = outbox.take_warnings();
    assert!(matches!(warnings[..], [Warning::DiskShort { share: 50, .. }]), "once: {warnings:?}");
    let drops = outbox.take_drops();
    assert_eq!(drops.iter().map(|drop| drop.reason).collect::<Vec<_>>(), [DropReason::DiskFull]);
    assert_eq!(all(&mut outbox, home).last(), Some(&399_999));

    // The others make room again: the log grows.
    rig.disk.limit(size, 0);
    fill(&mut rig, &mut outbox, 200..300);
    assert!(rig.segments().len() > 8 && outbox.take_drops().is_empty());
}

#[test]
fn drops_say_when_what_went_was_measured() {
    let mut rig = Rig::new();
    rig.settings.max_bytes = 2 * SEGMENT_SIZE;
    let (mut outbox, _) = rig.open();
    outbox.cursor("home");
    for number in 0..120_000 {
        let time = (number >= 10_000).then_some(WallTime(i64::from(number)));
        outbox.append(BootTime(u64::from(number)), time, body(&rig.sensor, number));
        if number % 1000 == 999 {
            outbox.commit(rig.now);
            rig.wait(SECOND);
            rig.flush(&mut outbox);
        }
    }
    let drops = outbox.take_drops();
    let [Dropped { reason: DropReason::DiskFull, cursor: None, span, when: Some((first, last)), count, .. }] =
        &drops[..]
    else {
        panic!("{drops:?}")
    };
    assert_eq!((span.start, span.end), (0, *count));
    assert_eq!(*first, Moment { boot: BOOT, at: BootTime(0), time: None });
    let last_number = span.end - 1;
    let time = i64::try_from(last_number).map(WallTime).ok();
    assert_eq!(*last, Moment { boot: BOOT, at: BootTime(last_number), time });
}

#[test]
fn an_uplink_gives_up_what_is_too_old_for_itself_alone() {
    let rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let (home, cloud) = (outbox.cursor("home"), outbox.cursor("cloud"));
    rig.append(&mut outbox, 0..10);
    outbox.ack(home, 3..4);
    let when = Some(Moment { boot: BOOT, at: rig.now, time: None });
    outbox.drop_for(home, 0..5, DropReason::Expired, Some("meteo"), when);
    outbox.drop_for(home, 0..5, DropReason::Expired, Some("meteo"), when);
    outbox.drop_for(home, 7..9, DropReason::Refused, None, None);
    outbox.commit(rig.now);
    let drops = outbox.take_drops();
    let told: Vec<_> =
        drops.iter().map(|it| (it.reason, it.cursor.as_deref(), it.sensor.as_deref(), it.count)).collect();
    assert_eq!(
        told,
        [(DropReason::Expired, Some("home"), Some("meteo"), 4), (DropReason::Refused, Some("home"), None, 2)]
    );
    assert_eq!(outbox.stats().dropped, 6);
    drop(outbox);
    let (mut outbox, _) = rig.open();
    assert_eq!((all(&mut outbox, home), all(&mut outbox, cloud)), (vec![5, 6, 9], numbers(0..10)));
}

#[test]
fn a_soft_cursor_reads_everything_and_writes_nothing() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let (home, archive) = (outbox.cursor("home"), outbox.cursor_soft("$archive"));
    let before = rig.disk.written();
    for number in 0..600 {
        rig.append(&mut outbox, number..number + 1);
        rig.wait(SECOND / 2);
        outbox.ack(home, 0..outbox.end());
        outbox.commit(rig.now);
        assert_eq!((outbox.flush_due(), outbox.stats().waiting), (None, 0));
    }
    assert_eq!(rig.disk.written(), before);
    assert_eq!(all(&mut outbox, archive), numbers(0..600));
    outbox.ack(archive, 0..400);
    outbox.commit(rig.now);
    assert_eq!(all(&mut outbox, archive), numbers(400..600));
    outbox.ack(archive, 400..600);

    // Segments wait for it too.
    fill(&mut rig, &mut outbox, 1..40);
    let full = rig.segments().len();
    outbox.ack(home, 0..outbox.end());
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    assert_eq!(rig.segments().len(), full);
    assert!(all(&mut outbox, archive) == numbers(2000..80_000));
    outbox.ack(archive, 0..outbox.end());
    outbox.commit(rig.now);
    rig.wait(20 * SECOND);
    rig.flush(&mut outbox);
    assert_eq!((rig.segments().len(), outbox.stats().dropped), (1, 0));
    drop(outbox);
    let (mut outbox, _) = rig.open();
    let archive = outbox.cursor_soft("$archive");
    assert_eq!((all(&mut outbox, archive), outbox.take_drops()), (Vec::new(), Vec::new()));
}

#[test]
fn a_soft_cursor_that_is_slow_loses_its_own() {
    let mut rig = Rig::new();
    let (mut outbox, _) = rig.open();
    let (home, archive) = (outbox.cursor("home"), outbox.cursor_soft("$archive"));
    let before = rig.disk.written();
    for round in 0..60 {
        rig.append(&mut outbox, round * 1000..(round + 1) * 1000);
        outbox.ack(home, 0..outbox.end());
        outbox.commit(rig.now);
        rig.wait(SECOND / 2);
        assert_eq!(outbox.flush_due(), None);
    }
    assert_eq!(rig.disk.written(), before);
    assert!(outbox.stats().memory_bytes <= rig.settings.memory_bytes / 2, "{:?}", outbox.stats());
    let drops = outbox.take_drops();
    let [dropped] = &drops[..] else { panic!("{drops:?}") };
    assert_eq!((dropped.reason, dropped.cursor.as_deref()), (DropReason::MemoryFull, Some("$archive")));
    assert_eq!(dropped.sensor.as_deref(), Some("meteo"));
    let read = all(&mut outbox, archive);
    assert_eq!(read.len() as u64 + dropped.count, 60_000);
    assert_eq!(read.last(), Some(&59_999));
    assert_eq!(outbox.backlog(home), 0);
}
