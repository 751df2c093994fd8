//! Wires everything up, watches over it, and takes it down in order: the one file that knows every module.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::clock::{BootId, Clock, SystemClock};
use crate::config::Config;
use crate::control;
use crate::control::server::{Reloads, Server};
use crate::control::status::About;
use crate::logging::AUDIT;
use crate::offer;
use crate::outbox::Outbox;
use crate::pipeline::Pipeline;
use crate::reading::{Descriptor, SensorIndex, Value, Values};
use crate::sampler;
use crate::sampler::remote::Remotes;
use crate::service;
use crate::topic::Template;
use crate::uplink::status::Info;
use crate::uplink::{self, Hub};

mod archive;
mod audit;
mod calls;
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
mod reload;
mod restart;
mod retained;
mod sensors;
mod signals;
mod store;
mod summary;
mod uplinks;
mod watchdog;
mod when;

use self::commands::Commands;
use self::core::Core;
use self::discovery::Discovery;
use self::embedded::Embedded;
use self::ingest::Ingest;
use self::positions::Positions;
use self::reload::Running;
use self::retained::memory::Memory;
use self::sensors::{Facts, Sensors};
use self::signals::{Asked, Signals};
use self::store::{open_outbox, outbox_settings};
use self::summary::Summary;
use self::uplinks::Uplinks;

pub use self::store::{cursors, kept_so_far, outbox_settings_at};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Calls that may block at a time. Flushes run one at a time, and so do questions to hardware clocks, the archive's writes
/// and reloads; each uplink reads files and looks up names, one of which may be stuck. Threads are made as they are needed.
const BLOCKING: usize = 64;
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
    /// Where the configuration is read anew from at a reload; `None`: there is none.
    pub file: Option<PathBuf>,
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
        .max_blocking_threads(BLOCKING)
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
    let mut signals = Signals::new(extras.file.is_some()).context("signals cannot be handled")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new(config.trust));
    let Some(boot) = BootId::current() else {
        bail!("/proc/sys/kernel/random/boot_id cannot be read: is /proc mounted?")
    };
    identity::look(&mut config);
    let settings = outbox_settings(&config);
    let about = Rc::new(RefCell::new(About::new(&config, settings.clone())));
    let tail = settings.tail_dir.clone();
    let (outbox, recovery) = open_outbox(&config, settings, boot, clock.boot())?;
    let run = outbox.run();
    info!(target: AUDIT, audit = "start", run, configuration = %config.hash, version = VERSION, "vigie starts");

    let (offers, offered) = mpsc::channel(offer::QUEUE);
    let mut broker = Embedded::start(&mut config, &extras, &tail, offers).await?;
    about.borrow_mut().broker = broker.ask();

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
    let mut uplinks = Uplinks::new(hub.clone());
    for uplink in &config.uplinks {
        uplinks.start(uplink.clone());
    }
    let clock_watch = tokio::task::spawn_local(uplink::watch_clock(hub.clone()));

    let (stop_archive, archive_stop) = watch::channel(false);
    let archive = config.archive.as_ref().map(|archive| {
        tokio::task::spawn_local(archive::run(hub.clone(), archive.clone(), about.clone(), archive_stop))
    });

    let audit_wanted = Rc::new(Cell::new(audit::is_wanted(&config.uplinks)));
    let (stop_audit, audit_stop) = watch::channel(false);
    let strict = config.outbox.flush.is_zero();
    let audit = tokio::task::spawn_local(audit::run(hub.clone(), audit_wanted.clone(), strict, audit_stop));

    let remotes: Rc<Remotes> = Rc::default();
    let (stop_control, control_stop) = watch::channel(false);
    let (reloads, mut asked) = mpsc::channel(1);
    let control = serve_control(&hub, &about, Rc::clone(&remotes), reloads, control_stop);

    let (stop_flusher, flusher_stop) = watch::channel(false);
    let mut flusher = tokio::task::spawn_local(flush::run(hub.clone(), flusher_stop));

    let summary = Rc::new(RefCell::new(Summary::new(&config.sensors)));
    let (out, observations) = mpsc::channel(sampler::QUEUE);
    let (rounds, rounds_seen) = watch::channel(0);
    let places: Vec<SensorIndex> = (0..).zip(&config.sensors).map(|(index, _)| SensorIndex(index)).collect();
    let file = extras.file.clone();
    let pipeline = restored_pipeline(&config, &hub.outbox.borrow(), boot);
    let facts: Vec<Facts> = config.sensors.iter().map(|sensor| Facts::of(sensor, &config.gateway)).collect();
    let (memory, sweeps) = Memory::start(&hub, &config.uplinks, &facts);
    let core = Core {
        pipeline,
        hub: hub.clone(),
        boot,
        topic: config.gateway.topic.clone(),
        discovery: Discovery::new(&config, hub.clone(), VERSION, board.as_deref()),
        strict,
        extras,
        rounds,
        complaints: HashMap::new(),
        gps: config.gps,
        positions: Positions::new(&config.sensors, &places),
        summary: summary.clone(),
        ingest: Ingest::new(&config),
        answers: Vec::new(),
        full: false,
        sweeps,
        memory,
        learnt: HashMap::new(),
    };
    let (on_core, core_calls) = calls::calls();
    let mut core = tokio::task::spawn_local(core.run(observations, offered, core_calls));
    let status = watchdog::status_line(&hub, &summary.borrow(), &about.borrow());
    let watchdog =
        tokio::task::spawn_local(watchdog::run(out.clone(), rounds_seen, hub.clone(), summary.clone(), about.clone()));

    let context = sampler::Context {
        hardware: config.hardware.start(&clock),
        clock: clock.clone(),
        offset: hub.offset(),
        out,
        stop: watch::channel(false).1,
        counts: Arc::default(),
        supplies: sampler::Supplies::default(),
    };
    let mut sensors = Sensors::new(hub.clone(), remotes, context);
    for ((place, sensor), facts) in places.into_iter().zip(std::mem::take(&mut config.sensors)).zip(facts) {
        sensors.start(place, sensor, facts);
    }

    let (stop_commands, commands_stop) = watch::channel(false);
    let (requests, waiting) = mpsc::channel(commands::QUEUE);
    hub.send_commands_to(requests);
    let targets = sensors.targets(&config.gateway.topic);
    let commands = Commands::new(hub.clone(), strict, targets);
    let (on_commands, commands_calls) = calls::calls();
    let mut commands = tokio::task::spawn_local(commands.run(waiting, commands_calls, commands_stop));
    service::ready(&status);

    let mut running = Running {
        config,
        hub: hub.clone(),
        sensors,
        uplinks,
        core: on_core,
        commands: on_commands,
        about,
        summary,
        audit_wanted,
    };
    let early: anyhow::Result<()> = {
        let mut broker = pin!(broker.watch(&hub));
        loop {
            let reply = tokio::select! {
                signal = signals.next() => match signal {
                    Asked::Stop(name) => {
                        info!(target: AUDIT, audit = "stop", "{name}: shutting down");
                        break Ok(());
                    }
                    Asked::Reload => {
                        info!("SIGHUP: reloading");
                        None
                    }
                },
                end = &mut core => break Err(anyhow!("the pipeline ended early: {end:?}")),
                end = &mut flusher => break Err(anyhow!("the flush of the outbox ended early: {end:?}")),
                end = &mut commands => break Err(anyhow!("the commands' stage ended early: {end:?}")),
                end = running.uplinks.ended() => break Err(anyhow!("an uplink ended early: {end}")),
                why = &mut broker => break Err(anyhow!("the embedded broker is stuck: {why}")),
                Some(reply) = asked.recv() => Some(reply),
            };
            // What ends while it lasts is noticed after it.
            tokio::select! {
                reloaded = running.reload(file.as_deref(), reply) => if let Err(end) = reloaded {
                    break Err(anyhow!("a stage ended early: {end}"));
                },
                name = signals.stop() => {
                    info!(target: AUDIT, audit = "stop", "{name}: shutting down");
                    break Ok(());
                }
            }
        }
    };

    service::stopping();
    watchdog.abort();
    clock_watch.abort();
    let (sensors, mut uplinks) = running.end();
    let orderly = async {
        sensors.stop_all().await;
        // Every sender is gone now: the core takes what is left and ends.
        finished(&mut core).await;
        // With the sensors gone every command has its result.
        stop_commands.send_replace(true);
        finished(&mut commands).await;
        stop_audit.send_replace(true);
        uplinks.stop_all(clock.boot().after(LAST_ACKS)).await;
    };
    tokio::select! {
        () = orderly => {}
        () = tokio::time::sleep(SHUTDOWN) => warn!("the shutdown takes too long: what waits stays in the outbox"),
        name = signals.stop() => warn!("{name} again: what waits stays in the outbox"),
    }
    // Nobody may use the outbox any more. A flush that runs is finished: its records are half written.
    for mut stage in [core, commands, audit] {
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
    drop(uplinks);
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
    about: &Rc<RefCell<About>>,
    remotes: Rc<Remotes>,
    reloads: Reloads,
    stop: watch::Receiver<bool>,
) -> Option<JoinHandle<()>> {
    let settings = &about.borrow().outbox;
    let socket = control::socket(&settings.tail_dir, &settings.dir);
    match Server::bind(&socket, hub.clone(), about.clone(), remotes, reloads) {
        Ok(server) => Some(tokio::task::spawn_local(server.run(stop))),
        Err(error) => {
            warn!(socket = %socket.display(), "no control socket ({error}): `vigie outbox` will not reach this agent");
            None
        }
    }
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
        pipeline.add(sensor.descriptor(&config.gateway), &sensors::declared(sensor), sensor.pipeline.clone());
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

/// What the board calls itself.
fn board() -> Option<String> {
    let model = std::fs::read_to_string("/proc/device-tree/model").ok()?;
    Some(model.trim_end_matches(['\0', '\n']).to_owned())
}
