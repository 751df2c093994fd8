//! A reload: another configuration takes the place of the one that runs, and only what differs is touched.
//!
//! It is read and checked whole before anything is touched, and taken over whole or not at all (`docs/service.md`). The
//! order is that of a stop and a start: uplinks that change are stopped first, so that none sends under an old `privacy`
//! what it should not; then sensors that change let go of their devices, and all that they observed goes through the
//! pipeline as it was.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::calls::Caller;
use super::commands::Commands;
use super::core::Core;
use super::sensors::{Difference, Facts, Sensors};
use super::summary::Summary;
use super::uplinks::Uplinks;
use super::{audit, identity, restart, watchdog};
use crate::config::{self, BROKER_UPLINK, Config, Report, SensorConfig, UplinkConfig};
use crate::control::reload::{Changed, Changes, Reloaded, needs_restart};
use crate::control::status::About;
use crate::logging::AUDIT;
use crate::reading::SensorIndex;
use crate::service;
use crate::uplink::{self, Hub};

/// The configuration is read within this time, or it is given up: the disk does not answer.
const READ_WITHIN: Duration = Duration::from_secs(15);

/// What runs, and can be changed by a reload.
pub(super) struct Running {
    /// Without its sensors, which are among those that run.
    pub(super) config: Config,
    pub(super) hub: Rc<Hub>,
    pub(super) sensors: Sensors,
    pub(super) uplinks: Uplinks,
    pub(super) core: Caller<Core>,
    pub(super) commands: Caller<Commands>,
    pub(super) about: Rc<RefCell<About>>,
    pub(super) summary: Rc<RefCell<Summary>>,
    /// Does any uplink publish audit events?
    pub(super) audit_wanted: Rc<Cell<bool>>,
}

/// Reads a configuration as at a start.
async fn read(file: &Path) -> Result<Result<Config, Report>, String> {
    let file = file.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        config::load(&file).map(|mut config| {
            identity::look(&mut config);
            config
        })
    });
    match tokio::time::timeout(READ_WITHIN, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(end)) => Err(format!("reading the configuration was broken off: {end}")),
        Err(_) => Err(format!("the configuration could not be read within {} s", READ_WITHIN.as_secs())),
    }
}

/// What is to become of the sensors.
struct Plan {
    /// They are there no more.
    gone: Vec<SensorIndex>,
    /// The others, in the order of the configuration.
    there: Vec<(Facts, Fate)>,
    told: Changed,
}

/// What is to become of one.
#[derive(Clone, Copy)]
pub(super) enum Fate {
    New,
    /// It has that index, and so much of it differs.
    Known(SensorIndex, Difference),
}

impl Plan {
    fn of(new: &Config, running: &Sensors) -> Self {
        let there = |sensor: &SensorConfig| {
            let facts = Facts::of(sensor, &new.gateway);
            let known = running.get(&sensor.name);
            let fate = known.map_or(Fate::New, |(before, index)| Fate::Known(index, before.difference(&facts)));
            (facts, fate)
        };
        let there: Vec<(Facts, Fate)> = new.sensors.iter().map(there).collect();
        let is_there = |name: &str| there.iter().any(|(facts, _)| facts.name == name);
        let gone: Vec<(&str, SensorIndex)> = running.all().filter(|(name, _)| !is_there(name)).collect();
        let mut told =
            Changed { removed: gone.iter().map(|(name, _)| (*name).to_owned()).collect(), ..Changed::default() };
        for (facts, fate) in &there {
            let list = match fate {
                Fate::New => &mut told.added,
                Fate::Known(_, difference) if difference.device => &mut told.anew,
                Fate::Known(_, difference) if difference.is_any() => &mut told.changed,
                Fate::Known(..) => {
                    told.untouched += 1;
                    continue;
                }
            };
            list.push(facts.name.clone());
        }
        Self { gone: gone.into_iter().map(|(_, index)| index).collect(), there, told }
    }
}

/// What is to become of the uplinks.
fn uplinks_told(new: &[UplinkConfig], running: &Uplinks) -> Changed {
    let mut told = Changed::default();
    for uplink in new {
        match running.config(&uplink.name) {
            None => told.added.push(uplink.name.clone()),
            Some(_) if running.runs_on(uplink) => told.untouched += 1,
            Some(_) => told.anew.push(uplink.name.clone()),
        }
    }
    let is_gone = |uplink: &&UplinkConfig| new.iter().all(|other| other.name != uplink.name);
    told.removed = running.configs().filter(is_gone).map(|uplink| uplink.name.clone()).collect();
    told
}

impl Running {
    /// The agent ends: what is to be stopped. The rest lets go of what it shares.
    pub(super) fn end(self) -> (Sensors, Uplinks) {
        (self.sensors, self.uplinks)
    }

    /// Reads the configuration anew, and takes it over if that is possible. Whoever has asked for it is told what came of
    /// it; the log and the service manager are told in any case. An error: a stage has ended meanwhile.
    pub(super) async fn reload(
        &mut self,
        file: Option<&Path>,
        reply: Option<oneshot::Sender<Reloaded>>,
    ) -> Result<(), String> {
        service::reloading();
        let reloaded = match file {
            Some(file) => self.reload_from(file).await?,
            None => Reloaded::Failed("this agent has no configuration file".to_owned()),
        };
        let refused = match &reloaded {
            Reloaded::Done(_) => None,
            Reloaded::Wrong(_) => Some("the new configuration is wrong".to_owned()),
            Reloaded::NeedsRestart(keys) => Some(format!("{} needs a restart", keys.join(", "))),
            Reloaded::Failed(why) => Some(why.clone()),
        };
        if let Some(why) = &refused {
            let configuration = &self.config.hash;
            error!(target: AUDIT, audit = "reload", configuration, "not reloaded: {why}: nothing has changed");
        }
        self.summary.borrow_mut().reloaded(refused);
        service::ready(&watchdog::status_line(&self.hub, &self.summary.borrow(), &self.about.borrow()));
        // Whoever has asked may have gone.
        let _ = reply.map(|reply| reply.send(reloaded));
        Ok(())
    }

    async fn reload_from(&mut self, file: &Path) -> Result<Reloaded, String> {
        let new = match read(file).await {
            Ok(Ok(new)) => new,
            Ok(Err(report)) => {
                for line in report.lines() {
                    error!("{line}");
                }
                return Ok(Reloaded::Wrong(report.to_string()));
            }
            Err(why) => {
                return Ok(Reloaded::Failed(why));
            }
        };
        self.take_over(new).await
    }

    async fn take_over(&mut self, mut new: Config) -> Result<Reloaded, String> {
        if let Some(before) = self.uplinks.config(BROKER_UPLINK) {
            new.reach_broker_as(before);
        }
        let keys = restart::needed(&self.config, &new);
        if !keys.is_empty() {
            error!("{}", needs_restart(&keys));
            return Ok(Reloaded::NeedsRestart(keys));
        }
        let warnings = new.warnings.take();
        for warning in warnings.iter().flat_map(Report::lines) {
            warn!("{warning}");
        }
        let plan = Plan::of(&new, &self.sensors);
        let changes = Changes {
            configuration: (self.config.hash.clone(), new.hash.clone()),
            warnings: warnings.as_ref().map(ToString::to_string),
            sensors: plan.told.clone(),
            uplinks: uplinks_told(&new.uplinks, &self.uplinks),
        };
        self.apply(new, plan, &changes).await?;
        let (before, after) = &changes.configuration;
        info!(target: AUDIT, audit = "reload", before, configuration = after, "reloaded: {changes}");
        Ok(Reloaded::Done(Box::new(changes)))
    }

    async fn apply(&mut self, new: Config, plan: Plan, changes: &Changes) -> Result<(), String> {
        let uplinks_before: Vec<UplinkConfig> = self.uplinks.configs().cloned().collect();
        self.uplinks.stop(&[changes.uplinks.removed.as_slice(), &changes.uplinks.anew].concat()).await?;
        self.sensors.stop(&[changes.sensors.removed.as_slice(), &changes.sensors.anew].concat()).await;
        for uplink in &changes.uplinks.removed {
            self.forget_uplink(uplink);
        }
        self.hub.outbox.borrow_mut().retain_cursors(&super::cursors(&new));
        self.hub.veil(&new.uplinks);
        self.audit_wanted.set(audit::is_wanted(&new.uplinks));
        self.hub.update_info(|info| {
            info.configuration.clone_from(&new.hash);
            info.label.clone_from(&new.gateway.label);
        });
        self.summary.borrow_mut().renew(&new.sensors);

        let (new, Plan { gone, there, .. }) = (Rc::new(new), plan);
        let config = Rc::clone(&new);
        let renewed = self.core.call(move |core| core.renew(&config, &uplinks_before, &gone, there)).await;
        let (places, there) = renewed.ok_or("the pipeline has ended")?;
        // The stage has done its work, and let go of it.
        let mut new = Rc::into_inner(new).ok_or("the pipeline still holds the configuration")?;

        for uplink in &new.uplinks {
            match self.uplinks.config(&uplink.name) {
                Some(_) => self.uplinks.go_on(uplink),
                None => self.uplinks.start(uplink.clone()),
            }
        }
        let about = {
            let before = self.about.borrow();
            About { broker: before.broker.clone(), ..About::new(&new, before.outbox.clone()) }
        };
        *self.about.borrow_mut() = about;
        for ((index, sensor), facts) in places.into_iter().zip(std::mem::take(&mut new.sensors)).zip(there) {
            match self.sensors.get(&sensor.name) {
                Some(_) => self.sensors.go_on(facts),
                None => self.sensors.start(index, sensor, facts),
            }
        }
        self.sensors.release_supplies();
        let targets = self.sensors.targets(&new.gateway.topic);
        self.commands.call(|commands| commands.renew(targets)).await.ok_or("the commands' stage has ended")?;
        self.config = new;
        Ok(())
    }

    /// An uplink is there no more: nobody takes up its session, should one of that name come later.
    fn forget_uplink(&self, name: &str) {
        self.hub.forget_uplink(name);
        let outbox = &mut *self.hub.outbox.borrow_mut();
        for key in uplink::state_keys(name) {
            if outbox.state(&key).is_some() {
                outbox.put_state(&key, None);
            }
        }
    }
}
