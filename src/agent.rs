//! Wires everything up, watches over it, and takes it down in order: the one file that knows every module.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tracing::{Instrument as _, Span, info, info_span, warn};

use crate::clock::{BootId, BootTime, Clock, SystemClock};
use crate::config::{Config, SensorConfig};
use crate::control;
use crate::control::server::Server;
use crate::control::status::About;
use crate::drivers::Source;
use crate::logging::AUDIT;
use crate::offer;
use crate::outbox::{self, Full, Outbox, Recovery};
use crate::pipeline::{Declared, Pipeline};
use crate::reading::{Descriptor, SensorIndex, Value, Values};
use crate::sampler::remote::{Reins, Remotes, remote};
use crate::sampler::{self, Sampler};
use crate::service;
use crate::topic::Template;
use crate::uplink::status::Info;
use crate::uplink::{self, Hub};

mod archive;
mod commands;
mod core;
mod discovery;
mod embedded;
mod flush;
mod gaps;
mod identity;
mod ingest;
mod kept;
#[cfg(feature = "broker")]
mod lan;
pub mod places;
mod positions;
mod summary;
mod watchdog;
mod when;

use self::commands::Commands;
use self::core::Core;
use self::discovery::Discovery;
use self::embedded::Embedded;
use self::ingest::Ingest;
use self::positions::Positions;
use self::summary::Summary;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bytes of records that are kept in memory.
const MEMORY: usize = 8 << 20;
/// How old small values (counter totals, the session) may be on disk.
const PERSIST: Duration = Duration::from_secs(300);
/// The whole shutdown takes no longer than this.
const SHUTDOWN: Duration = Duration::from_millis(1500);
/// How much of that is spent on waiting for acknowledgements.
const LAST_ACKS: Duration = Duration::from_millis(700);

/// What a caller may want besides the work itself; the demo does.
#[derive(Default)]
pub struct Extras {
    /// The embedded broker takes the first free port from the configured one on.
    pub any_port: bool,
    /// Told once, when the embedded broker answers: where.
    pub on_broker: Option<Box<dyn Fn(SocketAddr)>>,
    /// Told of everything that goes to the outbox.
    pub on_reading: Option<Box<OnReading>>,
}

/// Sees what goes to the outbox: the topics' template, the sensor, its values.
pub type OnReading = dyn Fn(&Template, &Descriptor, &Values);

/// Runs a gateway until SIGTERM or SIGINT.
///
/// # Errors
/// What could not be started, or which core stage ended early.
pub fn run(config: Config, extras: Extras) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        // Flushes run one at a time, and so do questions to hardware clocks; each uplink reads files and looks up names, one
        // of which may be stuck.
        .max_blocking_threads(3 + 2 * config.uplinks.len())
        .thread_keep_alive(Duration::from_secs(2))
        .build()
        .context("no runtime")?;
    let result = tokio::task::LocalSet::new().block_on(&runtime, serve(config, extras));
    // A sensor's thread may be stuck in a call for ever; it must not hold the exit up.
    runtime.shutdown_background();
    result
}

async fn serve(mut config: Config, extras: Extras) -> anyhow::Result<()> {
    // From here on a signal is an orderly shutdown, also while things are still starting.
    let mut signals = Signals::new().context("signals cannot be handled")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(config.trust));
    let Some(boot) = BootId::current() else {
        bail!("/proc/sys/kernel/random/boot_id cannot be read: is /proc mounted?")
    };
    identity::look(&mut config);
    let settings = outbox_settings(&config);
    let about = About::new(&config, settings.clone());
    let tail = settings.tail_dir.clone();
    let (outbox, recovery) = open_outbox(&config, settings, boot, clock.boot())?;
    let run = outbox.run();
    info!(target: AUDIT, audit = "start", run, configuration = %config.hash, version = VERSION, "vigie starts");

    let (offers, offered) = mpsc::channel(offer::QUEUE);
    let mut broker = Embedded::start(&mut config, &extras, &tail, offers).await?;

    let board = board();
    let info = Info {
        version: VERSION,
        label: config.gateway.label.clone(),
        board: board.clone(),
        configuration: config.hash.clone(),
        run,
        ..Info::default()
    };
    uplink::ask_hardware_clocks(&clock).await;
    let hub = Hub::new(outbox, clock.clone(), boot, config.gateway.clone(), info, recovery.tail_found);

    hub.veil(&config.uplinks);
    let (stop_uplinks, uplinks_stop) = watch::channel(None);
    let mut uplinks = JoinSet::new();
    for uplink in &config.uplinks {
        uplinks.spawn_local(uplink::run(uplink.clone(), hub.clone(), uplinks_stop.clone()));
    }
    let clock_watch = tokio::task::spawn_local(uplink::watch_clock(hub.clone()));

    let (stop_archive, archive_stop) = watch::channel(false);
    let archive = config.archive.as_ref().map(|archive| {
        let names = config.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        tokio::task::spawn_local(archive::run(hub.clone(), archive.clone(), names, archive_stop))
    });

    // The sensors' ends, in the configuration's order; names are unique.
    let (ends, reins): (Vec<_>, Vec<_>) = config.sensors.iter().map(|_| remote()).unzip();
    let names = config.sensors.iter().map(|sensor| sensor.name.clone());
    let remotes: Rc<Remotes> = Rc::new(names.zip(ends).collect());

    let (stop_commands, commands_stop) = watch::channel(false);
    let (requests, waiting) = mpsc::channel(commands::QUEUE);
    hub.send_commands_to(requests);
    let commands = Commands::new(&config, hub.clone(), &remotes);
    let mut commands = tokio::task::spawn_local(commands.run(waiting, commands_stop));

    let (stop_control, control_stop) = watch::channel(false);
    let control = serve_control(&hub, about, Rc::clone(&remotes), control_stop);

    let (stop_flusher, flusher_stop) = watch::channel(false);
    let mut flusher = tokio::task::spawn_local(flush::run(hub.clone(), flusher_stop));

    let summary = Rc::new(RefCell::new(Summary::new(&config.sensors)));
    let (out, observations) = mpsc::channel(sampler::QUEUE);
    let (rounds, rounds_seen) = watch::channel(0);
    let pipeline = restored_pipeline(&config, &hub.outbox.borrow(), boot);
    let core = Core {
        pipeline,
        hub: hub.clone(),
        boot,
        topic: config.gateway.topic.clone(),
        discovery: Discovery::new(&config, hub.clone(), VERSION, board.as_deref()),
        strict: config.outbox.flush.is_zero(),
        extras,
        rounds,
        complaints: HashMap::new(),
        gps: config.gps,
        positions: Positions::new(&config.sensors),
        summary: summary.clone(),
        ingest: Ingest::new(&config),
        answers: Vec::new(),
        full: false,
    };
    let mut core = tokio::task::spawn_local(core.run(observations, offered));
    let names: Vec<String> = config.uplinks.iter().map(|uplink| uplink.name.clone()).collect();
    let status = watchdog::status_line(&hub, &summary.borrow(), &names);
    let watchdog = tokio::task::spawn_local(watchdog::run(out.clone(), rounds_seen, hub.clone(), summary, names));

    let (stop_samplers, samplers_stop) = watch::channel(false);
    let context = sampler::Context {
        hardware: config.hardware.start(&clock),
        clock: clock.clone(),
        offset: hub.offset(),
        out,
        stop: samplers_stop,
        counts: Arc::default(),
        supplies: sampler::Supplies::default(),
    };
    let mut samplers = JoinSet::new();
    for ((index, sensor), reins) in (0..).zip(config.sensors).zip(reins) {
        let kept = kept::of(&hub.outbox.borrow(), &sensor.name);
        let place = sensor.room.as_ref().map_or(Span::none(), |room| info_span!("room", %room));
        let sampler = Sampler::new(SensorIndex(index), sensor, kept, reins);
        samplers.spawn_local(sampler::run(sampler, context.clone()).instrument(place));
    }
    drop(context);
    service::ready(&status);

    let early: anyhow::Result<()> = tokio::select! {
        name = signals.next() => {
            info!(target: AUDIT, audit = "stop", "{name}: shutting down");
            Ok(())
        }
        end = &mut core => Err(anyhow!("the pipeline ended early: {end:?}")),
        end = &mut flusher => Err(anyhow!("the flush of the outbox ended early: {end:?}")),
        end = &mut commands => Err(anyhow!("the commands' stage ended early: {end:?}")),
        Some(end) = uplinks.join_next() => Err(anyhow!("an uplink ended early: {end:?}")),
        () = broker.watch(&hub) => unreachable!("it watches for ever"),
    };

    service::stopping();
    watchdog.abort();
    clock_watch.abort();
    let orderly = async {
        stop_samplers.send_replace(true);
        while samplers.join_next().await.is_some() {}
        // Every sender is gone now: the core takes what is left and ends.
        finished(&mut core).await;
        // With the sensors gone every command has its result.
        stop_commands.send_replace(true);
        finished(&mut commands).await;
        stop_uplinks.send_replace(Some(clock.boot().after(LAST_ACKS)));
        while uplinks.join_next().await.is_some() {}
    };
    tokio::select! {
        () = orderly => {}
        () = tokio::time::sleep(SHUTDOWN) => warn!("the shutdown takes too long: what waits stays in the outbox"),
        name = signals.next() => warn!("{name} again: what waits stays in the outbox"),
    }
    // Nobody may use the outbox any more. A flush that runs is finished: its records are half written.
    for mut stage in [core, commands] {
        stage.abort();
        finished(&mut stage).await;
    }
    stop_archive.send_replace(true);
    if let Some(archive) = archive {
        let _ = archive.await;
    }
    stop_control.send_replace(true);
    if let Some(control) = control {
        let _ = control.await;
    }
    uplinks.shutdown().await;
    samplers.shutdown().await;
    let _ = (watchdog.await, clock_watch.await);
    stop_flusher.send_replace(true);
    if !flusher.is_finished() {
        let _ = flusher.await;
    }
    hub.remember_time();
    let closed = match Rc::try_unwrap(hub) {
        Ok(hub) => hub.outbox.into_inner().close(clock.boot()).context("the outbox cannot be written at the end"),
        // The tail has everything; only a power cut now could lose what was not flushed.
        Err(_) => Err(anyhow!("the outbox is still in use at the end")),
    };
    broker.stop().await;
    early?;
    closed?;
    info!("stopped");
    Ok(())
}

/// Waits for the end of a stage, unless that was seen before: nobody may ask for it twice.
async fn finished(stage: &mut JoinHandle<()>) {
    if !stage.is_finished() {
        let _ = stage.await;
    }
}

/// Takes requests of the command line. An agent without that works all the same.
fn serve_control(
    hub: &Rc<Hub>,
    about: About,
    remotes: Rc<Remotes>,
    stop: watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    let socket = control::socket(&about.outbox.tail_dir, &about.outbox.dir);
    match Server::bind(&socket, hub.clone(), about, remotes) {
        Ok(server) => Some(tokio::task::spawn_local(server.run(stop))),
        Err(error) => {
            warn!(socket = %socket.display(), "no control socket ({error}): `vigie outbox` will not reach this agent");
            None
        }
    }
}

/// Settings of an outbox whose tail is in a given folder.
#[must_use]
pub fn outbox_settings_at(config: &Config, tail_dir: PathBuf) -> outbox::Settings {
    outbox::Settings {
        dir: config.outbox.path.clone(),
        tail_dir,
        flush: config.outbox.flush,
        max_bytes: config.outbox.max_bytes,
        free_share: config.outbox.free_share,
        full: if config.outbox.drop_newest { Full::DropNewest } else { Full::DropOldest },
        memory_bytes: MEMORY,
        persist: PERSIST,
        key: config.outbox.key.clone(),
    }
}

/// What the sensors on lines have kept so far, by name, as an agent that is not running left it. Nothing where there is
/// no outbox yet, or somebody has it: then the lines are taken, too.
#[must_use]
pub fn kept_so_far(config: &Config, now: BootTime) -> HashMap<String, Box<[u8]>> {
    let keeps = |sensor: &&SensorConfig| matches!(sensor.source, Source::Line(_));
    let names: Vec<&str> = config.sensors.iter().filter(keeps).map(|sensor| sensor.name.as_str()).collect();
    if names.is_empty() {
        return HashMap::new();
    }
    let tail = places::tail(config.outbox.tail.as_deref(), &config.outbox.path);
    let outbox = BootId::current()
        .and_then(|boot| Outbox::inspect(outbox_settings_at(config, tail.dir), boot, now).ok())
        .map(|(outbox, _)| outbox);
    let kept = |name: &str| Some((name.to_owned(), kept::of(outbox.as_ref()?, name)?));
    names.into_iter().filter_map(kept).collect()
}

/// Names of the outbox's cursors; any other is forgotten.
#[must_use]
pub fn cursors(config: &Config) -> Vec<&str> {
    let archive = config.archive.as_ref().map(|_| crate::archive::CURSOR);
    config.uplinks.iter().map(|uplink| uplink.name.as_str()).chain(archive).collect()
}

fn outbox_settings(config: &Config) -> outbox::Settings {
    let tail = places::tail(config.outbox.tail.as_deref(), &config.outbox.path);
    if !tail.in_memory {
        warn!(tail = %tail.dir.display(), "the tail is not on a tmpfs: each record is a write to the disk's cache");
    }
    outbox_settings_at(config, tail.dir)
}

fn open_outbox(
    config: &Config,
    settings: outbox::Settings,
    boot: BootId,
    now: BootTime,
) -> anyhow::Result<(Outbox, Recovery)> {
    let path = &config.outbox.path;
    let (mut outbox, recovery) = Outbox::open(settings, boot, now)?;
    let Recovery { waiting, from_tail, segments, .. } = recovery;
    info!(outbox = %path.display(), waiting, from_tail, segments, "outbox opened");
    if recovery.tail_torn {
        warn!("the tail ended in the middle of a write: a reading that was not yet taken is missing");
    }
    if recovery.state_lost {
        warn!("the outbox had no readable state: counters start anew");
    }
    if recovery.sealed_from_now {
        info!("the outbox is encrypted from now on; what it held before stays in clear until it has been sent");
    }
    if !recovery.run_counted {
        warn!(run = outbox.run(), "the run could not be counted on disk: it has a random number");
    }
    for file in &recovery.set_aside {
        warn!(file = %file.display(), "damaged, and set aside; what was good in it is used");
    }
    outbox.retain_cursors(&cursors(config));
    let sensors: Vec<&str> = config.sensors.iter().map(|sensor| sensor.name.as_str()).collect();
    kept::forget_former(&mut outbox, &sensors);
    Ok((outbox, recovery))
}

/// A pipeline with the configuration's sensors, whose filters go on from what they kept in earlier runs.
fn restored_pipeline(config: &Config, outbox: &Outbox, boot: BootId) -> Pipeline {
    let mut pipeline = with_sensors(Pipeline::new(), config);
    for (index, sensor) in (0..).zip(&config.sensors) {
        if let Some((kept, same_boot)) = kept::of_filters(outbox, &sensor.name, boot) {
            pipeline.restore(SensorIndex(index), &kept, same_boot);
        }
    }
    pipeline
}

/// A pipeline with the configuration's sensors, in their order.
#[must_use]
pub fn with_sensors(mut pipeline: Pipeline, config: &Config) -> Pipeline {
    for sensor in &config.sensors {
        let declared: Vec<Declared> = sensor
            .driver
            .quantities
            .iter()
            .map(|quantity| Declared { name: quantity.name, unit: quantity.unit, kind: quantity.kind })
            .collect();
        pipeline.add(sensor.descriptor(&config.gateway), &declared, sensor.pipeline.clone());
    }
    pipeline
}

/// A value for people: the quantity's name, the value, the unit.
#[must_use]
pub fn describe(descriptor: &Descriptor, index: u16, value: &Value) -> [String; 3] {
    let quantity = descriptor.quantities.get(usize::from(index));
    let name = quantity.map(|quantity| quantity.name.to_string()).unwrap_or_default();
    let unit = quantity.and_then(|quantity| quantity.unit.as_deref()).unwrap_or_default().to_owned();
    let value = match value {
        Value::Number(number) => number.to_string(),
        Value::Switch(on) => on.to_string(),
        Value::Text(text) => text.to_string(),
        Value::Bytes(bytes) => format!("{} bytes", bytes.len()),
    };
    [name, value, unit]
}

impl Sampler {
    /// A configured sensor at its place in the pipeline, with what it kept in an earlier run and its end of a
    /// [`remote`](sampler::remote::remote).
    #[must_use]
    pub fn new(index: SensorIndex, sensor: SensorConfig, kept: Option<Box<[u8]>>, reins: Reins) -> Self {
        let SensorConfig { name, source, every, align, deadline, power, .. } = sensor;
        let (kept, lost) = (RefCell::new(kept), RefCell::default());
        Self { index, name, source, every, align, deadline, power, kept, lost, reins }
    }
}

/// What the board calls itself.
fn board() -> Option<String> {
    let model = std::fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(model.trim_end_matches(['\0', '\n']).to_owned())
}

/// SIGTERM and SIGINT.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The next of them, by name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.term.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
