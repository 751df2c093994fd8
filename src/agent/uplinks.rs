//! The uplinks that run: a set that can be compared with what a configuration has.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, Id, JoinSet};
use tracing::warn;

use crate::clock::BootTime;
use crate::config::UplinkConfig;
use crate::uplink::{self, Hub};

/// How long an uplink that is stopped by a reload has for what is in flight.
const LAST_ACKS: Duration = Duration::from_secs(2);

/// One that has not ended so much later is broken off: what it had in flight is sent again.
const PATIENCE: Duration = Duration::from_secs(2);

/// All uplinks that run.
pub(super) struct Uplinks {
    hub: Rc<Hub>,
    running: BTreeMap<String, Running>,
    tasks: JoinSet<()>,
}

struct Running {
    config: UplinkConfig,
    stop: watch::Sender<Option<BootTime>>,
    task: AbortHandle,
}

impl Uplinks {
    /// None yet.
    pub(super) fn new(hub: Rc<Hub>) -> Self {
        Self { hub, running: BTreeMap::new(), tasks: JoinSet::new() }
    }

    /// Starts one; none of that name runs.
    pub(super) fn start(&mut self, config: UplinkConfig) {
        let (stop, stopped) = watch::channel(None);
        // What the one before had still to notice is in the configuration already.
        let _ = self.hub.take_commands_of(&config.name);
        let task = self.tasks.spawn_local(uplink::run(config.clone(), self.hub.clone(), stopped));
        self.running.insert(config.name.clone(), Running { config, stop, task });
    }

    /// Does one run on this, but perhaps for the sensors that it takes commands for?
    pub(super) fn runs_on(&self, config: &UplinkConfig) -> bool {
        let topics = |config: &UplinkConfig| config.commands.as_ref().map(|commands| commands.topics.clone());
        self.config(&config.name).is_some_and(|running| {
            let mut same = config.clone();
            if let (Some(commands), Some(topics)) = (&mut same.commands, topics(running)) {
                commands.topics = topics;
            }
            *running == same
        })
    }

    /// One goes on with a configuration that it [runs on](Self::runs_on).
    pub(super) fn go_on(&mut self, config: &UplinkConfig) {
        let Some(running) = self.running.get_mut(&config.name) else { return };
        if running.config.commands != config.commands {
            self.hub.renew_commands_of(&config.name, config.commands.clone());
            running.config.commands.clone_from(&config.commands);
        }
    }

    /// What one runs on.
    pub(super) fn config(&self, name: &str) -> Option<&UplinkConfig> {
        self.running.get(name).map(|running| &running.config)
    }

    /// What all run on.
    pub(super) fn configs(&self) -> impl Iterator<Item = &UplinkConfig> {
        self.running.values().map(|running| &running.config)
    }

    /// Resolves when one has ended that nobody had told to, with what is to be said of it.
    pub(super) async fn ended(&mut self) -> String {
        match self.tasks.join_next_with_id().await {
            Some(Ok((task, ()))) => format!("{} has ended", self.name(task)),
            Some(Err(end)) => format!("{}: {end}", self.name(end.id())),
            None => std::future::pending().await,
        }
    }

    fn name(&self, task: Id) -> &str {
        self.running.iter().find(|(_, running)| running.task.id() == task).map_or("one", |(name, _)| name)
    }

    /// Stops these in order. An error: another one has ended meanwhile, by itself.
    pub(super) async fn stop(&mut self, names: &[String]) -> Result<(), String> {
        if names.is_empty() {
            return Ok(());
        }
        let mut stopped: HashMap<Id, (String, AbortHandle)> = HashMap::new();
        for name in names {
            if let Some(running) = self.running.remove(name) {
                running.stop.send_replace(Some(self.hub.clock.boot().after(LAST_ACKS)));
                stopped.insert(running.task.id(), (name.clone(), running.task));
            }
        }
        let mut deadline = pin!(tokio::time::sleep(LAST_ACKS + PATIENCE));
        let mut broken_off = false;
        while !stopped.is_empty() {
            let ended = tokio::select! {
                ended = self.tasks.join_next_with_id() => ended,
                () = &mut deadline, if !broken_off => {
                    broken_off = true;
                    for (name, task) in stopped.values() {
                        warn!(uplink = name, "it does not end in time, and is broken off");
                        task.abort();
                    }
                    continue;
                }
            };
            match ended {
                Some(Ok((task, ()))) if stopped.remove(&task).is_some() => {}
                Some(Ok((task, ()))) => return Err(format!("{} has ended", self.name(task))),
                Some(Err(end)) if stopped.remove(&end.id()).is_some() => warn!("an uplink ended early: {end}"),
                Some(Err(end)) => return Err(format!("{}: {end}", self.name(end.id()))),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Tells all to end by then, and waits for it.
    pub(super) async fn stop_all(&mut self, deadline: BootTime) {
        for running in self.running.values() {
            running.stop.send_replace(Some(deadline));
        }
        while self.tasks.join_next().await.is_some() {}
    }

    /// Ends what still runs.
    pub(super) async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}
