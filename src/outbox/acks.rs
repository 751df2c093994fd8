//! Tests of what a power cut has sent again: how acknowledgements of records that are on disk get there, and what it
//! costs.

use std::path::PathBuf;

use super::flush::{MANY_ACKS, MANY_ACKS_TO_DISK};
use super::frame::PAGE;
use super::tests::{Rig, SECOND, all, numbers};
use super::*;

/// An outbox with so many records on disk, and a cursor that has acknowledged none.
fn backlog(rig: &mut Rig, count: u32) -> (Outbox, CursorId) {
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    for first in (0..count).step_by(2000) {
        rig.append(&mut outbox, first..(first + 2000).min(count));
        rig.wait(SECOND);
        rig.flush(&mut outbox);
    }
    assert_eq!(outbox.on_disk(), u64::from(count));
    (outbox, home)
}

/// Flushes what is due, as the agent does after each commit.
fn flush_if_due(rig: &Rig, outbox: &mut Outbox) -> bool {
    let due = outbox.flush_due().is_some_and(|due| due <= rig.now);
    if due {
        let job = outbox.begin_flush(rig.now).expect("what is due is written");
        outbox.finish_flush(job.run(), rig.now);
    }
    due
}

/// What is sent again after a power cut.
fn again(rig: &Rig, outbox: Outbox) -> Vec<u32> {
    drop(outbox);
    rig.disk.power_cut(|| false);
    let (mut outbox, _) = rig.open();
    let home = outbox.cursor("home");
    all(&mut outbox, home)
}

#[test]
fn a_power_cut_while_a_backlog_is_sent_doubles_few() {
    // Messages a second, of which so many are acknowledged at a time.
    for (rate, window) in [(100, 1), (1000, 7), (1000, 100), (10_000, 100), (10_000, 1000)] {
        let mut rig = Rig::new();
        let (mut outbox, home) = backlog(&mut rig, 20_000);
        for acked in (window..=15_000).step_by(usize::try_from(window).expect("few")) {
            outbox.ack(home, acked - window..acked);
            outbox.commit(rig.now);
            flush_if_due(&rig, &mut outbox);
            rig.wait(SECOND * u32::try_from(window).expect("few") / rate);
        }
        let acked = u32::try_from(outbox.low(home)).expect("few");
        let left = again(&rig, outbox);
        assert_eq!(left.last(), Some(&19_999));
        let doubled = acked - left[0];
        let meanwhile = u64::from(rate) * u64::try_from(MANY_ACKS_TO_DISK.as_millis()).expect("few") / 1000;
        let most = MANY_ACKS + meanwhile + window;
        assert!(u64::from(doubled) <= most, "{doubled} at {rate} a second and a window of {window}");
    }
}

#[test]
fn a_page_is_written_for_a_hundred_acknowledgements_or_ten_a_second() {
    for (rate, window, most) in [(1000, 10, 1000), (1000, 100, 1000), (20_000, 100, 50), (20_000, 1000, 50)] {
        let mut rig = Rig::new();
        let (mut outbox, home) = backlog(&mut rig, 100_000);
        let (before, created) = (rig.disk.written(), outbox.stats().segments_created);
        for first in (0..100_000).step_by(window) {
            outbox.ack(home, first..first + window as u64);
            outbox.commit(rig.now);
            rig.wait(SECOND * u32::try_from(window).expect("few") / rate);
            flush_if_due(&rig, &mut outbox);
        }
        let after = rig.disk.written();
        let created = outbox.stats().segments_created - created;
        assert!(created <= 1, "what is sent makes room: {created}");
        let bytes = after.0 - before.0 - created * segment::SEGMENT_SIZE;
        assert!(bytes <= most * PAGE as u64, "{bytes} bytes at a window of {window}");
        assert!(after.1 - before.1 <= most + 10, "{} syncs", after.1 - before.1);
    }
}

#[test]
fn few_acknowledgements_wait_and_bring_no_records_along() {
    let mut rig = Rig::new();
    let (mut outbox, home) = backlog(&mut rig, 50);
    outbox.ack(home, 0..40);
    outbox.commit(rig.now);
    assert_eq!(outbox.flush_due(), Some(rig.now.after(10 * SECOND)));
    rig.wait(Duration::from_millis(9_500));
    // What was just taken may be acknowledged before it would have to be written.
    rig.append(&mut outbox, 50..60);
    rig.wait(SECOND / 2);
    assert!(flush_if_due(&rig, &mut outbox));
    assert_eq!(outbox.on_disk(), 50);
    outbox.ack(home, 40..60);
    outbox.commit(rig.now);
    rig.wait(10 * SECOND);
    assert!(flush_if_due(&rig, &mut outbox), "of 40 to 49");
    let before = rig.disk.written();
    for number in 60..2000 {
        rig.append(&mut outbox, number..number + 1);
        outbox.ack(home, u64::from(number)..outbox.end());
        outbox.commit(rig.now);
        rig.wait(SECOND / 20);
        assert_eq!(outbox.flush_due(), None, "nothing on disk is of interest any more");
    }
    assert_eq!(rig.disk.written(), before);
    assert_eq!(again(&rig, outbox), numbers(0..0));
}

#[test]
fn what_is_acknowledged_while_it_is_written_is_known_on_disk_in_time() {
    let mut rig = Rig::new();
    let (mut outbox, home) = backlog(&mut rig, 10);
    rig.append(&mut outbox, 10..20);
    rig.wait(SECOND);
    let job = outbox.begin_flush(rig.now).expect("it is due");
    outbox.ack(home, 0..20);
    outbox.commit(rig.now);
    outbox.finish_flush(job.run(), rig.now);
    assert_eq!(outbox.flush_due(), Some(rig.now.after(10 * SECOND)));
    rig.wait(10 * SECOND);
    assert!(flush_if_due(&rig, &mut outbox));
    assert_eq!(again(&rig, outbox), numbers(0..0));
}

#[test]
fn at_its_limit_the_log_drops_nothing_for_the_sake_of_acknowledgements() {
    let mut rig = Rig::new();
    rig.settings.max_bytes = 2 * segment::SEGMENT_SIZE;
    let (mut outbox, home) = backlog(&mut rig, 40_000);
    assert_eq!((rig.segments().len(), outbox.stats().dropped), (2, 0));
    let mut flushes = 0;
    // From the newest on, so that no segment can be used again.
    for last in (4..=400).rev() {
        outbox.ack(home, last * 100 - 100..last * 100);
        outbox.commit(rig.now);
        rig.wait(MANY_ACKS_TO_DISK);
        if outbox.flush_due().is_some_and(|due| due <= rig.now)
            && let Some(job) = outbox.begin_flush(rig.now)
        {
            outbox.finish_flush(job.run(), rig.now);
            flushes += 1;
        }
        assert!(outbox.flush_due().is_none_or(|due| due > rig.now), "nobody should try in circles");
    }
    assert!((10..390).contains(&flushes), "{flushes}");
    assert_eq!(outbox.stats().dropped, 0);
    assert_eq!(all(&mut outbox, home), numbers(0..300));
    let segments: Vec<PathBuf> = rig.segments();
    assert_eq!(segments.len(), 2);
    assert_eq!(again(&rig, outbox)[..300], numbers(0..300));
}
