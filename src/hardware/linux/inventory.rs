//! What this machine has: names in /sys/class/i2c-dev and /dev, and what each GPIO chip says of its lines.

use std::fs;
use std::path::Path;

use super::gpio::{HEADER_CHIPS, chip_fault, open_chip};
use super::ports::{self, Roots, names};
use crate::hardware::{Inventory, LineInfo, NumberedBus, PortInfo, SpiPlace, header};
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
    Inventory { i2c, spi: spi(dev), lines, ports: ports(), troubles }
}

/// The serial ports, and who has them.
fn ports() -> Vec<PortInfo> {
    let mut ports = Roots::default().all();
    for port in &mut ports {
        port.holder = ports::holder(&port.node).map(|holder| holder.to_string());
    }
    ports
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chip_selects_come_in_order() {
        let dev = tempfile::tempdir().expect("a folder");
        for node in ["spidev10.1", "spidev0.0", "spidev", "ttyUSB0"] {
            fs::write(dev.path().join(node), "").expect("a file");
        }
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
