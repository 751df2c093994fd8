//! Which serial ports there are, by their device nodes, their USB devices and their steady names; and who holds one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::hardware::inventory::{PortInfo, UsbPort};
use crate::hardware::serial::{PortName, UsbId};
use crate::reading::{Fault, FaultCode};

/// Folders above a tty's own device in which its USB device is looked for: interface, device, and one for luck of
/// drivers that put a port in between.
const USB_DEPTH: usize = 4;

/// The file that tells an interface of a USB device.
const INTERFACE: &str = "bInterfaceNumber";

/// The type of a UART that is not there (`PORT_UNKNOWN`, serial_core.h).
const NO_UART: &str = "0";

/// Folders from a UART's own up to that of its driver: the port, what controls it (Linux 6.5), and the device.
const UART_DEPTH: usize = 3;

/// Candidates that an error lists.
const MAX_LISTED: usize = 8;

/// Processes that are asked for what they have open, when a port is looked for in vain.
const MAX_PROCESSES: usize = 4096;

/// Where device nodes and the kernel's tree of devices are.
#[derive(Clone, Debug)]
pub(in crate::hardware) struct Roots {
    dev: PathBuf,
    sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self { dev: "/dev".into(), sys: "/sys".into() }
    }
}

impl Roots {
    #[cfg(test)]
    pub(in crate::hardware) fn below(folder: &Path) -> Self {
        Self { dev: folder.join("dev"), sys: folder.join("sys") }
    }

    /// The device node of a port, links followed.
    pub(in crate::hardware) fn resolve(&self, name: &PortName) -> Result<PathBuf, Fault> {
        let wanted = match name {
            // One that is not there is told when it is opened, with what can be done.
            PortName::Path(path) => return Ok(fs::canonicalize(path).unwrap_or_else(|_| path.clone())),
            PortName::Usb(id) => Some(id),
            PortName::Auto => None,
        };
        let all = self.all();
        let on_usb: Vec<(&PortInfo, &UsbPort)> =
            all.iter().filter_map(|port| Some((port, port.usb.as_ref()?))).collect();
        let fits = |(_, usb): &(&PortInfo, &UsbPort)| {
            wanted.is_none_or(|id| {
                let same = (usb.id.vendor, usb.id.product) == (id.vendor, id.product);
                same && (id.serial.is_none() || id.serial == usb.id.serial)
            })
        };
        let found: Vec<(&PortInfo, &UsbPort)> = on_usb.iter().copied().filter(fits).collect();
        match (found.as_slice(), wanted) {
            ([(port, _)], _) => Ok(port.node.clone()),
            ([], None) => Err(Fault::new(
                FaultCode::Missing,
                "`port = \"auto\"`: there is no serial port on USB: is the cable plugged in, and is it one that \
                 carries data?",
            )),
            ([], Some(id)) => {
                let others = if on_usb.is_empty() {
                    "there is no serial port on USB at all".to_owned()
                } else {
                    format!("there is {}", list(&on_usb))
                };
                let detail = format!("no serial port on USB is {id}: is the cable plugged in? {others}");
                Err(Fault::new(FaultCode::Missing, detail))
            }
            (several, _) => {
                let detail = format!(
                    "{} serial ports on USB are `{name}`: {}; set `port` to one of these paths",
                    several.len(),
                    list(several)
                );
                Err(Fault::new(FaultCode::Missing, detail))
            }
        }
    }

    /// The serial ports that can be seen: on USB, and the board's own.
    pub(in crate::hardware) fn all(&self) -> Vec<PortInfo> {
        let class = self.sys.join("class/tty");
        let mut found: Vec<(PortInfo, Option<PathBuf>)> =
            names(&class).iter().filter_map(|name| self.port(&class.join(name), name)).collect();
        let devices: Vec<(UsbId, PathBuf)> =
            found.iter().filter_map(|(port, device)| Some((port.usb.as_ref()?.id.clone(), device.clone()?))).collect();
        for (port, device) in &mut found {
            if let (Some(usb), Some(device)) = (&mut port.usb, device) {
                usb.twin = devices.iter().any(|(id, other)| *id == usb.id && other != device);
            }
            port.path = self.steady_name(port);
        }
        let mut ports: Vec<PortInfo> = found.into_iter().map(|(port, _)| port).collect();
        ports.extend(self.links_to_others(&ports));
        ports
    }

    /// A port by its folder in the class of ttys, and the folder of its USB device. Virtual consoles are many, and none.
    fn port(&self, folder: &Path, name: &str) -> Option<(PortInfo, Option<PathBuf>)> {
        if name.strip_prefix("tty").is_none_or(|rest| !rest.starts_with(|first: char| first.is_alphabetic())) {
            return None;
        }
        let device = fs::canonicalize(folder.join("device")).ok()?;
        let (usb, driven) = match usb_device(&device) {
            Some(usb) => {
                let number = |file: &str| u16::from_str_radix(&attribute(&usb, file)?, 16).ok();
                let id = UsbId {
                    vendor: number("idVendor")?,
                    product: number("idProduct")?,
                    serial: attribute(&usb, "serial"),
                };
                let about = UsbPort { id, product: attribute(&usb, "product"), twin: false };
                // The port's own driver is a part of that of its interface, whose name is the one that people know.
                let interface = device.ancestors().take(USB_DEPTH).find(|folder| folder.join(INTERFACE).exists());
                (Some((about, usb)), interface.unwrap_or(&device).to_owned())
            }
            // Of the UARTs that a kernel has room for, most are not there.
            None if attribute(folder, "type").is_none_or(|kind| kind == NO_UART) => return None,
            None => (None, device),
        };
        let driver = driven.ancestors().take(UART_DEPTH).find_map(driver);
        let node = self.dev.join(name);
        let (usb, device) = usb.unzip();
        let port = PortInfo {
            path: PathBuf::new(),
            node: fs::canonicalize(&node).unwrap_or(node),
            driver,
            usb,
            console: attribute(folder, "console").is_some_and(|console| console == "Y"),
            holder: None,
        };
        Some((port, device))
    }

    /// The name that is this port's alone, and stays so. One by id of a device without a serial number is that of any
    /// other of its kind, so that where it is plugged in tells more.
    fn steady_name(&self, port: &PortInfo) -> PathBuf {
        let by = |folder: &str| self.link_to(folder, &port.node);
        let steady = match &port.usb {
            Some(usb) if usb.twin => by("by-path"),
            Some(usb) if usb.id.serial.is_some() => by("by-id").or_else(|| by("by-path")),
            Some(_) => by("by-path").or_else(|| by("by-id")),
            None => Some(self.header()).filter(|path| fs::canonicalize(path).is_ok_and(|node| node == port.node)),
        };
        steady.unwrap_or_else(|| port.node.clone())
    }

    /// The port of a Pi's header.
    fn header(&self) -> PathBuf {
        self.dev.join("serial0")
    }

    /// The link to a node below `/dev/serial`.
    fn link_to(&self, folder: &str, node: &Path) -> Option<PathBuf> {
        let folder = self.dev.join("serial").join(folder);
        let leads = |name: &String| fs::canonicalize(folder.join(name)).is_ok_and(|target| target == node);
        names(&folder).into_iter().find(leads).map(|name| folder.join(name))
    }

    /// Ports of which a container may have the names and not the kernel's tree.
    fn links_to_others(&self, known: &[PortInfo]) -> Vec<PortInfo> {
        let mut seen: BTreeSet<PathBuf> = known.iter().map(|port| port.node.clone()).collect();
        let folders = ["serial/by-id", "serial/by-path"].map(|folder| self.dev.join(folder));
        let linked = folders.iter().flat_map(|folder| names(folder).into_iter().map(move |name| folder.join(name)));
        let new = linked.chain([self.header()]).filter_map(|path| {
            let node = fs::canonicalize(&path).ok().filter(|node| seen.insert(node.clone()))?;
            Some(PortInfo { path, node, ..PortInfo::default() })
        });
        new.collect()
    }
}

/// The driver of a device.
fn driver(device: &Path) -> Option<String> {
    let link = fs::read_link(device.join("driver")).ok()?;
    // Since Linux 6.5 a UART's port is a device of its own, below the one that people know.
    let is_part = link.parent().and_then(Path::parent).is_some_and(|bus| bus.ends_with("bus/serial-base"));
    if is_part { None } else { Some(link.file_name()?.to_str()?.to_owned()) }
}

/// A file of one line in the kernel's tree; `None` where it is empty.
fn attribute(folder: &Path, file: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Ports on USB as an error lists them, each with the name that stays the same.
fn list(ports: &[(&PortInfo, &UsbPort)]) -> String {
    let one = |(port, usb): &(&PortInfo, &UsbPort)| {
        let product = usb.product.as_deref().unwrap_or("a device without a name");
        let why = match &usb.id.serial {
            None => " (it has no serial number)",
            Some(_) if usb.twin => " (another has the same serial number)",
            Some(_) => "",
        };
        format!("{}{why} ({}, {product})", port.path.display(), usb.id)
    };
    let mut listed: Vec<String> = ports.iter().take(MAX_LISTED).map(one).collect();
    if ports.len() > MAX_LISTED {
        listed.push(format!("{} more", ports.len() - MAX_LISTED));
    }
    listed.join(", ")
}

/// The USB device to which a tty's device belongs.
fn usb_device(device: &Path) -> Option<PathBuf> {
    device.ancestors().take(USB_DEPTH).find(|folder| folder.join("idVendor").exists()).map(Path::to_owned)
}

/// Names in a folder, sorted; none where it is not there.
pub(super) fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Is the node there, with rights for us? udev gives them a moment after the node.
pub(super) fn is_ours_to_open(node: &Path) -> bool {
    accessat(CWD, node, Access::READ_OK | Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// A process that has a port open.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pid: u32,
    name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (process {})", self.name, self.pid)
    }
}

/// What tells a device from any other: its number, and for a pty, of which there are as many sets as containers, the
/// file system that it is on.
fn identity(file: &Path, is_pty: bool) -> Option<(u64, u64)> {
    let meta = fs::metadata(file).ok()?;
    Some((meta.rdev(), if is_pty { meta.dev() } else { 0 }))
}

/// Another process that has the node open, of those whose files we may see.
pub(super) fn holder(node: &Path) -> Option<Holder> {
    let proc = Path::new("/proc");
    let own = std::process::id();
    let pids = fs::read_dir(proc).ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_pty = node.starts_with("/dev/pts");
    let wanted = identity(node, is_pty)?;
    let holds = |pid: &u32| {
        let files = fs::read_dir(proc.join(format!("{pid}/fd"))).into_iter().flatten().flatten();
        // Looked at by name first: a file on a server that does not answer would hold the look up.
        let mut named = files.filter(|file| fs::read_link(file.path()).is_ok_and(|target| target == node));
        named.any(|file| identity(&file.path(), is_pty) == Some(wanted))
    };
    let pid = pids.filter(|pid| *pid != own).take(MAX_PROCESSES).find(holds)?;
    let name = fs::read_to_string(proc.join(format!("{pid}/comm"))).unwrap_or_default();
    Some(Holder { pid, name: name.trim().to_owned() })
}

/// Somebody else has the port open.
pub(super) fn busy(node: &Path) -> Fault {
    if let Some(holder) = holder(node) {
        return busy_by(node, &holder);
    }
    let node = node.display();
    let detail = format!(
        "{node} is in use by another program (`sudo fuser -v {node}` shows which); close it there, such as a serial \
         monitor or a login console on this port"
    );
    Fault::new(FaultCode::Busy, detail)
}

/// That one has the port open.
pub(super) fn busy_by(node: &Path, holder: &Holder) -> Fault {
    Fault::new(FaultCode::Busy, format!("{} is in use by {holder}: close it there", node.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A machine's `/dev` and `/sys` with these ports: node, vendor and product, serial number, and whether udev has
    /// made a link by id.
    fn machine(ports: &[(&str, &str, Option<&str>)]) -> (tempfile::TempDir, Roots) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for folder in ["dev/serial/by-id", "dev/serial/by-path", "sys/class/tty/tty1", "sys/class/tty/ttyS0"] {
            fs::create_dir_all(path(folder)).expect("a folder");
        }
        // As a UART on the board: a device, but none of USB.
        fs::create_dir_all(path("sys/devices/soc/serial")).expect("a folder");
        symlink(path("sys/devices/soc/serial"), path("sys/class/tty/ttyS0/device")).expect("a link");
        for (index, (node, usb, serial)) in ports.iter().enumerate() {
            let device = path(&format!("sys/devices/usb1/1-{index}"));
            let interface = device.join(format!("1-{index}:1.0"));
            let tty = interface.join(node);
            fs::create_dir_all(&tty).expect("a folder");
            fs::write(interface.join(INTERFACE), "00\n").expect("a file");
            let driver = if node.starts_with("ttyACM") { "cdc_acm" } else { "ch341" };
            symlink(format!("../../../bus/usb/drivers/{driver}"), interface.join("driver")).expect("a link");
            let (vendor, product) = usb.split_once(':').expect("vendor and product");
            for (file, text) in [("idVendor", vendor), ("idProduct", product), ("product", "USB Serial")] {
                fs::write(device.join(file), format!("{text}\n")).expect("a file");
            }
            if let Some(serial) = serial {
                fs::write(device.join("serial"), format!("{serial}\n")).expect("a file");
            }
            let class = path("sys/class/tty").join(node);
            fs::create_dir_all(&class).expect("a folder");
            symlink(&tty, class.join("device")).expect("a link");
            fs::write(path("dev").join(node), "").expect("a file");
            let target = format!("../../{node}");
            symlink(&target, path(&format!("dev/serial/by-path/platform-usb-0:1.{index}-port0"))).expect("a link");
            // Two of a kind without a serial number have one name, and the last one has it.
            let by_id = path("dev/serial/by-id").join(format!("usb-{}-if00", serial.unwrap_or("1a86_USB_Serial")));
            let _ = fs::remove_file(&by_id);
            symlink(&target, by_id).expect("a link");
        }
        let roots = Roots::below(folder.path());
        (folder, roots)
    }

    fn resolve(roots: &Roots, name: &str) -> Result<String, String> {
        let node = roots.resolve(&PortName::parse(name).expect("a name")).map_err(|fault| {
            assert_eq!(fault.code, FaultCode::Missing);
            fault.detail
        })?;
        Ok(node.file_name().expect("a name").to_string_lossy().into_owned())
    }

    #[test]
    fn a_usb_device_is_found_by_what_it_is_and_by_its_serial_number() {
        let (_folder, roots) = machine(&[
            ("ttyACM0", "2341:0043", Some("5573")),
            ("ttyACM1", "2341:0043", Some("77")),
            ("ttyUSB0", "1a86:7523", None),
        ]);
        assert_eq!(resolve(&roots, "usb:1a86:7523"), Ok("ttyUSB0".to_owned()));
        assert_eq!(resolve(&roots, "usb:2341:0043:77"), Ok("ttyACM1".to_owned()));
        let why = resolve(&roots, "usb:2341:0043").expect_err("two of a kind");
        for part in [
            "2 serial ports on USB are `usb:2341:0043`",
            "by-id/usb-5573-if00 (usb:2341:0043:5573, USB Serial)",
            "by-id/usb-77-if00",
        ] {
            assert!(why.contains(part), "{why}");
        }
        let why = resolve(&roots, "usb:0403:6001").expect_err("no such device");
        assert!(why.contains("no serial port on USB is usb:0403:6001") && why.contains("usb-77-if00"), "{why}");
    }

    #[test]
    fn auto_is_the_only_one_and_clones_without_a_number_are_told_by_their_place() {
        let (_folder, roots) = machine(&[("ttyUSB3", "1a86:7523", None)]);
        assert_eq!(resolve(&roots, "auto"), Ok("ttyUSB3".to_owned()));
        let (_folder, roots) = machine(&[("ttyUSB0", "1a86:7523", None), ("ttyUSB1", "1a86:7523", None)]);
        let why = resolve(&roots, "auto").expect_err("two");
        for index in 0..2 {
            let part = format!("by-path/platform-usb-0:1.{index}-port0 (it has no serial number) (usb:1a86:7523");
            assert!(why.contains(&part), "{why}");
        }
        let (_folder, roots) = machine(&[]);
        assert!(resolve(&roots, "auto").expect_err("none").contains("no serial port on USB"));
        assert!(resolve(&roots, "usb:1a86:7523").expect_err("none").contains("at all"));
    }

    #[test]
    fn many_are_not_all_listed() {
        let nodes: Vec<String> = (0..MAX_LISTED + 3).map(|index| format!("ttyUSB{index}")).collect();
        let ports: Vec<(&str, &str, Option<&str>)> =
            nodes.iter().map(|node| (node.as_str(), "1a86:7523", None)).collect();
        let (_folder, roots) = machine(&ports);
        assert!(resolve(&roots, "auto").expect_err("many").contains(", 3 more; set"));
    }

    /// A UART of the board, as the kernel's tree has it.
    fn add_uart(folder: &Path, node: &str, kind: &str, console: &str) {
        let class = folder.join("sys/class/tty").join(node);
        let uart = folder.join("sys/devices/soc").join(node);
        let device = uart.join(format!("{node}:0")).join(format!("{node}:0.0"));
        fs::create_dir_all(&class).expect("a folder");
        fs::create_dir_all(&device).expect("a folder");
        symlink("../../bus/amba/drivers/uart-pl011", uart.join("driver")).expect("a link");
        symlink("../../../../bus/serial-base/drivers/port", device.join("driver")).expect("a link");
        symlink(&device, class.join("device")).expect("a link");
        fs::write(class.join("type"), kind).expect("a file");
        fs::write(class.join("console"), console).expect("a file");
        fs::write(folder.join("dev").join(node), "").expect("a file");
    }

    #[test]
    fn each_port_is_found_once_by_its_steadiest_name_with_its_driver() {
        let (folder, roots) = machine(&[
            ("ttyACM0", "2341:0043", Some("5573")),
            ("ttyUSB0", "1a86:7523", None),
            ("ttyUSB1", "1a86:7523", None),
            ("ttyUSB2", "10c4:ea60", Some("0001")),
            ("ttyUSB3", "10c4:ea60", Some("0001")),
            ("ttyUSB4", "0403:6001", Some("A10KZP0Q")),
        ]);
        let dev = folder.path().join("dev");
        symlink("../../ttyUSB9", dev.join("serial/by-path/platform-usb-0:1.9")).expect("a link");
        add_uart(folder.path(), "ttyAMA0", "32\n", "N\n");
        add_uart(folder.path(), "ttyS1", "4\n", "Y\n");
        add_uart(folder.path(), "ttyS2", "0\n", "N\n");
        symlink("ttyAMA0", dev.join("serial0")).expect("a link");
        // One that only its name tells of.
        fs::write(dev.join("ttyXR0"), "").expect("a file");
        symlink("../../ttyXR0", dev.join("serial/by-id/usb-Exar-if00")).expect("a link");
        let all = roots.all();
        let told: Vec<(String, Option<&str>, bool)> = all
            .iter()
            .map(|port| {
                let path = port.path.strip_prefix(&dev).expect("below /dev").display().to_string();
                (path, port.driver.as_deref(), port.usb.as_ref().is_some_and(|usb| usb.twin))
            })
            .collect();
        let expected = [
            ("serial/by-id/usb-5573-if00", Some("cdc_acm"), false),
            ("serial0", Some("uart-pl011"), false),
            ("ttyS1", Some("uart-pl011"), false),
            ("serial/by-path/platform-usb-0:1.1-port0", Some("ch341"), true),
            ("serial/by-path/platform-usb-0:1.2-port0", Some("ch341"), true),
            ("serial/by-path/platform-usb-0:1.3-port0", Some("ch341"), true),
            ("serial/by-path/platform-usb-0:1.4-port0", Some("ch341"), true),
            ("serial/by-id/usb-A10KZP0Q-if00", Some("ch341"), false),
            ("serial/by-id/usb-Exar-if00", None, false),
        ];
        assert_eq!(told, expected.map(|(path, driver, twin)| (path.to_owned(), driver, twin)));
        let consoles: Vec<&Path> = all.iter().filter(|port| port.console).map(|port| &*port.node).collect();
        assert_eq!(consoles, [dev.join("ttyS1")]);
        let why = resolve(&roots, "usb:10c4:ea60:0001").expect_err("two of a kind");
        assert!(why.contains("usb-0:1.3-port0 (another has the same serial number)"), "{why}");
    }
}
