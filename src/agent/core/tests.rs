//! The core stage with little memory, a simulated disk, and no broker.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::{BootId, Clock, ManualClock};
use crate::config::{self, Gateway};
use crate::outbox::Settings;
use crate::outbox::simulated::Simulated;
use crate::pipeline::{Declared, PipelineConfig};
use crate::reading::{Descriptor, Finite, Kind, Sample, Value};
use crate::uplink::status::Info;

/// Observations in a batch: a serial line of 115,200 baud brings as many short ones at a time.
const PER_BATCH: usize = 60;
/// Less than what the samplers' queue holds of such batches.
const MEMORY: usize = 192 * 1024;

fn settings() -> Settings {
    Settings { memory_bytes: MEMORY, ..Settings::of_a_test("/disk/outbox", "/run/vigie") }
}

fn gateway() -> Gateway {
    Gateway {
        name: "atelier".to_owned(),
        id: "1".to_owned(),
        label: None,
        site: None,
        topic: Template::parse("{sensor}/{quantity}").expect("a template"),
        location: None,
    }
}

fn without_discovery() -> config::Config {
    let text = "[gateway]\nname = \"atelier\"\n[uplink.a]\nurl = \"mqtt://b\"\n";
    config::from_text("test.toml", text, &config::Machine::this(), crate::drivers::DRIVERS).expect("no errors")
}

fn pipeline() -> Pipeline {
    pipeline_with(PipelineConfig::default())
}

fn pipeline_with(config: PipelineConfig) -> Pipeline {
    let descriptor = Descriptor { gateway: "atelier".into(), sensor: "sketch".into(), ..Descriptor::default() };
    let declared = [Declared { name: "n", unit: None, kind: Kind::Number }];
    let mut pipeline = Pipeline::new();
    pipeline.add(descriptor, &declared, Arc::new(config));
    pipeline
}

fn observation(number: usize, at: BootTime) -> Observation {
    let number = u32::try_from(number).expect("few");
    let value = Value::number(f64::from(number)).expect("finite");
    let sample = Sample::new("n", value);
    Observation { sensor: SensorIndex(0), at, outcome: Ok(vec![sample]), keep: None }
}

/// A core stage with what it hands on, over a disk in memory.
fn core(disk: &Simulated, clock: &Arc<ManualClock>, pipeline: Pipeline) -> Core {
    let boot = BootId([1; 16]);
    let (mut outbox, recovery) = disk.open_outbox(settings(), boot, clock.boot()).expect("an outbox");
    outbox.cursor("away");
    let info = Info { version: "0", run: outbox.run(), ..Info::default() };
    let hub = Hub::new(outbox, clock.clone(), boot, gateway(), info, recovery.tail_found);
    Core {
        pipeline,
        hub: hub.clone(),
        boot,
        topic: gateway().topic,
        discovery: Discovery::new(&without_discovery(), hub.clone(), "0", None),
        strict: false,
        extras: Extras::default(),
        rounds: watch::Sender::new(0),
        complaints: HashMap::new(),
        gps: Some(SensorIndex(0)),
        positions: Positions::default(),
        summary: Rc::default(),
        ingest: Ingest::new(&without_discovery()),
        answers: Vec::new(),
        full: false,
        sweeps: Sweeps::default(),
        memory: Memory::default(),
        learnt: HashMap::new(),
    }
}

/// Lets the core stage take batches to their end.
fn taken(core: Core, batches: impl IntoIterator<Item = Batch>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (out, observations) = mpsc::channel(QUEUE);
    for batch in batches {
        out.try_send(batch).expect("there is room");
    }
    drop(out);
    let (_, offered) = mpsc::channel(1);
    runtime.block_on(core.run(observations, offered, super::super::calls::calls().1));
}

/// A heartbeat comes each ten seconds, whatever the wall clock does meanwhile.
#[test]
fn heartbeats_run_on_the_boot_clock() {
    let (disk, clock) = (Simulated::new(Path::new("/run")), Arc::new(ManualClock::new()));
    clock.set_wall(std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
    let change =
        std::iter::once(("n".to_owned(), crate::pipeline::Deadband::Absolute(Finite::new(5.0).expect("finite"))));
    let config =
        PipelineConfig { change: change.collect(), heartbeat: Some(Duration::from_secs(10)), ..Default::default() };
    let mut core = core(&disk, &clock, pipeline_with(config));
    let hub = core.hub.clone();
    for (second, step) in (0..100_u64).zip([3_600, -7_200, 40, -1, 0].into_iter().cycle()) {
        clock.step(step * 1_000_000_000);
        hub.look_at_clock();
        core.observe(observation(1, BootTime(second * 1_000_000_000)));
        clock.advance(Duration::from_secs(1));
    }
    hub.outbox.borrow_mut().commit(clock.boot());
    assert_eq!(hub.outbox.borrow().stats().taken, 10);
}

/// The time of a fix dates what was measured before it; without a fix, what a receiver says is no time.
#[test]
fn a_fix_says_what_time_it_is() {
    let (disk, clock) = (Simulated::new(Path::new("/run")), Arc::new(ManualClock::new()));
    clock.advance(Duration::from_secs(60));
    let core = core(&disk, &clock, pipeline());
    let hub = core.hub.clone();
    let said = |fix, utc: &str| Observation {
        sensor: SensorIndex(0),
        at: BootTime(50 * 1_000_000_000),
        outcome: Ok(vec![Sample::new("fix", Value::Switch(fix)), Sample::new("utc", Value::Text(utc.into()))]),
        keep: None,
    };
    for (fix, utc) in [(false, "2027-01-15T08:00:00.000Z"), (true, "00:00:00"), (true, "2027-13-15T08:00:00.000Z")] {
        assert_eq!(time_of_fix(&said(fix, utc).outcome.expect("samples")), None, "{fix} {utc}");
    }
    taken(core, [vec![said(true, "2027-01-15T08:00:00.000Z")]]);
    assert_eq!(hub.now(), Some(WallTime(1_800_000_010_000_000_000)));
    assert_eq!(hub.stamp(BootTime(0)), Some(WallTime(1_799_999_950_000_000_000)));
}

/// One wake-up brings all that the queue holds, which is more than memory has room for: what is too much waits for the
/// disk, and nothing is dropped.
#[test]
fn a_full_queue_is_taken_without_a_loss() {
    let (disk, clock) = (Simulated::new(Path::new("/run")), Arc::new(ManualClock::new()));
    let core = core(&disk, &clock, pipeline());
    let hub = core.hub.clone();
    let batch = |batch| batch * PER_BATCH..(batch + 1) * PER_BATCH;
    taken(core, (0..QUEUE).map(|number| batch(number).map(|number| observation(number, clock.boot())).collect()));

    let outbox = &mut *hub.outbox.borrow_mut();
    let away = outbox.cursor("away");
    let (stats, count) = (outbox.stats(), (QUEUE * PER_BATCH) as u64);
    assert!(stats.memory_bytes <= MEMORY && outbox.on_disk() > 0, "it was more than memory holds: {stats:?}");
    assert_eq!((stats.taken, stats.dropped, outbox.take_drops()), (count, 0, Vec::new()));
    assert_eq!(outbox.backlog(away), count);
}
