//! Tests of what a power cut has sent again: how acknowledgements of records that are on disk get there, and what it
//! costs.

use std::path::PathBuf;

use super::frame::PAGE;
use super::simulated::Fault;
use super::tests::{DISK, Rig, SECOND, all, numbers};
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
fn acknowledgements_that_somebody_waits_for_are_on_disk_at_once() {
    let mut rig = Rig::new();
    let (mut outbox, home) = backlog(&mut rig, 2_000);
    let mut before = rig.disk.written();
    for first in (0..1_000).step_by(50) {
        outbox.ack(home, first..first + 50);
        // And the one of before.
        assert_eq!(outbox.acks_noted() - outbox.acks_on_disk(rig.now), 50 + u64::from(first > 0));
        outbox.hurry_acks();
        outbox.commit(rig.now);
        // What comes meanwhile waits for the next one.
        let job = outbox.begin_flush(rig.now).expect("it is due");
        outbox.ack(home, first + 1_000..first + 1_001);
        outbox.commit(rig.now);
        outbox.finish_flush(job.run(), rig.now);
        assert_eq!(outbox.acks_noted() - outbox.acks_on_disk(rig.now), 1);
        assert_eq!(outbox.flush_due(), Some(rig.now.after(10 * SECOND)));
        let after = rig.disk.written();
        assert!(after.0 - before.0 <= PAGE as u64 && after.1 - before.1 == 1, "{before:?} {after:?}");
        before = after;
    }
    assert_eq!(again(&rig, outbox).len(), 1_000 - 19);
}

#[test]
fn nobody_waits_for_a_disk_that_takes_nothing_or_too_long() {
    let mut rig = Rig::new();
    let (mut outbox, home) = backlog(&mut rig, 100);
    outbox.ack(home, 0..50);
    outbox.hurry_acks();
    outbox.commit(rig.now);
    let job = outbox.begin_flush(rig.now).expect("it is due");
    rig.wait(10 * SECOND);
    assert_eq!(outbox.acks_noted() - outbox.acks_on_disk(rig.now), 50);
    rig.wait(SECOND);
    assert_eq!(outbox.acks_noted() - outbox.acks_on_disk(rig.now), 0, "it takes too long");
    let kind = std::io::ErrorKind::StorageFull;
    rig.disk.fail(Some(Fault { below: DISK.into(), after: 0, times: u64::MAX, kind }));
    outbox.finish_flush(job.run(), rig.now);
    assert!(!outbox.acks_wait(), "it fails");
    outbox.ack(home, 50..60);
    outbox.commit(rig.now);
    assert_eq!(outbox.acks_noted() - outbox.acks_on_disk(rig.now), 0);
    rig.disk.fail(None);
    rig.wait(60 * SECOND);
    assert!(flush_if_due(&rig, &mut outbox));
    outbox.ack(home, 60..70);
    assert!(outbox.acks_wait(), "it works again");
    outbox.commit(rig.now);
    rig.wait(10 * SECOND);
    assert!(flush_if_due(&rig, &mut outbox));
    assert_eq!(again(&rig, outbox), numbers(70..100));
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
        rig.wait(SECOND / 10);
        outbox.hurry_acks();
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
