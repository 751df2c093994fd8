//! Serial ports, with what the kernel knows of them. None is opened.

use super::{Doubt, Sensor, Thing, quoted};
use crate::hardware::{PortInfo, UsbPort};

/// `idVendor` of u-blox, whose devices are receivers of satellites.
const UBLOX: u16 = 0x1546;

/// What a port's device may speak, the likeliest first.
const SPOKEN: [&str; 5] = ["serial-json", "serial-lines", "serial-frames", "nmea", "modbus-rtu"];

/// A port, with its section for the configuration.
pub(super) fn thing(port: &PortInfo) -> Thing {
    let place = port.path.display().to_string();
    let sensor = (!port.console).then(|| sensor(port, &place));
    Thing { interface: "serial", what: describe(port), place, sensor }
}

fn describe(port: &PortInfo) -> String {
    let mut parts = vec![port.usb.as_ref().map_or_else(|| "serial port".to_owned(), device)];
    parts.extend(port.driver.as_ref().map(|driver| format!("driver {driver}")));
    if port.node != port.path {
        parts.push(format!("now {}", port.node.display()));
    }
    let mut text = parts.join(", ");
    if port.usb.as_ref().is_some_and(|usb| usb.twin) {
        text.push_str("; another one shares its name by id, so keep to this name: it is that of the socket");
    }
    if port.console {
        text.push_str(
            "; a console of the kernel's is on it, to be switched off first \
             (`sudo raspi-config nonint do_serial_cons 1`)",
        );
    }
    if let Some(holder) = &port.holder {
        text.push_str("; in use by ");
        text.push_str(holder);
    }
    text
}

fn device(UsbPort { id, product, .. }: &UsbPort) -> String {
    let product = product.as_deref().unwrap_or("USB device without a name");
    let lacks = if id.serial.is_none() { ", no serial number" } else { "" };
    format!("{product} ({id}{lacks})")
}

fn sensor(port: &PortInfo, place: &str) -> Sensor {
    let receiver = port.usb.as_ref().is_some_and(|usb| {
        let says = |word| usb.product.as_ref().is_some_and(|product| product.to_ascii_uppercase().contains(word));
        usb.id.vendor == UBLOX || says("GPS") || says("GNSS")
    });
    let driver = if receiver { "nmea" } else { SPOKEN[0] };
    let node = port.node.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let baud = if receiver {
        "9600   # as the manual says"
    } else {
        "115200   # as the device has it: the number in Serial.begin()"
    };
    Sensor {
        name: format!("serial-{}", node.rsplit(':').next().unwrap_or_default()),
        driver,
        keys: format!("port = {}\nbaud = {baud}\n", quoted(place)),
        alternatives: SPOKEN.into_iter().filter(|other| *other != driver).collect(),
        doubt: Some(Doubt::Port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::serial::UsbId;

    fn usb(vendor: u16, product: &str, serial: Option<&str>, twin: bool) -> PortInfo {
        let id = UsbId { vendor, product: 0x7523, serial: serial.map(str::to_owned) };
        PortInfo {
            path: "/dev/serial/by-path/pci-usb-0:1.2-port0".into(),
            node: "/dev/ttyUSB1".into(),
            driver: Some("ch341".to_owned()),
            usb: Some(UsbPort { id, product: Some(product.to_owned()), twin }),
            ..PortInfo::default()
        }
    }

    #[test]
    fn a_clone_is_told_with_its_driver_and_why_it_goes_by_its_socket() {
        let thing = thing(&usb(0x1a86, "USB Serial", None, true));
        assert_eq!(
            thing.what,
            "USB Serial (usb:1a86:7523, no serial number), driver ch341, now /dev/ttyUSB1; another one shares its name \
             by id, so keep to this name: it is that of the socket"
        );
        let section = thing.sensor.expect("a section").section();
        for part in [
            "# A port does not say what is behind it.",
            "may also be serial-lines, serial-frames, nmea, modbus-rtu.",
            "#driver = \"serial-json\"\n#port = \"/dev/serial/by-path/pci-usb-0:1.2-port0\"\n#baud = 115200 ",
        ] {
            assert!(section.contains(part), "{section}");
        }
    }

    #[test]
    fn a_receiver_is_likely_to_speak_nmea() {
        for (vendor, product) in [(UBLOX, "whatever"), (0x1a86, "Mini GPS 2")] {
            let sensor = thing(&usb(vendor, product, Some("1"), false)).sensor.expect("a section");
            assert_eq!((sensor.driver, &sensor.keys[..4]), ("nmea", "port"));
            assert!(!sensor.alternatives.contains(&"nmea"));
        }
    }

    #[test]
    fn a_console_is_no_sensor_and_who_has_a_port_is_named() {
        let port = PortInfo {
            path: "/dev/serial0".into(),
            node: "/dev/ttyAMA0".into(),
            driver: Some("uart-pl011".to_owned()),
            console: true,
            holder: Some("`agetty` (process 7)".to_owned()),
            ..PortInfo::default()
        };
        let thing = thing(&port);
        assert!(thing.sensor.is_none());
        assert!(
            thing.what.starts_with("serial port, driver uart-pl011, now /dev/ttyAMA0; a console"),
            "{}",
            thing.what
        );
        assert!(thing.what.ends_with("; in use by `agetty` (process 7)"), "{}", thing.what);
    }
}
