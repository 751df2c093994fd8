//! How the gateway is, in one line for `systemctl status`.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::SensorConfig;
use crate::pipeline::Health;
use crate::reading::FaultCode;

/// Faults that are told with the sensor's name; of further ones there is the number alone.
const MAX_NAMED: usize = 3;

/// What there is, and what of it has a fault.
#[derive(Debug, Default)]
pub(super) struct Summary {
    rooms: usize,
    sensors: usize,
    /// By sensor; bounded by the configuration.
    faults: BTreeMap<Box<str>, FaultCode>,
    /// Why the last reload came to nothing, if it did.
    not_reloaded: Option<String>,
}

impl Summary {
    pub(super) fn new(sensors: &[SensorConfig]) -> Self {
        let rooms: BTreeSet<&str> = sensors.iter().filter_map(|sensor| sensor.room.as_deref()).collect();
        Self { rooms: rooms.len(), sensors: sensors.len(), ..Self::default() }
    }

    /// A reload has ended, and why it has come to nothing, if it has.
    pub(super) fn reloaded(&mut self, refused: Option<String>) {
        self.not_reloaded = refused;
    }

    /// There are these sensors from now on.
    pub(super) fn renew(&mut self, sensors: &[SensorConfig]) {
        let mut faults = std::mem::take(&mut self.faults);
        faults.retain(|name, _| sensors.iter().any(|sensor| *sensor.name == **name));
        *self = Self { faults, ..Self::new(sensors) };
    }

    /// A sensor's health has changed.
    pub(super) fn turned(&mut self, sensor: &str, health: &Health) {
        match health {
            Health::Online => self.faults.remove(sensor),
            Health::Fault(fault) => self.faults.insert(sensor.into(), fault.code),
        };
    }

    /// The line; `backlog` has each uplink's name with the count of values that wait for it.
    pub(super) fn line(&self, run: u32, backlog: &[(&str, u64)]) -> String {
        let mut parts =
            vec![format!("run {run}: {}, {}", counted(self.rooms, "room"), counted(self.sensors, "sensor"))];
        if !self.faults.is_empty() {
            let mut named: Vec<String> = self
                .faults
                .iter()
                .take(MAX_NAMED)
                .map(|(sensor, code)| format!("{sensor}: {}", code.as_str()))
                .collect();
            if self.faults.len() > MAX_NAMED {
                named.push("…".to_owned());
            }
            parts.push(format!("{} ({})", counted(self.faults.len(), "fault"), named.join(", ")));
        }
        parts.extend(backlog.iter().map(|(uplink, waiting)| format!("{uplink}: {waiting} waiting")));
        parts.extend(self.not_reloaded.iter().map(|why| format!("not reloaded: {why}")));
        parts.join("; ")
    }
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::Fault;

    fn fault(code: FaultCode) -> Health {
        Health::Fault(Fault::new(code, "in words"))
    }

    #[test]
    fn rooms_faults_and_backlog_are_in_the_line() {
        let mut summary = Summary { rooms: 1, sensors: 6, ..Summary::default() };
        assert_eq!(summary.line(7, &[("home", 0)]), "run 7: 1 room, 6 sensors; home: 0 waiting");
        summary.turned("meteo", &fault(FaultCode::Crc));
        assert_eq!(
            summary.line(7, &[("away", 1204), ("home", 0)]),
            "run 7: 1 room, 6 sensors; 1 fault (meteo: crc); away: 1204 waiting; home: 0 waiting"
        );
        for sensor in ["d", "c", "b"] {
            summary.turned(sensor, &fault(FaultCode::Panic));
        }
        assert_eq!(summary.line(8, &[]), "run 8: 1 room, 6 sensors; 4 faults (b: panic, c: panic, d: panic, …)");
        for sensor in ["d", "c", "b", "meteo"] {
            summary.turned(sensor, &Health::Online);
        }
        assert_eq!(summary.line(8, &[]), "run 8: 1 room, 6 sensors");
        summary.reloaded(Some("outbox.flush needs a restart".to_owned()));
        assert_eq!(summary.line(8, &[]), "run 8: 1 room, 6 sensors; not reloaded: outbox.flush needs a restart");
        summary.reloaded(None);
        assert_eq!(summary.line(8, &[]), "run 8: 1 room, 6 sensors");
    }
}
