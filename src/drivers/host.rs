//! The machine that vigie runs on: load, memory, disks, uptime, network, temperature.
//!
//! Reads /proc (proc(5)) and /sys; does not read per-process or per-core figures.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Connection, Driver, Open, OptionInfo, Parsed, Poller, QuantityInfo, Source};
use crate::hardware::Hardware;
use crate::options::Options;
use crate::reading::{Fault, FaultCode, Kind, Sample, Value};

const fn number(name: &'static str, unit: Option<&'static str>, help: &'static str) -> QuantityInfo {
    QuantityInfo { name, unit, kind: Kind::Number, help }
}

const fn switch(name: &'static str, help: &'static str) -> QuantityInfo {
    QuantityInfo { name, unit: None, kind: Kind::Switch, help }
}

pub(crate) static DRIVER: Driver = Driver {
    name: "host",
    summary: "This machine: load, memory, disks, uptime, network, temperature",
    notes: "\
Works on any Linux machine, without rights or wiring. What the machine does not have (a thermal zone, the Pi's power
monitor, a folder on a disk of its own) is left out.",
    sample: r#"[[sensor]]
name = "gateway"
driver = "host"
every = "1m"
"#,
    connection: Connection::Own,
    options: &[
        OptionInfo {
            name: "state",
            values: "path of a folder",
            default: Some("\"/var/lib/vigie\""),
            help: "The folder whose disk `state_used` and `state_free` describe.",
        },
        OptionInfo {
            name: "interface",
            values: "name of a network interface",
            default: Some("all but the loopback, added up"),
            help: "The interface whose bytes are counted, such as `wlan0`.",
        },
    ],
    quantities: &[
        number("load_1", None, "Processes that run or wait, mean of 1 minute."),
        number("load_5", None, "The same, of 5 minutes."),
        number("load_15", None, "The same, of 15 minutes."),
        number("memory_total", Some("B"), "RAM that the kernel can use."),
        number("memory_available", Some("B"), "What programs could still be given without swapping."),
        number("memory_used", Some("%"), "What is not available, of the total."),
        number("disk_used", Some("%"), "Of the file system of `/`, as df shows it."),
        number("disk_free", Some("B"), "Free for ordinary users on the file system of `/`."),
        number("state_used", Some("%"), "Of the state folder's file system, if it is not that of `/`."),
        number("state_free", Some("B"), "Free on the state folder's file system, if it is not that of `/`."),
        number("uptime", Some("s"), "Since the machine was started."),
        number("network_received", Some("B"), "Since the interface came up."),
        number("network_sent", Some("B"), "Since the interface came up."),
        number("cpu_temperature", Some("°C"), "Of the processor; a Pi slows down from 80 °C on."),
        switch("under_voltage", "Raspberry Pi: the supply is too weak now."),
        switch("throttled", "Raspberry Pi: the processor is slowed down now."),
    ],
    parse,
};

fn parse(options: &Options<'_>) -> Option<Parsed> {
    let state = options.optional::<String>("state").unwrap_or_else(|| "/var/lib/vigie".to_owned());
    let interface = options.optional("interface");
    let host = Host { root: PathBuf::from("/"), state: PathBuf::from(state), interface };
    Some(Parsed { source: Source::Poller(Arc::new(host)), claims: vec![] })
}

#[derive(Clone)]
struct Host {
    /// Where proc and sys are; other than `/` only in tests.
    root: PathBuf,
    state: PathBuf,
    interface: Option<String>,
}

impl Open for Host {
    fn open(&self, _hardware: &dyn Hardware) -> Result<Box<dyn Poller>, Fault> {
        Ok(Box::new(self.clone()))
    }
}

impl Poller for Host {
    fn sample(&mut self) -> Result<Vec<Sample>, Fault> {
        let mut samples = Vec::with_capacity(DRIVER.quantities.len());
        let mut push = |quantity: &'static str, number: f64| {
            samples.extend(Value::number(number).map(|value| Sample::new(quantity, value)));
        };

        let [one, five, fifteen] = self.read("proc/loadavg", load)?;
        push("load_1", one);
        push("load_5", five);
        push("load_15", fifteen);

        let (total, available) = self.read("proc/meminfo", memory)?;
        push("memory_total", total);
        push("memory_available", available);
        push("memory_used", percent(total - available, total));

        let disk = Disk::of(&self.root)?;
        push("disk_used", disk.used);
        push("disk_free", disk.free);
        if let Some(disk) = self.state_disk()? {
            push("state_used", disk.used);
            push("state_free", disk.free);
        }

        push("uptime", self.read("proc/uptime", uptime)?);

        let (received, sent) = self.read("proc/net/dev", |text| network(text, self.interface.as_deref()))?;
        push("network_received", received);
        push("network_sent", sent);

        if let Some(degrees) = self.cpu_temperature() {
            push("cpu_temperature", degrees);
        }
        if let Some(flags) = self.power_flags() {
            samples.push(Sample::new("under_voltage", Value::Switch(flags & UNDER_VOLTAGE_NOW != 0)));
            samples.push(Sample::new("throttled", Value::Switch(flags & THROTTLED_NOW != 0)));
        }
        Ok(samples)
    }
}

impl Host {
    fn read<T>(&self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T, Fault> {
        let path = self.root.join(file);
        let text = fs::read_to_string(&path).map_err(|error| {
            let detail = format!("{} cannot be read: {error} (a unit with `ProcSubset=pid` hides it)", path.display());
            Fault::new(FaultCode::Io, detail)
        })?;
        parse(&text).ok_or_else(|| match &self.interface {
            Some(interface) if file == "proc/net/dev" => {
                Fault::new(FaultCode::Missing, format!("there is no network interface `{interface}`; see `ip link`"))
            }
            _ => Fault::new(FaultCode::BadData, format!("{} is not as expected", path.display())),
        })
    }

    /// The state folder's disk, unless it is that of `/` or the folder is not there.
    fn state_disk(&self) -> Result<Option<Disk>, Fault> {
        let (Ok(root), Ok(state)) = (fs::metadata(&self.root), fs::metadata(&self.state)) else { return Ok(None) };
        if root.dev() == state.dev() { Ok(None) } else { Disk::of(&self.state).map(Some) }
    }

    /// °C of the first thermal zone that is the processor's (Documentation/driver-api/thermal/sysfs-api.rst: `temp` is
    /// in thousandths of a degree).
    fn cpu_temperature(&self) -> Option<f64> {
        let mut zones: Vec<PathBuf> = fs::read_dir(self.root.join("sys/class/thermal"))
            .ok()?
            .flatten()
            .map(|entry| entry.path())
            .filter(|zone| fs::read_to_string(zone.join("type")).is_ok_and(|kind| is_processor(kind.trim())))
            .collect();
        zones.sort();
        let text = fs::read_to_string(zones.first()?.join("temp")).ok()?;
        Some(text.trim().parse::<f64>().ok()? / 1000.0)
    }

    /// What the Pi's firmware says about its supply, in hexadecimal (`vcgencmd get_throttled` in Raspberry Pi's
    /// documentation has the bits).
    fn power_flags(&self) -> Option<u32> {
        let path = self.root.join("sys/devices/platform/soc/soc:firmware/get_throttled");
        let text = fs::read_to_string(path).ok()?;
        u32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    }
}

/// Bits of [`Host::power_flags`].
const UNDER_VOLTAGE_NOW: u32 = 1;
const THROTTLED_NOW: u32 = 1 << 2;

/// `cpu-thermal` on Pis, `bcm2835_thermal` on their older kernels; others on other boards and PCs.
fn is_processor(kind: &str) -> bool {
    ["cpu", "soc", "bcm2835_thermal", "x86_pkg_temp"].iter().any(|known| kind.starts_with(known))
}

/// A file system's fill.
struct Disk {
    /// Percent, as df counts: of what ordinary users can use.
    used: f64,
    /// Bytes free for ordinary users.
    free: f64,
}

impl Disk {
    #[expect(clippy::cast_precision_loss, reason = "beyond 2^53 bytes the nearest double will do")]
    fn of(path: &Path) -> Result<Self, Fault> {
        let stat = rustix::fs::statvfs(path).map_err(|error| {
            Fault::new(FaultCode::Io, format!("the disk of {} gives no figures: {error}", path.display()))
        })?;
        let used = stat.f_blocks.saturating_sub(stat.f_bfree) as f64;
        let available = stat.f_bavail as f64;
        Ok(Self { used: percent(used, used + available), free: available * stat.f_frsize as f64 })
    }
}

/// Rounded to 0.1; 0 of nothing.
fn percent(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1000.0).round() / 10.0 } else { 0.0 }
}

/// /proc/loadavg: three means come first.
fn load(text: &str) -> Option<[f64; 3]> {
    let mut means = text.split_whitespace().map(str::parse);
    let mut next = || means.next()?.ok();
    Some([next()?, next()?, next()?])
}

/// Total and available bytes of /proc/meminfo, which counts in KiB.
fn memory(text: &str) -> Option<(f64, f64)> {
    let bytes = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
    };
    Some((bytes("MemTotal:")?, bytes("MemAvailable:")?))
}

/// Seconds, the first number of /proc/uptime.
fn uptime(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse().ok()
}

/// Bytes received and sent by one interface, or by all but the loopback, from /proc/net/dev: two lines of headings,
/// then `name: received_bytes` and 7 more columns, `sent_bytes` and 7 more.
fn network(text: &str, only: Option<&str>) -> Option<(f64, f64)> {
    let mut found = only.is_none();
    let (mut received, mut sent) = (0.0, 0.0);
    for line in text.lines().skip(2) {
        let (name, columns) = line.split_once(':')?;
        let name = name.trim();
        if only.map_or(name != "lo", |only| only == name) {
            let columns: Vec<f64> = columns.split_whitespace().map_while(|column| column.parse().ok()).collect();
            received += columns.first()?;
            sent += columns.get(8)?;
            found = true;
        }
    }
    found.then_some((received, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILES: [(&str, &str); 7] = [
        ("proc/loadavg", "0.52 0.58 0.59 1/257 12345\n"),
        ("proc/meminfo", "MemTotal:         947732 kB\nMemFree:   100 kB\nMemAvailable:     473866 kB\n"),
        ("proc/uptime", "12345.67 40000.00\n"),
        (
            "proc/net/dev",
            "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop\n    \
             lo: 999 9 0 0 0 0 0 0 999 9 0 0 0 0 0 0\n  \
             eth0:1000 9 0 0 0 0 0 0 200 9 0 0 0 0 0 0\n \
             wlan0: 30 9 0 0 0 0 0 0 4 9 0 0 0 0 0 0\n",
        ),
        ("sys/class/thermal/thermal_zone0/type", "cpu-thermal\n"),
        ("sys/class/thermal/thermal_zone0/temp", "48312\n"),
        ("sys/devices/platform/soc/soc:firmware/get_throttled", "50005\n"),
    ];

    /// A Pi's files below a folder of its own.
    fn pi() -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in FILES {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        let host = Host { root: folder.path().to_owned(), state: folder.path().to_owned(), interface: None };
        (folder, host)
    }

    fn value(samples: &[Sample], quantity: &str) -> Value {
        let found = samples.iter().find(|sample| sample.quantity == quantity);
        found.unwrap_or_else(|| panic!("no {quantity} in {samples:?}")).value.clone()
    }

    #[test]
    fn a_pis_files_are_understood() {
        let (_folder, mut host) = pi();
        let samples = host.sample().expect("samples");
        for (quantity, expected) in [
            ("load_1", 0.52),
            ("load_5", 0.58),
            ("load_15", 0.59),
            ("memory_total", 947_732.0 * 1024.0),
            ("memory_available", 473_866.0 * 1024.0),
            ("memory_used", 50.0),
            ("uptime", 12_345.67),
            ("network_received", 1030.0),
            ("network_sent", 204.0),
            ("cpu_temperature", 48.312),
        ] {
            assert_eq!(Some(value(&samples, quantity)), Value::number(expected), "{quantity}");
        }
        // 0x50005: now under-voltage and throttled, and both have been since the start.
        assert_eq!(value(&samples, "under_voltage"), Value::Switch(true));
        assert_eq!(value(&samples, "throttled"), Value::Switch(true));
        let Value::Number(used) = value(&samples, "disk_used") else { panic!("a number") };
        assert!((0.0..=100.0).contains(&used.get()));
        assert!(!samples.iter().any(|sample| sample.quantity == "state_used"), "the same disk is not told twice");
    }

    #[test]
    fn another_disk_for_the_state_is_told() {
        let (_folder, mut host) = pi();
        // /proc is a file system of its own on every machine.
        host.state = PathBuf::from("/proc");
        let samples = host.sample().expect("samples");
        assert_eq!(Some(value(&samples, "state_free")), Value::number(0.0));
        assert_eq!(Some(value(&samples, "state_used")), Value::number(0.0), "nothing of nothing is no NaN");
    }

    #[test]
    fn every_declared_quantity_is_there_on_a_pi_with_two_disks() {
        let (_folder, mut host) = pi();
        host.state = PathBuf::from("/proc");
        let samples = host.sample().expect("samples");
        let mut emitted: Vec<&str> = samples.iter().map(|sample| &*sample.quantity).collect();
        let mut declared: Vec<&str> = DRIVER.quantities.iter().map(|quantity| quantity.name).collect();
        emitted.sort_unstable();
        declared.sort_unstable();
        assert_eq!(emitted, declared);
    }

    #[test]
    fn one_interface_alone_can_be_counted() {
        let (_folder, mut host) = pi();
        host.interface = Some("wlan0".to_owned());
        let samples = host.sample().expect("samples");
        assert_eq!(Some(value(&samples, "network_sent")), Value::number(4.0));
        host.interface = Some("wlan9".to_owned());
        let fault = host.sample().expect_err("no such interface");
        assert_eq!(fault.code, FaultCode::Missing);
        assert!(fault.detail.contains("wlan9"), "{fault}");
    }

    #[test]
    fn what_the_machine_does_not_have_is_left_out_and_what_every_machine_has_is_missed() {
        let (folder, mut host) = pi();
        fs::remove_dir_all(folder.path().join("sys")).expect("removed");
        let samples = host.sample().expect("samples");
        assert!(!samples.iter().any(|sample| sample.quantity == "cpu_temperature"));

        fs::write(folder.path().join("proc/loadavg"), "x").expect("a file");
        assert_eq!(host.sample().expect_err("a fault").code, FaultCode::BadData);
        fs::remove_file(folder.path().join("proc/loadavg")).expect("removed");
        let fault = host.sample().expect_err("a fault");
        assert!(fault.code == FaultCode::Io && fault.detail.contains("loadavg"), "{fault}");
    }
}
