//! What an observation comes to.

use super::*;
use crate::reading::{FaultCode, Sample};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn descriptor() -> Descriptor {
    Descriptor { gateway: "g".into(), room: Some("salon".into()), sensor: "meteo".into(), ..Descriptor::default() }
}

fn pipeline(config: PipelineConfig) -> Pipeline {
    let mut pipeline = Pipeline::new();
    let declared = [Declared { name: "temperature", unit: Some("°C"), kind: Kind::Number }];
    pipeline.add(descriptor(), &declared, Arc::new(config));
    pipeline
}

fn number(name: &'static str, number: f64) -> Sample {
    Sample::new(name, Value::number(number).expect("finite"))
}

fn observe(pipeline: &mut Pipeline, seconds: u64, samples: Vec<Sample>) -> Outcome {
    pipeline.observe(Observation {
        sensor: SensorIndex(0),
        at: BootTime(seconds * SECOND),
        outcome: Ok(samples),
        keep: None,
    })
}

fn fault(pipeline: &mut Pipeline, code: FaultCode) -> Outcome {
    let outcome = Err(Fault::new(code, "why"));
    pipeline.observe(Observation { sensor: SensorIndex(0), at: BootTime(0), outcome, keep: None })
}

fn published(outcome: &Outcome) -> Vec<(String, Value)> {
    outcome.reading.as_ref().map_or_else(Vec::new, |(descriptor, values)| {
        let name = |index: &u16| descriptor.quantities[usize::from(*index)].name.to_string();
        values.iter().map(|(index, value)| (name(index), value.clone())).collect()
    })
}

fn change(name: &str, deadband: Deadband) -> PipelineConfig {
    PipelineConfig { change: [(name.to_owned(), deadband)].into(), ..PipelineConfig::default() }
}

fn finite(number: f64) -> Finite {
    Finite::new(number).expect("finite")
}

#[test]
fn without_change_every_reading_is_published() {
    let mut pipeline = pipeline(PipelineConfig::default());
    for seconds in 0..3 {
        assert_eq!(published(&observe(&mut pipeline, seconds, vec![number("temperature", 21.0)])).len(), 1);
    }
    let descriptor = pipeline.descriptor(SensorIndex(0)).expect("the sensor");
    assert_eq!(descriptor.quantities[0].unit.as_deref(), Some("°C"));
}

#[test]
fn bytes_have_the_type_that_came_with_them_last() {
    let mut pipeline = pipeline(PipelineConfig::default());
    let picture = |content_type: Option<&str>| Sample {
        content_type: content_type.map(Into::into),
        ..Sample::new("picture", Value::Bytes([1].into()))
    };
    for (said, known) in [(None, None), (Some("a/b"), Some("a/b")), (None, Some("a/b")), (Some("c/d"), Some("c/d"))] {
        let outcome = observe(&mut pipeline, 1, vec![picture(said)]);
        let (descriptor, values) = outcome.reading.expect("bytes");
        assert_eq!(values.len(), 1);
        assert_eq!((descriptor.quantities.len(), descriptor.quantities[0].content_type.as_deref()), (1, known));
    }
}

#[test]
fn change_is_measured_from_the_last_published_value() {
    let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(0.1))));
    let mut kept = vec![];
    for (seconds, value) in [21.0, 21.05, 21.09, 21.1, 21.15, 21.0].into_iter().enumerate() {
        if !published(&observe(&mut pipeline, seconds as u64, vec![number("temperature", value)])).is_empty() {
            kept.push(value);
        }
    }
    assert_eq!(kept, [21.0, 21.1, 21.0]);
}

#[test]
fn the_heartbeat_publishes_what_stands_still() {
    let config = PipelineConfig {
        heartbeat: Some(Duration::from_secs(10)),
        ..change("temperature", Deadband::Absolute(finite(1.0)))
    };
    let mut pipeline = pipeline(config);
    let times: Vec<u64> = (0..25)
        .filter(|seconds| !published(&observe(&mut pipeline, *seconds, vec![number("temperature", 20.0)])).is_empty())
        .collect();
    assert_eq!(times, [0, 10, 20]);
}

#[test]
fn calibration_comes_before_the_filter_and_names_come_last() {
    let quantity = QuantityConfig {
        rename: Some("temp".to_owned()),
        unit: Some("K".to_owned()),
        multiply: Some(finite(2.0)),
        offset: Some(finite(0.26)),
        round: Some(1),
        ..QuantityConfig::default()
    };
    let config = PipelineConfig {
        quantities: [("temperature".to_owned(), quantity)].into(),
        ..change("temp", Deadband::Absolute(finite(0.0)))
    };
    let mut pipeline = pipeline(config);
    let first = observe(&mut pipeline, 0, vec![number("temperature", 10.0)]);
    assert_eq!(published(&first), [("temp".to_owned(), Value::Number(finite(20.3)))]);
    assert!(published(&observe(&mut pipeline, 1, vec![number("temperature", 10.01)])).is_empty());
}

#[test]
fn numbers_that_stand_still_too_long_are_a_fault_until_one_moves() {
    let config = PipelineConfig { frozen_after: Some(Duration::from_secs(10)), ..PipelineConfig::default() };
    let mut pipeline = pipeline(config);
    let mut at = |seconds, temperature, humidity| {
        let press = Sample::event("press", Value::Number(finite(1.0)));
        let samples = vec![number("temperature", temperature), number("humidity", humidity), press];
        let outcome = observe(&mut pipeline, seconds, samples);
        let names: Vec<String> = published(&outcome).into_iter().map(|(name, _)| name).collect();
        (outcome.health, names.len())
    };
    assert_eq!(at(0, 20.0, 50.0), (Some(Health::Online), 3));
    assert_eq!(at(9, 20.0, 50.0), (None, 3));
    assert_eq!(at(10, 20.0, 51.0), (None, 3), "one of them moved");
    assert_eq!(at(19, 20.0, 51.0), (None, 3));
    let (health, values) = at(20, 20.0, 51.0);
    assert!(matches!(health, Some(Health::Fault(ref fault)) if fault.code == FaultCode::Frozen), "{health:?}");
    assert_eq!(values, 1, "the event alone");
    assert_eq!(at(30, 20.0, 51.0), (None, 1), "told once");
    assert_eq!(at(31, 20.0, 51.5), (Some(Health::Online), 3));
    assert_eq!(at(40, 20.0, 51.5), (None, 3));
}

#[test]
fn only_numbers_can_freeze_and_a_fault_between_begins_anew() {
    let config = PipelineConfig { frozen_after: Some(Duration::from_secs(10)), ..PipelineConfig::default() };
    let mut pipeline = pipeline(config);
    let switch = || vec![Sample::new("state", Value::Switch(true))];
    observe(&mut pipeline, 0, switch());
    assert_eq!(observe(&mut pipeline, 100, switch()).health, None);
    observe(&mut pipeline, 200, vec![number("temperature", 20.0)]);
    fault(&mut pipeline, FaultCode::Missing);
    assert_eq!(observe(&mut pipeline, 300, vec![number("temperature", 20.0)]).health, Some(Health::Online));
    let frozen = observe(&mut pipeline, 310, vec![number("temperature", 20.0)]).health;
    assert!(matches!(frozen, Some(Health::Fault(_))));
    assert_eq!(observe(&mut pipeline, 320, switch()).health, None, "a switch says nothing about the numbers");
    let counts = vec![number("temperature", 20.0), number("garbled", 7.0), number("overruns", 9.0)];
    let counted = observe(&mut pipeline, 330, counts);
    assert_eq!(counted.health, None, "what is lost on its link is no sign of life");
    assert_eq!(published(&counted).len(), 2, "and is published");
}

#[test]
fn events_are_never_held_back() {
    let mut pipeline = pipeline(change("press", Deadband::Absolute(finite(0.0))));
    for seconds in 0..3 {
        let press = Sample::event("press", Value::Text("rising".into()));
        assert_eq!(published(&observe(&mut pipeline, seconds, vec![press])).len(), 1);
    }
}

#[test]
fn health_is_told_when_it_changes_and_the_first_value_after_a_fault_is_news() {
    let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(1.0))));
    let good = |pipeline: &mut Pipeline| observe(pipeline, 0, vec![number("temperature", 20.0)]);
    assert_eq!(good(&mut pipeline).health, Some(Health::Online));
    assert_eq!(good(&mut pipeline).health, None);
    assert!(matches!(fault(&mut pipeline, FaultCode::Bus).health, Some(Health::Fault(_))));
    assert_eq!(fault(&mut pipeline, FaultCode::Bus).health, None);
    assert!(matches!(fault(&mut pipeline, FaultCode::Missing).health, Some(Health::Fault(_))));
    let back = good(&mut pipeline);
    assert_eq!(back.health, Some(Health::Online));
    assert_eq!(published(&back).len(), 1);
}

#[test]
fn a_garbled_line_is_no_fault_but_three_in_a_row_are() {
    let mut pipeline = pipeline(PipelineConfig::default());
    observe(&mut pipeline, 0, vec![number("temperature", 20.0)]);
    assert_eq!(fault(&mut pipeline, FaultCode::BadData).health, None);
    assert_eq!(fault(&mut pipeline, FaultCode::BadData).rejected, ["why"]);
    assert!(matches!(fault(&mut pipeline, FaultCode::BadData).health, Some(Health::Fault(_))));
}

#[test]
fn a_device_cannot_name_quantities_without_end() {
    let mut pipeline = pipeline(PipelineConfig::default());
    let samples = (0..MAX_QUANTITIES + 2).map(|n| Sample::new(format!("q{n}"), Value::Switch(true))).collect();
    let outcome = observe(&mut pipeline, 0, samples);
    assert_eq!(published(&outcome).len(), MAX_QUANTITIES);
    assert_eq!(outcome.rejected.len(), 2);
}

proptest! {
    #[test]
    fn published_numbers_always_differ_by_the_deadband(
        values in proptest::collection::vec(-1000.0..1000.0_f64, 1..60),
        band in 0.01..50.0_f64,
    ) {
        let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(band))));
        let mut last: Option<f64> = None;
        for (seconds, value) in values.into_iter().enumerate() {
            let outcome = observe(&mut pipeline, seconds as u64, vec![number("temperature", value)]);
            let moved = last.is_none_or(|last| (value - last).abs() >= band * (1.0 - 1e-9));
            prop_assert_eq!(!published(&outcome).is_empty(), moved);
            if moved {
                last = Some(value);
            }
        }
    }
}

mod filtered {
    use super::*;
    use crate::pipeline::filter;

    /// A pipeline of the sensor `meteo` with filters for its `temperature`, as in TOML.
    fn filtered(list: &str) -> Pipeline {
        pipeline(config(&[("temperature", list)]))
    }

    fn config(lists: &[(&str, &str)]) -> PipelineConfig {
        let filters = lists.iter().map(|(name, list)| ((*name).to_owned(), links(list))).collect();
        PipelineConfig { filters, ..PipelineConfig::default() }
    }

    fn links(list: &str) -> Vec<Link> {
        let text = format!("filters = [{list}]");
        let table = toml::de::DeTable::parse(&text).expect("TOML");
        let problems = crate::options::Problems::new();
        let found = filter::list(&table.get_ref()["filters"], "the test", &problems);
        assert!(problems.is_empty(), "{problems:?}");
        let link = |placed: filter::Placed| Link { name: placed.name, filter: placed.filter, origin: Origin::Sensor };
        found.into_iter().map(link).collect()
    }

    /// What came late: seconds and values.
    fn late(outcome: &Outcome) -> Vec<(u64, Vec<(String, Value)>)> {
        let named = |late: &Late| {
            let name = |index: u16| late.descriptor.quantities[usize::from(index)].name.to_string();
            late.values.iter().map(|(index, value)| (name(*index), value.clone())).collect()
        };
        outcome.late.iter().map(|late| (late.at.0 / SECOND, named(late))).collect()
    }

    fn is(name: &str, value: f64) -> (String, Value) {
        (name.to_owned(), Value::Number(finite(value)))
    }

    #[test]
    fn a_divided_quantity_is_published_as_its_parts_in_one_reading() {
        let mut pipeline = pipeline(config(&[
            ("temperature", "{ aggregate = { window = \"10s\", of = [\"max\", \"count\"] } }"),
            ("humidity", "{ throttle_average = \"10s\" }"),
        ]));
        for seconds in 0..10 {
            let samples = vec![number("temperature", 20.0), number("humidity", 40.0), number("pressure", 1.0)];
            let outcome = observe(&mut pipeline, seconds, samples);
            assert_eq!(published(&outcome), [is("pressure", 1.0)]);
        }
        assert_eq!(pipeline.next_due(), Some(BootTime(10 * SECOND)));
        assert!(pipeline.tick(BootTime(10 * SECOND - 1)).is_empty());
        let outcomes = pipeline.tick(BootTime(11 * SECOND));
        let [(SensorIndex(0), outcome)] = &outcomes[..] else { panic!("{outcomes:?}") };
        let parts = vec![is("temperature_max", 20.0), is("temperature_count", 10.0), is("humidity", 40.0)];
        assert_eq!(late(outcome), [(10, parts)]);
        let descriptor = pipeline.descriptor(SensorIndex(0)).expect("the sensor");
        let units: Vec<Option<&str>> = descriptor.quantities.iter().map(|quantity| quantity.unit.as_deref()).collect();
        assert_eq!(units, [Some("°C"), None, None, None], "a count has no unit");
        assert_eq!(pipeline.next_due(), None);
    }

    #[test]
    fn what_is_due_goes_before_the_value_that_came_too_late_for_it() {
        let mut pipeline = filtered("{ debounce = \"2s\" }");
        assert!(published(&observe(&mut pipeline, 1, vec![number("temperature", 20.0)])).is_empty());
        let outcome = observe(&mut pipeline, 9, vec![number("temperature", 21.0)]);
        assert_eq!((late(&outcome), published(&outcome)), (vec![(1, vec![is("temperature", 20.0)])], vec![]));
    }

    #[test]
    fn absence_is_a_fault_until_the_value_is_back_and_the_others_go_on() {
        let mut pipeline = filtered("{ timeout = \"10s\" }");
        let both = || vec![number("temperature", 20.0), number("humidity", 40.0)];
        assert_eq!(observe(&mut pipeline, 0, both()).health, Some(Health::Online));
        let outcome = observe(&mut pipeline, 9, vec![number("humidity", 40.0)]);
        assert_eq!(outcome.health, None);
        let outcomes = pipeline.tick(BootTime(10 * SECOND));
        let Some(Health::Fault(fault)) = &outcomes[0].1.health else { panic!("{outcomes:?}") };
        assert_eq!((fault.code, fault.code.as_str()), (FaultCode::Silent, "silent"));
        assert!(fault.detail.contains("temperature: no value for 10s"), "{fault}");
        let outcome = observe(&mut pipeline, 11, vec![number("humidity", 40.0)]);
        assert_eq!((outcome.health.as_ref(), published(&outcome).len()), (None, 1), "told once");
        let outcome = observe(&mut pipeline, 12, both());
        assert_eq!((outcome.health.as_ref(), published(&outcome).len()), (Some(&Health::Online), 2));
    }

    #[test]
    fn another_fault_hides_an_absence_until_it_is_over() {
        let mut pipeline = filtered("{ timeout = \"10s\" }");
        observe(&mut pipeline, 0, vec![number("temperature", 20.0)]);
        assert!(matches!(fault(&mut pipeline, FaultCode::Unplugged).health, Some(Health::Fault(_))));
        assert_eq!(pipeline.tick(BootTime(20 * SECOND))[0].1.health, None);
        let health = observe(&mut pipeline, 21, vec![number("humidity", 40.0)]).health;
        assert!(matches!(health, Some(Health::Fault(fault)) if fault.code == FaultCode::Silent));
    }

    #[test]
    fn totals_and_windows_go_on_after_a_restart() {
        let lists = [("temperature", "{ integral = \"1s\" }"), ("humidity", "{ aggregate = \"1m\" }")];
        let both = |value| vec![number("temperature", value), number("humidity", value)];
        let mut first = pipeline(config(&lists));
        observe(&mut first, 0, both(2.0));
        let outcome = observe(&mut first, 10, both(2.0));
        assert_eq!(published(&outcome), [is("temperature", 20.0)]);
        let kept = outcome.keep.expect("a total and a window");
        for (same_boot, total, count) in [(true, 60.0, 3.0), (false, 20.0, 1.0)] {
            let mut second = pipeline(config(&lists));
            second.restore(SensorIndex(0), &kept, same_boot);
            let outcome = observe(&mut second, 30, both(2.0));
            assert_eq!(published(&outcome), [is("temperature", total)], "{same_boot}");
            let outcomes = second.tick(BootTime(60 * SECOND));
            assert_eq!(late(&outcomes[0].1)[0].1[3], is("humidity_count", count), "{same_boot}");
        }
        let mut damaged = pipeline(config(&lists));
        damaged.restore(SensorIndex(0), &kept[1..], true);
        assert_eq!(published(&observe(&mut damaged, 30, both(2.0))), [is("temperature", 0.0)]);
    }

    #[test]
    fn what_filters_keep_is_bounded() {
        let quantities = MAX_KEPT_FILTERS + 10;
        let names: Vec<String> = (0..quantities).map(|n| format!("q{n}")).collect();
        let filters = names.iter().map(|name| (name.clone(), links("{ integral = {} }"))).collect();
        let mut pipeline = pipeline(PipelineConfig { filters, ..PipelineConfig::default() });
        let samples = names.iter().map(|name| Sample::new(name.clone(), Value::Number(finite(1.0)))).collect();
        let outcome = observe(&mut pipeline, 0, samples);
        assert_eq!(published(&outcome).len(), quantities);
        assert!(outcome.keep.expect("totals").len() < MAX_KEPT_FILTERS * (filter::MAX_FILTER_KEPT + 32));
    }

    #[test]
    fn a_filter_that_does_not_fit_is_told_with_each_value() {
        let mut pipeline = filtered("{ median = 3 }");
        let outcome = observe(&mut pipeline, 0, vec![Sample::new("temperature", Value::Switch(true))]);
        assert_eq!(published(&outcome), [is("temperature", 1.0)], "the driver says that it is a number");
        let mut pipeline = super::pipeline(config(&[("door", "{ median = 3 }"), ("level", "{ median = 3 }")]));
        let button = || vec![Sample::event("door", Value::Number(finite(1.0)))];
        for _ in 0..2 {
            let outcome = observe(&mut pipeline, 0, button());
            assert!(outcome.rejected[0].contains("this is an event: each is published"), "{:?}", outcome.rejected);
        }
        // A text where a number is meant: the first one must not make it a text for good.
        let outcome = observe(&mut pipeline, 1, vec![Sample::new("level", Value::Text("n/a".into()))]);
        assert!(outcome.rejected[0].contains("is not a number"), "{:?}", outcome.rejected);
        let outcome = observe(&mut pipeline, 2, vec![Sample::new("level", Value::Text("4".into()))]);
        assert_eq!(published(&outcome), [is("level", 4.0)]);
    }

    #[test]
    fn the_short_forms_stand_around_the_others() {
        let quantity = QuantityConfig {
            multiply: Some(finite(2.0)),
            offset: Some(finite(1.0)),
            round: Some(0),
            ..QuantityConfig::default()
        };
        let config = PipelineConfig {
            quantities: [("temperature".to_owned(), quantity)].into(),
            change: [("temperature".to_owned(), Deadband::Absolute(finite(1.0)))].into(),
            heartbeat: Some(Duration::from_secs(60)),
            ..config(&[("temperature", "{ median = 3 }, { clamp = { max = 30 } }")])
        };
        let chain = config.chain("temperature");
        let shown: Vec<String> = chain.links().iter().map(|link| format!("{link} ({})", link.origin)).collect();
        assert_eq!(
            shown,
            [
                "multiply = 2 (the key `multiply`)",
                "offset = 1 (the key `offset`)",
                "median = { window = 3, send_every = 1, send_first_at = 1 } (filters of the sensor)",
                "clamp = { max = 30 } (filters of the sensor)",
                "round = 0 (the key `round`)",
                "delta = { absolute = 1, heartbeat = \"1m\" } (the key `change`)",
            ]
        );
    }

    #[test]
    fn another_quantity_may_be_made_of_one() {
        let quantity = QuantityConfig { of: Some("temperature".to_owned()), ..QuantityConfig::default() };
        let mut pipeline = pipeline(PipelineConfig {
            quantities: [("frost".to_owned(), quantity)].into(),
            ..config(&[("frost", "{ rate_of_change = \"1s\" }"), ("temperature", "{ round = 0 }")])
        });
        let both = |value| vec![number("temperature", value), number("humidity", 40.0)];
        assert_eq!(published(&observe(&mut pipeline, 0, both(20.25))).len(), 2);
        let outcome = observe(&mut pipeline, 2, both(20.75));
        assert_eq!(published(&outcome), [is("temperature", 21.0), is("frost", 0.25), is("humidity", 40.0)]);
        let descriptor = pipeline.descriptor(SensorIndex(0)).expect("the sensor");
        assert_eq!(descriptor.quantities[1].unit.as_deref(), Some("°C/s"));
    }

    #[test]
    fn who_asks_is_told_why() {
        let mut pipeline = filtered("{ delta = 1 }").explaining();
        observe(&mut pipeline, 0, vec![number("temperature", 20.0)]);
        let outcome = observe(&mut pipeline, 1, vec![number("temperature", 20.5)]);
        let held = Held {
            at: BootTime(SECOND),
            quantity: "temperature".to_owned(),
            value: Value::Number(finite(20.5)),
            by: "delta = { absolute = 1 } (filters of the sensor)".to_owned(),
            why: "it is too near to 20, the last that passed".to_owned(),
        };
        assert_eq!(outcome.held, [held]);
    }

    #[test]
    fn who_only_looks_sees_each_value() {
        let mut pipeline = Pipeline::new().only_looking();
        let list = "{ offset = 1 }, { skip_initial = 3 }, { aggregate = \"1h\" }";
        pipeline.add(descriptor(), &[], Arc::new(config(&[("temperature", list)])));
        assert_eq!(published(&observe(&mut pipeline, 0, vec![number("temperature", 20.0)])), [is("temperature", 21.0)]);
    }

    #[test]
    fn units_follow_the_filters_unless_they_are_given() {
        for (given, unit) in [(None, "°C/min"), (Some("K/min"), "K/min")] {
            let quantity = QuantityConfig { unit: given.map(str::to_owned), ..QuantityConfig::default() };
            let mut pipeline = pipeline(PipelineConfig {
                quantities: [("temperature".to_owned(), quantity)].into(),
                ..config(&[("temperature", "{ rate_of_change = \"1m\" }")])
            });
            observe(&mut pipeline, 0, vec![number("temperature", 20.0)]);
            let outcome = observe(&mut pipeline, 30, vec![number("temperature", 20.5)]);
            assert_eq!(published(&outcome), [is("temperature", 1.0)]);
            let descriptor = pipeline.descriptor(SensorIndex(0)).expect("the sensor");
            assert_eq!(descriptor.quantities[0].unit.as_deref(), Some(unit));
        }
    }
}

#[test]
fn a_sensor_under_other_names_keeps_quantities_filters_and_health() {
    let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(1.0))));
    assert_eq!(published(&observe(&mut pipeline, 1, vec![number("temperature", 20.0)])).len(), 1);
    let before = pipeline.descriptor(SensorIndex(0)).expect("the sensor").clone();
    pipeline.describe(SensorIndex(0), &descriptor());
    assert!(Arc::ptr_eq(&before, pipeline.descriptor(SensorIndex(0)).expect("the sensor")), "nothing is new");
    pipeline.describe(SensorIndex(0), &Descriptor { room: Some("cuisine".into()), ..descriptor() });
    assert_eq!(published(&observe(&mut pipeline, 2, vec![number("temperature", 20.5)])), [], "too little");
    let outcome = observe(&mut pipeline, 3, vec![number("temperature", 22.0)]);
    let (now, _) = outcome.reading.expect("enough");
    assert_eq!((now.room.as_deref(), now.quantities.len(), outcome.health), (Some("cuisine"), 1, None));
}

#[test]
fn a_sensor_that_is_replaced_starts_anew_and_one_that_is_gone_leaves_its_place() {
    let mut pipeline = pipeline(change("temperature", Deadband::Absolute(finite(1.0))));
    let declared = [Declared { name: "temperature", unit: Some("°C"), kind: Kind::Number }];
    assert_eq!(observe(&mut pipeline, 1, vec![number("temperature", 20.0)]).health, Some(Health::Online));
    pipeline.replace(SensorIndex(0), descriptor(), &declared, Arc::default());
    let outcome = observe(&mut pipeline, 2, vec![number("temperature", 20.1)]);
    assert_eq!((published(&outcome).len(), outcome.health), (1, None), "its health is no news");
    pipeline.remove(SensorIndex(0));
    let outcome = observe(&mut pipeline, 3, vec![number("temperature", 30.0)]);
    assert!(outcome.reading.is_none() && outcome.health.is_none() && pipeline.sensors().next().is_none());
    let other = Descriptor { sensor: "other".into(), ..descriptor() };
    assert_eq!(pipeline.add(other, &declared, Arc::default()), SensorIndex(0));
    let outcome = observe(&mut pipeline, 4, vec![number("temperature", 30.0)]);
    assert_eq!((&*outcome.reading.expect("a value").0.sensor, outcome.health), ("other", Some(Health::Online)));
}
