use proptest::prelude::*;

use super::*;

const SECOND: i64 = 1_000_000_000;

fn boot(seconds: u64) -> BootTime {
    BootTime(0).after(Duration::from_secs(seconds))
}

fn after(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn multiples_are_of_the_time_since_boot_until_the_clock_is_set() {
    let minute = after(60);
    let mut grid = Grid::new(boot(7), Some(minute), None);
    assert_eq!(grid.at, boot(60), "the first one, too");
    assert!(grid.next(boot(60), minute));
    assert_eq!(grid.at, boot(120));
    // The clock is set while it is waited for: 70 s after the start it is 25 s past a full minute.
    grid.follow(boot(70), Some(Offset(1_800_000_025 * SECOND - 70 * SECOND)));
    assert_eq!(grid.at, boot(105));
    // A sample that takes longer than a minute costs one.
    assert!(!grid.next(boot(170), minute));
    assert_eq!(grid.at, boot(225));
    assert!(grid.next(boot(226), minute));
    assert_eq!(grid.at, boot(285));
}

#[test]
fn without_alignment_the_wall_clock_does_not_matter() {
    let mut grid = Grid::new(boot(7), None, None);
    assert_eq!(grid.at, boot(7));
    grid.follow(boot(8), Some(Offset(1_800_000_025 * SECOND)));
    assert!(grid.next(boot(8), after(10)));
    assert_eq!(grid.at, boot(17));
    grid.follow(boot(9), Some(Offset(3)));
    assert!(!grid.next(boot(40), after(10)));
    assert_eq!(grid.at, boot(47));
}

#[test]
fn after_a_fault_it_comes_back_to_a_multiple() {
    let mut grid = Grid::new(boot(0), Some(after(10)), Some(Offset(3 * SECOND)));
    assert_eq!(grid.at, boot(7));
    assert!(grid.next(boot(8), after(16)));
    assert_eq!(grid.at, boot(27), "the nearest to 16 s after the fault");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the wall clock does, a sample comes on a multiple, and between half an interval and one and a half after
    /// the last.
    #[test]
    fn a_step_costs_one_sample_or_adds_one(
        every in 1_000..5_000_000_000_000_u64,
        steps in prop::collection::vec((-20_000 * SECOND..20_000 * SECOND, 0.0..0.5_f64, any::<bool>()), 1..30),
    ) {
        let span = Duration::from_nanos(every);
        let mut offset = Offset(1_800_000_000 * SECOND);
        let mut grid = Grid::new(boot(100), Some(span), Some(offset));
        let mut last = grid.at;
        for (step, when, happens) in steps {
            prop_assert!(grid.next(last, span));
            if happens {
                offset = Offset(offset.0 + step);
                grid.follow(last.after(span.mul_f64(when)), Some(offset));
            }
            prop_assert_eq!(offset.wall(grid.at).0.rem_euclid(i64::try_from(every).expect("short")), 0);
            let gap = grid.at.since(last);
            let half = span / 2 + Duration::from_nanos(1);
            prop_assert!(gap + half >= span && gap <= span + half, "{:?}, where {:?} are meant", gap, span);
            last = grid.at;
        }
    }

    #[test]
    fn no_number_is_too_large(now: u64, pause: u64, every: u64, offset: i64) {
        let (span, pause) = (Duration::from_nanos(every), Duration::from_nanos(pause));
        for every in [span, Duration::MAX] {
            let mut grid = Grid::new(BootTime(now), Some(every), Some(Offset(offset)));
            prop_assert!(grid.at >= BootTime(now));
            for pause in [pause, Duration::ZERO, Duration::MAX] {
                grid.next(BootTime(now), pause);
                prop_assert!(grid.at >= BootTime(now));
            }
        }
    }
}

#[test]
fn another_schedule_holds_from_the_next_sample_on_and_adds_none() {
    let mut grid = Grid::new(boot(7), None, None);
    assert!(grid.next(boot(7), after(10)));
    assert_eq!(grid.at, boot(17));
    grid.reschedule(boot(9), after(4), false);
    assert_eq!(grid.at, boot(11), "so long after the last one");
    grid.reschedule(boot(9), after(60), false);
    assert_eq!(grid.at, boot(67));
    grid.reschedule(boot(30), after(5), false);
    assert_eq!(grid.at, boot(30), "it would have been before");
    grid.reschedule(boot(30), after(20), true);
    assert_eq!(grid.at, boot(40));
    // What is the same changes nothing.
    grid.reschedule(boot(31), after(20), true);
    assert_eq!(grid.at, boot(40));
    let mut first = Grid::new(boot(7), None, None);
    first.reschedule(boot(8), after(4), false);
    assert_eq!(first.at, boot(7), "the first one is still to come");
}
