use std::collections::HashMap;
use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};

const BOOT: BootId = BootId([1; 16]);
const SECOND: i64 = 1_000_000_000;

fn moment(at: u64) -> Moment {
    Moment { boot: BOOT, at: BootTime(at * 1_000_000_000), time: None }
}

/// What the clock says now.
fn claim(clock: &ManualClock) -> Claim {
    believe(&clock.look(), clock.earliest(), None).expect("it is set")
}

fn seconds(dating: &Dating, at: u64) -> Option<i64> {
    match dating.date_of(&moment(at)) {
        Date::Wall(WallTime(nanos)) => Some(nanos / SECOND),
        Date::Uptime(..) => None,
    }
}

/// A clock that is at 1000 s, 100 s after the start, and what is noted of it.
fn set_at_100() -> (ManualClock, Dating) {
    let clock = ManualClock::new();
    clock.advance(Duration::from_secs(100));
    clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_000));
    let mut dating = Dating::default();
    assert_eq!(dating.take(BOOT, claim(&clock)), Some(Change::Set));
    (clock, dating)
}

#[test]
fn what_was_measured_before_the_clock_was_set_gets_its_true_time() {
    assert_eq!(Dating::default().date_of(&moment(7)), Date::Uptime(BOOT, BootTime(7 * 1_000_000_000)));
    let (_, dating) = set_at_100();
    assert_eq!(seconds(&dating, 40), Some(940));
    let other = Moment { boot: BootId([2; 16]), ..moment(40) };
    assert_eq!(dating.date_of(&other), Date::Uptime(other.boot, other.at));
    let taken_with = Moment { time: Some(WallTime(9)), ..other };
    assert_eq!(dating.date_of(&taken_with), Date::Wall(WallTime(9)));
}

#[test]
fn a_step_dates_what_nobody_was_told_of() {
    let (clock, mut dating) = set_at_100();
    clock.step(40 * SECOND);
    clock.advance(Duration::from_secs(1));
    assert_eq!(dating.take(BOOT, claim(&clock)), Some(Change::Step(40 * SECOND)));
    assert_eq!((seconds(&dating, 40), seconds(&dating, 101)), (Some(980), Some(1_041)));

    assert!(dating.tell(&moment(50)), "that is to be saved");
    assert!(!dating.tell(&moment(45)) && !dating.tell(&moment(60)), "once");
    clock.step(-10 * SECOND);
    assert_eq!(dating.take(BOOT, claim(&clock)), Some(Change::Step(-10 * SECOND)));
    assert_eq!((seconds(&dating, 60), seconds(&dating, 61)), (Some(1_000), Some(991)), "what was told stays");
    assert_eq!(Dating::restore(&dating.save()).eras, dating.eras);
}

#[test]
fn dates_go_on_more_slowly_after_a_small_step_back() {
    let (clock, mut dating) = set_at_100();
    let now = |clock: &ManualClock| Moment { boot: BOOT, at: clock.boot(), time: None };
    let millis = |dating: &Dating, clock: &ManualClock| match dating.date_of(&now(clock)) {
        Date::Wall(WallTime(nanos)) => nanos / 1_000_000,
        Date::Uptime(..) => panic!("it is set"),
    };
    let wait = |millis| clock.advance(Duration::from_millis(millis));
    dating.tell(&now(&clock));
    clock.step(-25_000_000);
    wait(20);
    assert_eq!(dating.take(BOOT, claim(&clock)), Some(Change::Step(-25_000_000)));
    assert_eq!((millis(&dating, &clock), clock.wall()), (1_000_010, UNIX_EPOCH + Duration::from_millis(999_995)));

    // The agent is killed, and the clock is put back once more while it is away.
    dating.tell(&now(&clock));
    let mut again = Dating::restore(&dating.save());
    clock.step(-10_000_000);
    wait(2);
    again.begin(clock.boot());
    assert_eq!(millis(&again, &clock), 1_000_011);
    assert_eq!(again.take(BOOT, claim(&clock)), Some(Change::Step(-10_000_000)));
    wait(2);
    assert_eq!(millis(&again, &clock), 1_000_012);
    wait(56);
    assert_eq!((millis(&again, &clock), clock.wall()), (1_000_045, UNIX_EPOCH + Duration::from_millis(1_000_045)));
}

#[test]
fn after_a_restart_anything_may_have_been_told() {
    let (clock, mut dating) = set_at_100();
    let mut again = Dating::restore(&dating.save());
    again.begin(clock.boot());
    clock.step(SECOND);
    again.take(BOOT, claim(&clock));
    assert_eq!(seconds(&again, 40), Some(941), "nothing was told");

    dating.tell(&moment(50));
    let mut again = Dating::restore(&dating.save());
    again.begin(clock.boot());
    again.take(BOOT, claim(&clock));
    assert_eq!((seconds(&again, 100), seconds(&again, 101)), (Some(1_000), Some(1_002)));
}

#[test]
fn the_better_word_counts() {
    let (clock, _) = set_at_100();
    let mut dating = Dating::default();
    let say = |dating: &mut Dating, source, offset| {
        let claim = Claim { source, offset: Offset(offset * SECOND), ..claim(&clock) };
        dating.take(BOOT, claim)
    };
    assert_eq!(say(&mut dating, Source::Rtc, 900), Some(Change::Set));
    assert_eq!(say(&mut dating, Source::Gps, 903), Some(Change::Step(3 * SECOND)));
    assert_eq!(say(&mut dating, Source::Rtc, 900), None);
    assert_eq!(say(&mut dating, Source::ByHand, 903), Some(Change::Source));
    assert_eq!(say(&mut dating, Source::Synchronised, 904), Some(Change::Step(SECOND)));
    assert_eq!((say(&mut dating, Source::Gps, 1), say(&mut dating, Source::ByHand, 1)), (None, None));
    assert_eq!(dating.source(BOOT), Some(Source::Synchronised));
}

#[test]
fn what_cannot_be_told_exactly_is_no_step() {
    let (clock, mut dating) = set_at_100();
    clock.step(900_000);
    assert_eq!(dating.take(BOOT, claim(&clock)), None);
    clock.step(900_000);
    let blurred = Claim { within: Duration::from_millis(1), ..claim(&clock) };
    assert_eq!(dating.take(BOOT, blurred), None);
    assert_eq!(dating.take(BOOT, claim(&clock)), Some(Change::Step(1_800_000)), "small ones add up");
}

#[test]
fn a_clock_that_cannot_be_right_is_not_believed() {
    let (clock, _) = set_at_100();
    let (look, earliest) = (clock.look(), WallTime(0));
    let at = |seconds: i64| WallTime(seconds * SECOND);
    assert_eq!(believe(&look, at(1_001), None), Err(Doubt::BeforeBuild(look.wall)));
    let rtc = Look { word: Ok(Source::Rtc), ..look };
    let doubt = Doubt::BeforeKnown { shown: look.wall, known: at(1_001) };
    assert_eq!(believe(&rtc, earliest, Some(at(1_001))), Err(doubt));
    assert!(believe(&rtc, earliest, Some(at(1_000))).is_ok());
    assert!(believe(&look, earliest, Some(at(1_001))).is_ok(), "what was known may have been wrong");
    let unset = Look { word: Err(Doubt::NotSynchronised), ..look };
    assert_eq!(believe(&unset, earliest, None), Err(Doubt::NotSynchronised));
}

#[test]
fn the_oldest_eras_go_first_and_damage_gives_no_dates() {
    let (clock, _) = set_at_100();
    let mut dating = Dating::default();
    for boot in 0..100 {
        assert_eq!(dating.take(BootId([boot; 16]), claim(&clock)), Some(Change::Set));
    }
    assert!(dating.eras.len() == ERAS && dating.save().len() < ERAS * 48);
    let at = |boot| Moment { boot: BootId([boot; 16]), ..moment(1) };
    let known = |boot| matches!(dating.date_of(&at(boot)), Date::Wall(_));
    assert!(!known(35) && known(36) && known(99));
    assert_eq!(Dating::restore(&dating.save()), dating);
    let saved = dating.save();
    assert_eq!(Dating::restore(&saved[..saved.len() - 1]), Dating::default());
}

/// What happens to a gateway, and to a reading.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// So many milliseconds pass.
    Pass(u32),
    /// The clock is set, or goes on by so many milliseconds; negative: it is put back.
    Step(i32),
    /// A sensor measures.
    Measure(u8),
    /// The date of one of all readings is told.
    Tell(prop::sample::Index),
    /// The agent is killed, and starts again.
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let steps = prop_oneof![
        4 => (0..100_000_u32).prop_map(Event::Pass),
        2 => (0..200_u32).prop_map(Event::Pass),
        1 => (-100_000..100_000_i32).prop_map(Event::Step),
        2 => (-3_000..3_000_i32).prop_map(Event::Step),
        8 => (0..3_u8).prop_map(Event::Measure),
        6 => any::<prop::sample::Index>().prop_map(Event::Tell),
        1 => Just(Event::Restart),
    ];
    prop::collection::vec(steps, 1..120)
}

/// How often a sensor's readings have earlier dates than those before them, at the most.
fn setbacks(readings: &[(u8, Moment)], dating: &Dating) -> usize {
    let (mut newest, mut setbacks) = (HashMap::new(), HashMap::<u8, usize>::new());
    for (sensor, moment) in readings {
        let Date::Wall(time) = dating.date_of(moment) else { continue };
        if newest.insert(*sensor, time).is_some_and(|before| time <= before) {
            *setbacks.entry(*sensor).or_default() += 1;
        }
    }
    setbacks.into_values().max().unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A date that was told never changes; of a sensor's readings, each later one has a later date but for as often as
    /// the clock was put back by two seconds or more; after a restart all dates are as they were.
    #[test]
    fn dates_are_told_once_and_grow(events in events()) {
        let (clock, mut dating) = (ManualClock::new(), Dating::default());
        let mut readings: Vec<(u8, Moment)> = Vec::new();
        let mut told: HashMap<usize, Date> = HashMap::new();
        let mut saved = dating.save();
        let mut put_back = 0;
        for event in events {
            match event {
                Event::Pass(millis) => clock.advance(Duration::from_millis(millis.into())),
                Event::Step(millis) => {
                    if clock.look().word.is_err() {
                        clock.set_wall(UNIX_EPOCH + Duration::from_secs(1_800_000_000));
                    }
                    clock.step(i64::from(millis) * 1_000_000);
                    let change = dating.take(BOOT, claim(&clock));
                    put_back += usize::from(matches!(change, Some(Change::Step(nanos)) if nanos <= -2_000_000_000));
                    if change.is_some() {
                        saved = dating.save();
                    }
                }
                Event::Measure(sensor) => {
                    // Two readings of one sensor are never of one moment.
                    clock.advance(Duration::from_nanos(SLOWED));
                    let now = Moment { boot: BOOT, at: clock.boot(), time: None };
                    let time = match dating.date_of(&now) {
                        Date::Wall(time) => Some(time),
                        Date::Uptime(..) => None,
                    };
                    readings.push((sensor, Moment { time, ..now }));
                }
                Event::Tell(which) if !readings.is_empty() => {
                    let index = which.index(readings.len());
                    let moment = &readings[index].1;
                    if matches!(dating.date_of(moment), Date::Wall(_)) {
                        if dating.tell(moment) {
                            saved = dating.save();
                        }
                        told.entry(index).or_insert_with(|| dating.date_of(moment));
                    }
                }
                Event::Tell(_) => {}
                Event::Restart => {
                    let mut again = Dating::restore(&saved);
                    again.begin(clock.boot());
                    for (_, moment) in &readings {
                        prop_assert_eq!(again.date_of(moment), dating.date_of(moment));
                    }
                    dating = again;
                }
            }
            for (index, date) in &told {
                prop_assert_eq!(dating.date_of(&readings[*index].1), *date);
            }
            prop_assert!(setbacks(&readings, &dating) <= put_back);
        }
    }

    #[test]
    fn any_bytes_are_taken(bytes: Vec<u8>) {
        let dating = Dating::restore(&bytes);
        prop_assert!(dating.eras.len() <= ERAS);
        let _ = (dating.date_of(&moment(1)), dating.save());
    }
}
