//! `vigie once`: every sensor is read once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::table::table;
use super::{FAILED, FINE, WRONG, complain, load, print};
use crate::agent::{self, describe};
use crate::clock::{Clock, SystemClock};
use crate::drivers::Source;
use crate::pipeline::{Health, Pipeline};
use crate::reading::SensorIndex;
use crate::sampler::{self, Sampler};

/// A link speaks when it likes: it gets at least this long.
const PATIENCE: Duration = Duration::from_secs(5);

/// What to look at where a port says nothing.
const SILENT_PORT: &str = "has the device power, does it send by itself, and is `baud` its own? One that speaks less \
                           often is heard by `vigie run`";

pub(super) fn once(path: &Path) -> u8 {
    let Some(config) = load(path) else { return WRONG };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("no runtime: {error}"));
            return FAILED;
        }
    };
    let mut rows = vec![["SENSOR", "QUANTITY", "VALUE", "UNIT"].map(str::to_owned).to_vec()];
    let results = tokio::task::LocalSet::new().block_on(&runtime, look(config));
    let mut status = FINE;
    for (name, lines) in results {
        match lines {
            Ok(lines) => {
                for [quantity, value, unit] in lines {
                    rows.push(vec![name.clone(), quantity, value, unit]);
                }
            }
            Err(why) => {
                status = FAILED;
                rows.push(vec![name, format!("FAULT: {why}")]);
            }
        }
    }
    print(&table(&rows));
    // A thread that is stuck in a driver's call would hold the exit up for ever.
    runtime.shutdown_background();
    status
}

type Lines = Result<Vec<[String; 3]>, String>;

async fn look(config: crate::config::Config) -> Vec<(String, Lines)> {
    // A filter that waits for more would keep the only value back.
    let mut pipeline = agent::with_sensors(Pipeline::new().only_looking(), &config);
    let (out, mut observations) = mpsc::channel(sampler::QUEUE);
    let (stop, stopped) = watch::channel(false);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(config.trust));
    let mut kept = agent::kept_so_far(&config, clock.boot());
    let hardware = config.hardware.start(&clock);
    let context = sampler::Context {
        hardware,
        clock,
        offset: watch::channel(None).1,
        out,
        stop: stopped,
        counts: Arc::default(),
        supplies: sampler::Supplies::default(),
    };
    let patience = config.sensors.iter().map(|sensor| sensor.deadline).max().unwrap_or_default().max(PATIENCE);
    let is_port = |source: &Source| matches!(source, Source::Serial { .. });
    let names: Vec<(String, bool)> =
        config.sensors.iter().map(|sensor| (sensor.name.clone(), is_port(&sensor.source))).collect();
    for (index, mut sensor) in config.sensors.into_iter().enumerate() {
        // Somebody waits for it.
        sensor.align = false;
        let index = SensorIndex(u32::try_from(index).expect("fewer than 2^32 sensors"));
        let kept = kept.remove(&sensor.name);
        let (_, reins) = sampler::remote::remote();
        tokio::task::spawn_local(sampler::run(Sampler::new(index, sensor, None, kept, reins), context.clone()));
    }
    drop(context);
    let mut results: BTreeMap<u32, Lines> = BTreeMap::new();
    let mut not_used: BTreeMap<u32, String> = BTreeMap::new();
    let deadline = tokio::time::sleep(patience);
    tokio::pin!(deadline);
    while results.values().filter(|lines| lines.is_ok()).count() < names.len() {
        let batch = tokio::select! {
            batch = observations.recv() => batch,
            () = &mut deadline => None,
        };
        let Some(batch) = batch else { break };
        for observation in batch {
            let sensor = observation.sensor;
            let outcome = pipeline.observe(observation);
            not_used.extend(outcome.rejected.last().map(|why| (sensor.0, why.clone())));
            if let Some((descriptor, values)) = outcome.reading {
                let lines = values.iter().map(|(index, value)| describe(&descriptor, *index, value)).collect();
                results.insert(sensor.0, Ok(lines));
            } else if let Some(Health::Fault(fault)) = outcome.health {
                results.entry(sensor.0).or_insert_with(|| Err(format!("{}: {}", fault.code.as_str(), fault.detail)));
            }
        }
        if results.len() == names.len() {
            break;
        }
    }
    stop.send_replace(true);
    let silent = |index, is_port| {
        let within = humantime::format_duration(patience);
        Err(match not_used.get(&index) {
            Some(why) => format!("gave nothing that can be used within {within}: {why}"),
            None if is_port => format!("gave nothing within {within}: {SILENT_PORT}"),
            None => format!("gave nothing within {within}"),
        })
    };
    let result = |(index, (name, is_port))| (name, results.remove(&index).unwrap_or_else(|| silent(index, is_port)));
    (0_u32..).zip(names).map(result).collect()
}
