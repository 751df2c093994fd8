//! Commands to devices: from the uplinks to the sensors, and their results into the outbox.
//!
//! A command is carried out at most once and never late: nothing here waits but for the device, and what cannot be
//! handed to it at once is refused. Each command has one result, refusals included, which is a record like a reading of
//! its sensor: it survives what they survive, and every uplink that sends the sensor's readings sends it.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use super::calls::Calls;
use super::when::When;
use crate::clock::BootTime;
use crate::command::Request;
use crate::logging::AUDIT;
use crate::outbox::Body;
use crate::reading::{Descriptor, Kind, Quantity, Value};
use crate::sampler::remote::{MAX_WAITING, Order};
use crate::topic::{self, Template};
use crate::uplink::Hub;
use crate::uplink::dating::Date;

use envelope::Envelope;
use rate::Rate;

mod envelope;
mod rate;

/// Requests that may wait for this stage, which takes them at once; more are counted as refused, and are gone.
pub(super) const QUEUE: usize = 256;

/// The stage.
pub(super) struct Commands {
    hub: Rc<Hub>,
    targets: HashMap<String, Target>,
    /// `outbox.flush = "0s"`
    strict: bool,
    under_way: JoinSet<(Asked, Result<(), String>)>,
}

/// A sensor that takes commands.
pub(super) struct Target {
    orders: mpsc::Sender<Order>,
    /// What its results are records of.
    descriptor: Arc<Descriptor>,
    commands: Rate,
    /// Refusals have a rate of their own: a flood of them would otherwise fill the outbox.
    refusals: Rate,
}

/// A command as its sender is told of it.
#[derive(Debug)]
struct Asked {
    sensor: String,
    /// What its result is a record of; `None`: there is no such sensor.
    result: Option<Arc<Descriptor>>,
    uplink: String,
    reference: Option<serde_json::Value>,
    bytes: usize,
    at: BootTime,
}

/// What is published.
#[derive(Serialize)]
struct Told<'a> {
    id: String,
    #[serde(flatten)]
    when: When,
    sensor: &'a str,
    uplink: &'a str,
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    reference: Option<&'a serde_json::Value>,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

impl Target {
    /// A sensor, described without quantities, and the way to its device.
    pub(super) fn new(template: &Template, mut descriptor: Descriptor, orders: mpsc::Sender<Order>) -> Self {
        let topic = topic::result_topic(template, &descriptor);
        // An event of bytes goes out as it is, and is never retained.
        descriptor.quantities =
            vec![Quantity { topic: Some(topic.into()), ..Quantity::new("result", None, Kind::Event) }];
        Self { orders, descriptor: Arc::new(descriptor), commands: Rate::default(), refusals: Rate::default() }
    }
}

impl Commands {
    /// For these sensors. `strict`: results are on disk before they count as taken.
    pub(super) fn new(hub: Rc<Hub>, strict: bool, targets: Vec<Target>) -> Self {
        let mut commands = Self { targets: HashMap::new(), strict, under_way: JoinSet::new(), hub };
        commands.renew(targets);
        commands
    }

    /// These sensors take commands from now on. How many of them each has had lately still counts.
    pub(super) fn renew(&mut self, targets: Vec<Target>) {
        let mut before = std::mem::take(&mut self.targets);
        let going_on = |target: Target| {
            let name = target.descriptor.sensor.to_string();
            let rates = before.remove(&name).map(|before| (before.commands, before.refusals));
            let (commands, refusals) = rates.unwrap_or_default();
            (name, Target { commands, refusals, ..target })
        };
        self.targets = targets.into_iter().map(going_on).collect();
    }

    /// Works until it is told to stop, which is after the sensors have ended: then all results are there.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut calls: Calls<Self>,
        mut stop: watch::Receiver<bool>,
    ) {
        loop {
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => {
                    // They do nothing that could panic, and nobody aborts them.
                    let Ok((asked, result)) = ended else { continue };
                    self.tell(&asked, result).await;
                }
                Some(request) = requests.recv() => self.take(request).await,
                call = calls.next() => call(&mut self),
                _ = stop.wait_for(|stop| *stop) => break,
            }
        }
        while let Some(ended) = self.under_way.join_next().await {
            let Ok((asked, result)) = ended else { continue };
            self.tell(&asked, result).await;
        }
    }

    /// Hands a command to its sensor, or refuses it.
    async fn take(&mut self, request: Request) {
        let mut asked = Asked {
            sensor: request.sensor.clone(),
            result: self.targets.get(&request.sensor).map(|target| Arc::clone(&target.descriptor)),
            uplink: request.uplink.clone(),
            reference: request.reference.clone().map(Into::into),
            bytes: request.payload.len(),
            at: request.at,
        };
        let payload = request.payload.escape_ascii();
        debug!(sensor = asked.sensor, uplink = asked.uplink, %payload, "command");
        match self.hand_over(request, &mut asked) {
            Ok(done) => {
                self.under_way.spawn_local(async move {
                    let gone = || Err("the sensor has ended; whether it was carried out is not known".to_owned());
                    (asked, done.await.unwrap_or_else(|_| gone()))
                });
            }
            Err(why) => self.refuse(&asked, why).await,
        }
    }

    fn hand_over(
        &mut self,
        request: Request,
        asked: &mut Asked,
    ) -> Result<oneshot::Receiver<Result<(), String>>, String> {
        let now = self.hub.clock.boot();
        let Some(target) = self.targets.get_mut(&request.sensor) else {
            return Err("the sensor takes no commands".to_owned());
        };
        // It is read even if it is refused already: its sender wants to know which one it was.
        let envelope = Envelope::open(&request.payload);
        if let Ok(Envelope { reference: Some(reference), .. }) = &envelope {
            asked.reference = Some(reference.clone());
        }
        if let Some(why) = request.refused {
            return Err(why);
        }
        let envelope = envelope?;
        if let Some(time) = envelope.time.as_ref().or(request.time.as_ref()) {
            envelope::check_age(time, self.hub.now(), request.max_age)?;
        }
        if !target.commands.take(now) {
            return Err(rate::too_many());
        }
        let (done, told) = oneshot::channel();
        let order = Order { payload: envelope.payload, until: request.at.after(request.max_age), done };
        match target.orders.try_send(order) {
            Ok(()) => Ok(told),
            Err(mpsc::error::TrySendError::Full(_)) => {
                Err(format!("{MAX_WAITING} commands wait for the sensor already"))
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Err("the sensor has ended".to_owned()),
        }
    }

    async fn refuse(&mut self, asked: &Asked, why: String) {
        let now = self.hub.clock.boot();
        self.hub.counters(&asked.uplink).commands_refused.add(1);
        let is_told = self.targets.get_mut(&asked.sensor).is_some_and(|target| target.refusals.take(now));
        if is_told {
            self.tell(asked, Err(why)).await;
        } else {
            debug!(sensor = asked.sensor, uplink = asked.uplink, "refused, and nobody is told: {why}");
        }
    }

    /// Logs and publishes a result.
    async fn tell(&self, asked: &Asked, result: Result<(), String>) {
        let Asked { sensor, result: Some(descriptor), uplink, reference, bytes, at } = asked else { return };
        let now = self.hub.clock.boot();
        let took = humantime::format_duration(std::time::Duration::from_millis(
            u64::try_from(now.since(*at).as_millis()).unwrap_or(u64::MAX),
        ));
        match &result {
            Ok(()) => info!(target: AUDIT, audit = "command", sensor, uplink, bytes, %took, "command carried out"),
            Err(why) => {
                warn!(target: AUDIT, audit = "command", sensor, uplink, bytes, %took, "command failed: {why}");
            }
        }
        let time = self.hub.now();
        {
            let outbox = &mut *self.hub.outbox.borrow_mut();
            let told = Told {
                id: format!("{}-{}", outbox.run(), outbox.end()),
                when: time.map_or(Date::Uptime(self.hub.boot, now), Date::Wall).into(),
                sensor,
                uplink,
                reference: reference.as_ref(),
                ok: result.is_ok(),
                error: result.as_ref().err().map(String::as_str),
            };
            let payload = serde_json::to_vec(&told).expect("texts and numbers have a form in JSON");
            let values = vec![(0, Value::Bytes(payload.into()))];
            outbox.append(now, time, Body::Reading { descriptor: Arc::clone(descriptor), values });
        }
        super::core::commit(&self.hub, self.strict).await;
    }
}

#[cfg(test)]
mod tests;
