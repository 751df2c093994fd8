//! What an observation comes to.

use super::*;
use crate::reading::{FaultCode, Quantity, Sample};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn descriptor() -> Descriptor {
    Descriptor {
        gateway: "g".into(),
        site: None,
        room: Some("salon".into()),
        room_label: None,
        sensor: "meteo".into(),
        label: None,
        location: None,
        tags: vec![],
        quantities: vec![],
    }
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
