//! What holds for every filter of the registry.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use toml::de::DeTable;

use super::*;
use crate::options::{Options, Problems};
use crate::pipeline::chain::{Chain, Link, Origin, Released, Taken};

/// Settings besides the samples, for the walk: each filter at its bounds and with each of its options.
const OTHERS: &[&str] = &[
    "median = 1000",
    "min = { window = 7, send_every = 3, send_first_at = 2 }",
    "quantile = { window = 1, quantile = 1 }",
    "exponential_moving_average = { alpha = 1, send_every = 1000 }",
    "integral = { per = \"1ms\", method = \"left\", gap = \"365d\" }",
    "integral = { method = \"right\", gap = \"2s\" }",
    "aggregate = \"1s\"",
    "throttle_average = \"1ms\"",
    "outlier = { floor = 0, window = 3, threshold = 0.1 }",
    "round = 12",
    "round = { significant = 15 }",
    "round = { multiple = 1e-300 }",
    "calibrate_linear = [[-1, 1], [2, 2]]",
    "calibrate_polynomial = { points = [[0, 0], [1, 1], [2, 0], [3, 1], [4, 0], [5, 1], [6, 9]], degree = 6 }",
    "expression = \"1 / x ^ 3 + E ^ x\"",
    "clamp = { max = 5, ignore_out_of_range = true }",
    "delta = { absolute = 0.5, relative = 0.01, heartbeat = \"3s\" }",
    "throttle = { period = \"4s\", priority = [0, 1] }",
    "heartbeat = \"2s\"",
    "debounce = \"1ms\"",
    "hysteresis = { upper = 0, lower = 0 }",
    "rate_of_change = \"1d\"",
    "filter_out = { values = [1, \"ERR\", true], within = 0.5 }",
];

/// The problems of a list of filters, or the chain.
fn chain(list: &str) -> Result<Chain, Vec<String>> {
    let text = format!("filters = [{list}]");
    let table = DeTable::parse(&text).expect("TOML");
    let problems = Problems::new();
    let found = given::list(&table.get_ref()["filters"], "the test", &problems);
    let messages: Vec<String> = problems.into_sorted().into_iter().map(|problem| problem.message).collect();
    if !messages.is_empty() {
        return Err(messages);
    }
    let link = |placed: Placed| Link { name: placed.name, filter: placed.filter, origin: Origin::Sensor };
    Ok(Chain::new(found.into_iter().map(link).collect()))
}

fn good(list: &str) -> Chain {
    chain(list).unwrap_or_else(|problems| panic!("{list}: {problems:?}"))
}

/// All settings of the walk.
fn all() -> Vec<String> {
    FILTERS.iter().map(|filter| filter.sample).chain(OTHERS.iter().copied()).map(|one| format!("{{ {one} }}")).collect()
}

fn number(number: f64) -> Value {
    Value::number(number).expect("finite")
}

/// What came out, when it says that it was measured.
type Out = Vec<(BootTime, Vec<(Option<Part>, Value)>)>;

fn release(chain: &mut Chain, now: BootTime, out: &mut Out) {
    let mut released = Vec::new();
    chain.release(now, &mut released);
    assert!(chain.next_due().is_none_or(|due| due > now), "nothing is left behind: {chain:?}");
    for event in released {
        if let Released::Values(at, values) = event {
            assert!(at <= now, "from the future: {at:?} at {now:?}");
            out.push((at, values));
        }
    }
}

/// Takes values with the milliseconds since the one before. `often`: the timer is served in time, and at other times,
/// too; else only when the next value comes.
fn run(chain: &mut Chain, values: &[(u32, f64)], from: BootTime, often: bool, out: &mut Out) -> BootTime {
    let mut now = from;
    for (millis, value) in values {
        let next = now.after(Duration::from_millis(u64::from(*millis)));
        if often {
            release(chain, BootTime(now.0.midpoint(next.0)), out);
            while let Some(due) = chain.next_due().filter(|due| *due <= next) {
                release(chain, due, out);
            }
        }
        now = next;
        release(chain, now, out);
        if let Taken::Passed(value) = chain.take(number(*value), now) {
            out.push((now, vec![(None, value)]));
        }
    }
    now
}

/// Values as sensors give them, and some that no sensor should.
fn values() -> impl Strategy<Value = Vec<(u32, f64)>> {
    let usual = (-50..50_i32).prop_map(|tenths| f64::from(tenths) / 10.0);
    let odd = prop_oneof![
        Just(0.0),
        Just(f64::MAX),
        Just(f64::MIN),
        Just(f64::MIN_POSITIVE),
        proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL
    ];
    let gap = prop_oneof![4 => 1..2000_u32, 1 => Just(0), 1 => 2000..40_000_u32];
    prop::collection::vec((gap, prop_oneof![5 => usual, 1 => odd]), 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Numbers are finite by their type: that none of these panics or is made up is what can go wrong.
    #[test]
    fn every_filter_is_in_order_and_does_not_depend_on_its_timer(values in values()) {
        for list in all() {
            let (mut late, mut often) = (good(&list), good(&list));
            let (mut out_late, mut out_often) = (Vec::new(), Vec::new());
            run(&mut late, &values, BootTime(0), false, &mut out_late);
            run(&mut often, &values, BootTime(0), true, &mut out_often);
            for out in [&out_late, &out_often] {
                prop_assert!(out.is_sorted_by_key(|(at, _)| *at), "{list}: out of order: {out:?}");
            }
            // Beats that nobody waited for are not made up.
            if !list.contains("heartbeat = \"2s\"") && !list.contains("optimistic") {
                prop_assert_eq!(out_late, out_often, "{}", list);
            }
        }
    }

    /// What a filter says of its pace holds: once it has let something go, the next follows within that and the time
    /// between two values, by which its windows may lie apart from them.
    #[test]
    fn no_filter_is_slower_than_it_says(numbers in prop::collection::vec(-5_i8..5, 1..60), millis in 1..3_000_u32) {
        let every = Duration::from_millis(millis.into());
        // One of the formulas has no value at 0, which is an error and no pace.
        let values: Vec<(u32, f64)> = numbers.iter().map(|number| (millis, f64::from(*number) + 0.5)).collect();
        for list in all() {
            let mut chain = good(&list);
            let Some(pace) = chain.pace(Some(every)) else { continue };
            prop_assert!(!["debounce", "filter_out", "outlier", "ignore_out"].iter().any(|name| list.contains(name)));
            let mut went = BTreeSet::new();
            let mut now = BootTime(0);
            for value in &values {
                let mut out = Vec::new();
                let next = run(&mut chain, std::slice::from_ref(value), now, true, &mut out);
                if !out.is_empty() {
                    went.insert(next);
                }
                now = next;
            }
            let went: Vec<BootTime> = went.into_iter().chain([now]).collect();
            for pair in went.windows(2) {
                let slack = every * 2;
                prop_assert!(pair[1].since(pair[0]) <= pace + slack, "{list}: {pair:?}, but {pace:?}");
            }
        }
    }

    #[test]
    fn what_is_kept_goes_on_as_if_nothing_had_been(values in values(), more in values()) {
        for list in all() {
            let (mut whole, mut begun, mut resumed) = (good(&list), good(&list), good(&list));
            let (mut expected, mut out) = (Vec::new(), Vec::new());
            let now = run(&mut whole, &values, BootTime(0), true, &mut expected);
            run(&mut begun, &values, BootTime(0), true, &mut out);
            let kept: Vec<(String, Vec<u8>)> = begun.keep().collect();
            if kept.is_empty() {
                continue;
            }
            prop_assert!(kept.iter().all(|(_, state)| state.len() <= MAX_FILTER_KEPT), "{list}");
            resumed.restore(|name| kept.iter().find(|(of, _)| of == name).map(|(_, state)| (state.clone(), true)));
            run(&mut whole, &more, now, true, &mut expected);
            run(&mut resumed, &more, now, true, &mut out);
            prop_assert_eq!(expected, out, "{}", list);
        }
    }

    #[test]
    fn what_was_kept_may_be_anything(bytes in prop::collection::vec(any::<u8>(), 0..60), same: bool, values in values()) {
        for list in all() {
            let mut chain = good(&list);
            chain.restore(|_| Some((bytes.clone(), same)));
            run(&mut chain, &values, BootTime(0), true, &mut Vec::new());
        }
    }
}

#[test]
fn memory_is_bounded() {
    for list in all() {
        let mut chain = good(&list);
        let values = |count: u32| (0..count).map(|n| (700, f64::from(n % 89) / 7.0)).collect::<Vec<_>>();
        let now = run(&mut chain, &values(2 * u32::from(MAX_WINDOW)), BootTime(0), false, &mut Vec::new());
        let full = format!("{chain:?}").len();
        run(&mut chain, &values(2 * u32::from(MAX_WINDOW)), now, false, &mut Vec::new());
        let later = format!("{chain:?}").len();
        assert!(later < full + full / 4 + 64, "{list}: grows from {full} to {later}");
    }
}

#[test]
fn the_registry_is_whole() {
    let names: BTreeSet<&str> = FILTERS.iter().map(|filter| filter.name).collect();
    assert_eq!(names.len(), FILTERS.len(), "a name twice");
    for filter in FILTERS {
        assert!(filter.sample.starts_with(&format!("{} = ", filter.name)), "{}", filter.sample);
        let table = DeTable::new();
        let problems = Problems::new();
        let options = Options::new(&table, 0..0, "the test", &problems);
        let _ = (filter.parse)(&Given::of_table(&options));
        let documented: BTreeSet<&str> = filter.options.iter().map(|option| option.name).collect();
        assert_eq!(options.asked().into_iter().collect::<BTreeSet<_>>(), documented, "{}", filter.name);
        assert!(filter.bare.is_none_or(|bare| documented.contains(bare)), "{}", filter.name);
        let example = filter.example.values;
        assert!(example.len() > 5 && example.iter().any(|value| value.is_finite()), "{}", filter.name);
    }
}

#[test]
fn settings_read_back_as_they_were() {
    for list in all() {
        let chain = good(&list);
        let shown = chain.links()[0].to_string();
        let again = good(&format!("{{ {shown} }}"));
        assert_eq!(again.links()[0].to_string(), shown, "{list}");
        assert_eq!(format!("{again:?}"), format!("{chain:?}"), "{list}");
    }
}

#[test]
fn the_documentation_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/filters.md");
    let page = docs::page().expect("right samples");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("writable documentation");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == page, "docs/filters.md is not current: run `UPDATE_DOCS=1 cargo test --lib filter`");
}

#[test]
fn debounce_lets_out_what_stood_with_its_own_time() {
    let mut chain = good("{ debounce = \"2s\" }");
    let mut out = Vec::new();
    run(&mut chain, &[(0, 1.0), (1000, 2.0), (1000, 2.0), (1500, 3.0)], BootTime(0), false, &mut out);
    assert_eq!(out, [(BootTime(1_000_000_000), vec![(None, number(2.0))])]);
}

#[test]
fn an_aggregate_gives_its_parts_together_at_the_end_of_the_window() {
    let mut chain = good("{ aggregate = \"10s\" }, { round = 1 }");
    let mut out = Vec::new();
    run(&mut chain, &[(1000, 1.0), (1000, 2.0), (1000, 3.25), (30_000, 9.0)], BootTime(0), false, &mut out);
    let parts = [(Part::Min, 1.0), (Part::Mean, 2.1), (Part::Max, 3.3), (Part::Count, 3.0)];
    let parts = parts.into_iter().map(|(part, value)| (Some(part), number(value))).collect();
    assert_eq!(out, [(BootTime(10_000_000_000), parts)]);
}

#[test]
fn an_integral_is_what_a_meter_would_show() {
    let mut chain = good("{ integral = {} }");
    let mut out = Vec::new();
    // 1800 W for half an hour in steps of a minute, then a gap of two hours, which counts for nothing.
    let mut values = vec![(60_000, 1800.0); 31];
    values.push((7_200_000, 1800.0));
    run(&mut chain, &values, BootTime(0), false, &mut out);
    let (_, last) = out.last().expect("totals");
    assert_eq!(last, &[(None, number(900.0))]);
}

#[test]
fn outliers_go_and_steps_come_through() {
    let mut chain = good("{ outlier = { floor = 1, window = 5 } }");
    let mut out = Vec::new();
    let noise = [20.0, 20.1, 19.9, 20.0, 20.1, 35.0, 20.0, 20.1];
    let step = [30.0; 6];
    let values: Vec<(u32, f64)> = noise.iter().chain(&step).map(|value| (1000, *value)).collect();
    run(&mut chain, &values, BootTime(0), false, &mut out);
    let seconds: Vec<u64> = out.iter().map(|(at, _)| at.0 / 1_000_000_000).collect();
    // What was dropped counts as a neighbour: 35 helps 30 to become the median.
    assert_eq!(seconds, [1, 2, 3, 4, 5, 7, 8, 11, 12, 13, 14], "35 is dropped, and 30 until it is the median");
}

#[test]
fn wrong_lists_are_told() {
    for (list, part) in [
        ("{ medain = 5 }", "there is no filter `medain`"),
        ("{ median = 5, min = 3 }", "several filters in one pair of braces"),
        ("{ }", "no filter"),
        ("5", "no filter"),
        ("{ clamp = 5 }", "has options of its own"),
        ("{ clamp = { } }", "then there is no range"),
        ("{ clamp = { min = 2, max = 1 } }", "is above `max`"),
        ("{ median = { windw = 5 } }", "lacks the key `window`"),
        ("{ median = { window = 5, sendevery = 5 } }", "no key `sendevery`"),
        ("{ median = 0 }", "out of range"),
        ("{ throttle = 5 }", "wrong type"),
        ("{ calibrate_linear = [[1, 2]] }", "takes two"),
        ("{ calibrate_linear = [[1, 2], [1, 3]] }", "two points with 1"),
        ("{ calibrate_linear = [[1, 2], [3]] }", "a list of 1 numbers"),
        ("{ calibrate_polynomial = [[1, 2], [2, 3]] }", "takes at least 3"),
        ("{ expression = \"x + y\" }", "names `y`"),
        ("{ expression = \"2 +\" }", "is no formula"),
        ("{ expression = \"\" }", "is empty"),
        ("{ round = { digits = 1, multiple = 2 } }", "exactly one"),
        ("{ delta = {} }", "nothing is asked for"),
        ("{ aggregate = { window = \"1m\", of = [\"sum\"] } }", "cannot hold \"sum\""),
        ("{ filter_out = [] }", "is empty"),
        ("{ multiply = 0 }", "every value would be 0"),
    ] {
        let problems = chain(list).expect_err(list);
        assert!(problems.iter().any(|problem| problem.contains(part)), "{list}: {problems:?}");
    }
    let many = vec!["{ offset = 1 }"; MAX_FILTERS + 1].join(", ");
    assert!(chain(&many).is_err());
}
