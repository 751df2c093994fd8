//! What this machine has: names in /sys/class/i2c-dev and /dev, and what each GPIO chip says of its lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::gpio::{HEADER_CHIPS, chip_fault, open_chip};
use crate::hardware::{Inventory, LineInfo, NumberedBus, SpiPlace, header};
use crate::reading::Fault;

/// Everything there is.
pub(in crate::hardware) fn inventory() -> Inventory {
    let mut troubles = Vec::new();
    let lines = lines(&mut troubles);
    let i2c = buses(Path::new("/sys/class/i2c-dev"));
    if i2c.is_empty() {
        troubles.push(
            "no I2C bus: on a Raspberry Pi, `sudo raspi-config nonint do_i2c 0` gives the header's; elsewhere, \
             `sudo modprobe i2c-dev` may be missing"
                .to_owned(),
        );
    }
    let dev = Path::new("/dev");
    Inventory { i2c, spi: spi(dev), lines, ports: ports(dev), troubles }
}

/// Names in a folder, sorted; none where it is not there.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The lines of all GPIO chips.
fn lines(troubles: &mut Vec<String>) -> Vec<LineInfo> {
    let chips = gpiocdev::chip::chips().unwrap_or_default();
    if chips.is_empty() {
        troubles.push("no GPIO chip (/dev/gpiochip*)".to_owned());
    }
    let mut lines = Vec::new();
    for path in chips {
        match lines_of(&path) {
            Ok(found) => lines.extend(found),
            Err(fault) => troubles.push(fault.detail),
        }
    }
    lines
}

fn lines_of(path: &Path) -> Result<Vec<LineInfo>, Fault> {
    let chip = open_chip(path)?;
    let fault = |error| chip_fault(path, &error);
    let on_header = HEADER_CHIPS.contains(&chip.info().map_err(fault)?.label.as_str());
    chip.line_info_iter()
        .map_err(fault)?
        .map(|info| {
            let info = info.map_err(fault)?;
            let holder = if info.consumer.is_empty() { "the kernel" } else { &info.consumer };
            Ok(LineInfo {
                chip: chip.name(),
                offset: info.offset,
                holder: info.used.then(|| holder.to_owned()),
                header: if on_header { header::Line::of_bcm(info.offset) } else { header::Line::of_name(&info.name) },
                name: info.name,
            })
        })
        .collect()
}

/// The buses that have a device node.
fn buses(folder: &Path) -> Vec<NumberedBus> {
    let bus = |node: &String| {
        let number = node.strip_prefix("i2c-")?.parse().ok()?;
        let name = fs::read_to_string(folder.join(node).join("name")).unwrap_or_default();
        Some(NumberedBus { number, name: name.trim().to_owned() })
    };
    let mut buses: Vec<NumberedBus> = names(folder).iter().filter_map(bus).collect();
    buses.sort_by_key(|bus| bus.number);
    buses
}

/// `/dev/spidev<bus>.<chip select>`
fn spi(dev: &Path) -> Vec<SpiPlace> {
    let place = |node: &String| {
        let (bus, chip_select) = node.strip_prefix("spidev")?.split_once('.')?;
        Some(SpiPlace { bus: bus.parse().ok()?, chip_select: chip_select.parse().ok()? })
    };
    let mut places: Vec<SpiPlace> = names(dev).iter().filter_map(place).collect();
    places.sort_unstable();
    places
}

/// Serial ports: by the device's own name and serial number where it has them, else by where it is plugged in; and the
/// header's.
fn ports(dev: &Path) -> Vec<PathBuf> {
    let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
    let mut ports = Vec::new();
    let folders = ["serial/by-id", "serial/by-path"].map(|folder| dev.join(folder));
    let linked = folders.iter().flat_map(|folder| names(folder).into_iter().map(move |name| folder.join(name)));
    for path in linked.chain([dev.join("serial0")]) {
        if let Ok(node) = fs::canonicalize(&path)
            && seen.insert(node)
        {
            ports.push(path);
        }
    }
    ports
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn each_port_is_listed_once_by_its_steadiest_name() {
        let dev = tempfile::tempdir().expect("a folder");
        let path = |name: &str| dev.path().join(name);
        for folder in ["serial/by-id", "serial/by-path"] {
            fs::create_dir_all(path(folder)).expect("a folder");
        }
        for node in ["ttyUSB0", "ttyUSB1", "ttyAMA0", "spidev0.0", "spidev10.1", "spidev"] {
            fs::write(path(node), "").expect("a file");
        }
        symlink("../../ttyUSB0", path("serial/by-id/usb-Arduino_Uno-if00")).expect("a link");
        symlink("../../ttyUSB0", path("serial/by-path/platform-usb-0:1.2")).expect("a link");
        symlink("../../ttyUSB1", path("serial/by-path/platform-usb-0:1.3")).expect("a link");
        symlink("../../ttyUSB9", path("serial/by-path/platform-usb-0:1.4")).expect("a link");
        symlink("ttyAMA0", path("serial0")).expect("a link");
        let expected = ["serial/by-id/usb-Arduino_Uno-if00", "serial/by-path/platform-usb-0:1.3", "serial0"].map(path);
        assert_eq!(ports(dev.path()), expected);
        let places: Vec<(u8, u8)> = spi(dev.path()).iter().map(|place| (place.bus, place.chip_select)).collect();
        assert_eq!(places, [(0, 0), (10, 1)]);
    }

    #[test]
    fn buses_come_by_number_with_their_names() {
        let class = tempfile::tempdir().expect("a folder");
        for (node, name) in [("i2c-10", "bcm2835 (i2c@7e205000)\n"), ("i2c-1", "mux\n"), ("i2c-x", ""), ("i2c-300", "")]
        {
            fs::create_dir(class.path().join(node)).expect("a folder");
            fs::write(class.path().join(node).join("name"), name).expect("a file");
        }
        let found: Vec<(u8, String)> = buses(class.path()).into_iter().map(|bus| (bus.number, bus.name)).collect();
        assert_eq!(found, [(1, "mux".to_owned()), (10, "bcm2835 (i2c@7e205000)".to_owned())]);
        assert_eq!(buses(Path::new("/nonexistent")), []);
    }
}
