//! The core stage with little memory, a simulated disk, and no broker.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::clock::{BootId, Clock, ManualClock};
use crate::config::Gateway;
use crate::outbox::simulated::Simulated;
use crate::outbox::{Full, Settings};
use crate::pipeline::{Declared, PipelineConfig};
use crate::reading::{Descriptor, Kind, Sample, Value};
use crate::uplink::status::Info;

/// Observations in a batch: a serial line of 115,200 baud brings as many short ones at a time.
const PER_BATCH: usize = 60;
/// Less than what the samplers' queue holds of such batches.
const MEMORY: usize = 192 * 1024;

fn settings() -> Settings {
    Settings {
        dir: "/disk/outbox".into(),
        tail_dir: "/run/vigie".into(),
        flush: Duration::from_secs(1),
        max_bytes: 64 << 20,
        free_share: 50,
        full: Full::DropOldest,
        memory_bytes: MEMORY,
        persist: Duration::from_secs(300),
        key: None,
    }
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

fn pipeline() -> Pipeline {
    let descriptor = Descriptor {
        gateway: "atelier".into(),
        site: None,
        room: None,
        room_label: None,
        sensor: "sketch".into(),
        label: None,
        location: None,
        tags: Vec::new(),
        quantities: Vec::new(),
    };
    let declared = [Declared { name: "n", unit: None, kind: Kind::Number }];
    let mut pipeline = Pipeline::new();
    pipeline.add(descriptor, &declared, Arc::new(PipelineConfig::default()));
    pipeline
}

fn observation(number: usize, at: BootTime) -> Observation {
    let number = u32::try_from(number).expect("few");
    let value = Value::number(f64::from(number)).expect("finite");
    let sample = Sample::new("n", value);
    Observation { sensor: SensorIndex(0), at, outcome: Ok(vec![sample]), keep: None }
}

/// One wake-up brings all that the queue holds, which is more than memory has room for: what is too much waits for the
/// disk, and nothing is dropped.
#[test]
fn a_full_queue_is_taken_without_a_loss() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let disk = Simulated::new(Path::new("/run"));
    let clock = Arc::new(ManualClock::new());
    let boot = BootId([1; 16]);
    let (mut outbox, recovery) = disk.open_outbox(settings(), boot, clock.boot()).expect("an outbox");
    let away = outbox.cursor("away");
    let info = Info { version: "0", run: outbox.run(), ..Info::default() };
    let hub = Hub::new(outbox, clock.clone(), boot, gateway(), info, recovery.tail_found);
    let core = Core {
        pipeline: pipeline(),
        hub: hub.clone(),
        topic: gateway().topic,
        strict: false,
        extras: Extras::default(),
        rounds: watch::Sender::new(0),
        complaints: HashMap::new(),
        summary: Rc::default(),
    };
    let (out, observations) = mpsc::channel(QUEUE);
    for batch in 0..QUEUE {
        let numbers = batch * PER_BATCH..(batch + 1) * PER_BATCH;
        out.try_send(numbers.map(|number| observation(number, clock.boot())).collect()).expect("there is room");
    }
    drop(out);
    runtime.block_on(core.run(observations));

    let outbox = &mut *hub.outbox.borrow_mut();
    let (stats, count) = (outbox.stats(), (QUEUE * PER_BATCH) as u64);
    assert!(stats.memory_bytes <= MEMORY && outbox.on_disk() > 0, "it was more than memory holds: {stats:?}");
    assert_eq!((stats.taken, stats.dropped, outbox.take_drops()), (count, 0, Vec::new()));
    assert_eq!(outbox.backlog(away), count);
}
