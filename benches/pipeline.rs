//! What an observation costs on its way through the pipeline.

use std::sync::Arc;

use divan::{Bencher, counter::ItemsCount};
use vigie::clock::BootTime;
use vigie::pipeline::{Deadband, Declared, Pipeline, PipelineConfig, QuantityConfig};
use vigie::reading::{Descriptor, Finite, Kind, Observation, Sample, SensorIndex, Value};

fn main() {
    divan::main();
}

fn pipeline(config: PipelineConfig) -> Pipeline {
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: Some("maison".into()),
        room: Some("salon".into()),
        sensor: "meteo".into(),
        ..Descriptor::default()
    };
    let declared = [Declared { name: "temperature", unit: Some("°C"), kind: Kind::Number }];
    let mut pipeline = Pipeline::new();
    pipeline.add(descriptor, &declared, Arc::new(config));
    pipeline
}

fn finite(number: f64) -> Finite {
    Finite::new(number).expect("finite")
}

/// The `number`-th observation: a temperature that goes up and down, and a humidity that stands still.
fn observation(number: u64) -> Observation {
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let temperature = 20.0 + (number % 50) as f64 / 10.0;
    let samples = vec![
        Sample::new("temperature", Value::Number(finite(temperature))),
        Sample::new("humidity", Value::Number(finite(40.0))),
    ];
    Observation { sensor: SensorIndex(0), at: BootTime(number * 1_000_000_000), outcome: Ok(samples), keep: None }
}

fn run(bencher: Bencher<'_, '_>, config: PipelineConfig) {
    let mut pipeline = pipeline(config);
    let mut number = 0;
    bencher
        .counter(ItemsCount::new(1_u32))
        .with_inputs(|| {
            number += 1;
            observation(number)
        })
        .bench_local_values(|observation| pipeline.observe(observation));
}

#[divan::bench]
fn everything_is_published(bencher: Bencher<'_, '_>) {
    run(bencher, PipelineConfig::default());
}

#[divan::bench]
fn calibrated_and_filtered_by_change(bencher: Bencher<'_, '_>) {
    let calibrated = QuantityConfig {
        multiply: Some(finite(1.02)),
        offset: Some(finite(-0.3)),
        round: Some(2),
        ..QuantityConfig::default()
    };
    let deadband = |name: &str| (name.to_owned(), Deadband::Absolute(finite(0.1)));
    let config = PipelineConfig {
        quantities: [("temperature".to_owned(), calibrated)].into(),
        change: [deadband("temperature"), deadband("humidity")].into(),
        ..PipelineConfig::default()
    };
    run(bencher, config);
}
