//! Which serial ports there are, by their device nodes, their USB devices and their steady names; and who holds one.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use crate::hardware::serial::{PortName, UsbId};
use crate::reading::{Fault, FaultCode};

/// Folders above a tty's own device in which its USB device is looked for: interface, device, and one for luck of
/// drivers that put a port in between.
const USB_DEPTH: usize = 4;

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

/// A serial port on USB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::hardware) struct UsbPort {
    /// The device node.
    pub(in crate::hardware) node: PathBuf,
    /// Its device; a CH340 has no serial number.
    pub(in crate::hardware) id: UsbId,
    /// What the device calls itself.
    pub(in crate::hardware) product: Option<String>,
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
        let all = self.usb_ports();
        let fits = |port: &&UsbPort| {
            wanted.is_none_or(|id| {
                let same = (port.id.vendor, port.id.product) == (id.vendor, id.product);
                same && (id.serial.is_none() || id.serial == port.id.serial)
            })
        };
        let found: Vec<&UsbPort> = all.iter().filter(fits).collect();
        match (found.as_slice(), wanted) {
            ([port], _) => Ok(port.node.clone()),
            ([], None) => Err(Fault::new(
                FaultCode::Missing,
                "`port = \"auto\"`: there is no serial port on USB: is the cable plugged in, and is it one that \
                 carries data?",
            )),
            ([], Some(id)) => {
                let others = if all.is_empty() {
                    "there is no serial port on USB at all".to_owned()
                } else {
                    format!("there is {}", self.list(&all.iter().collect::<Vec<_>>()))
                };
                let detail = format!("no serial port on USB is {id}: is the cable plugged in? {others}");
                Err(Fault::new(FaultCode::Missing, detail))
            }
            (several, _) => {
                let detail = format!(
                    "{} serial ports on USB are `{name}`: {}; set `port` to one of these paths",
                    several.len(),
                    self.list(several)
                );
                Err(Fault::new(FaultCode::Missing, detail))
            }
        }
    }

    /// Ports as an error lists them, each with the name that stays the same. A name by id of a device without a serial
    /// number is that of any other of its kind, so that where it is plugged in tells more.
    fn list(&self, ports: &[&UsbPort]) -> String {
        let one = |port: &&UsbPort| {
            let product = port.product.as_deref().unwrap_or("a device without a name");
            let [by_id, by_path] = ["by-id", "by-path"].map(|folder| self.link_to(folder, &port.node));
            let path = match (&port.id.serial, by_id, by_path) {
                (Some(_), Some(by_id), _) => by_id.display().to_string(),
                (None, _, Some(by_path)) => format!("{} (it has no serial number)", by_path.display()),
                (_, Some(link), _) | (_, _, Some(link)) => link.display().to_string(),
                (_, None, None) => port.node.display().to_string(),
            };
            format!("{path} ({}, {product})", port.id)
        };
        let mut listed: Vec<String> = ports.iter().take(MAX_LISTED).map(one).collect();
        if ports.len() > MAX_LISTED {
            listed.push(format!("{} more", ports.len() - MAX_LISTED));
        }
        listed.join(", ")
    }

    /// The link to a node below `/dev/serial`.
    fn link_to(&self, folder: &str, node: &Path) -> Option<PathBuf> {
        let folder = self.dev.join("serial").join(folder);
        let leads = |name: &String| fs::canonicalize(folder.join(name)).is_ok_and(|target| target == node);
        names(&folder).into_iter().find(leads).map(|name| folder.join(name))
    }

    /// The serial ports on USB, by their names.
    pub(in crate::hardware) fn usb_ports(&self) -> Vec<UsbPort> {
        let class = self.sys.join("class/tty");
        let port = |name: String| {
            // Virtual consoles are many, and none of them.
            if name.strip_prefix("tty").is_none_or(|rest| !rest.starts_with(|first: char| first.is_alphabetic())) {
                return None;
            }
            let device = usb_device(&fs::canonicalize(class.join(&name).join("device")).ok()?)?;
            let attribute = |file: &str| {
                let text = fs::read_to_string(device.join(file)).ok()?;
                Some(text.trim().to_owned()).filter(|text| !text.is_empty())
            };
            let number = |file: &str| u16::from_str_radix(&attribute(file)?, 16).ok();
            let id = UsbId { vendor: number("idVendor")?, product: number("idProduct")?, serial: attribute("serial") };
            let node = self.dev.join(name);
            Some(UsbPort { node: fs::canonicalize(&node).unwrap_or(node), id, product: attribute("product") })
        };
        names(&class).into_iter().filter_map(port).collect()
    }

    /// Serial ports: by the device's own name and serial number where it has them, else by where it is plugged in; and
    /// the header's.
    pub(in crate::hardware) fn steady_names(&self) -> Vec<PathBuf> {
        let mut seen: BTreeSet<PathBuf> = BTreeSet::new();
        let mut ports = Vec::new();
        let folders = ["serial/by-id", "serial/by-path"].map(|folder| self.dev.join(folder));
        let linked = folders.iter().flat_map(|folder| names(folder).into_iter().map(move |name| folder.join(name)));
        for path in linked.chain([self.dev.join("serial0")]) {
            if let Ok(node) = fs::canonicalize(&path)
                && seen.insert(node)
            {
                ports.push(path);
            }
        }
        ports
    }
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
    let Holder { pid, name } = holder;
    Fault::new(FaultCode::Busy, format!("{} is in use by `{name}` (process {pid}): close it there", node.display()))
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
            let interface = device.join(format!("1-{index}:1.0")).join(node);
            fs::create_dir_all(&interface).expect("a folder");
            let (vendor, product) = usb.split_once(':').expect("vendor and product");
            for (file, text) in [("idVendor", vendor), ("idProduct", product), ("product", "USB Serial")] {
                fs::write(device.join(file), format!("{text}\n")).expect("a file");
            }
            if let Some(serial) = serial {
                fs::write(device.join("serial"), format!("{serial}\n")).expect("a file");
            }
            let class = path("sys/class/tty").join(node);
            fs::create_dir_all(&class).expect("a folder");
            symlink(&interface, class.join("device")).expect("a link");
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

    #[test]
    fn each_port_is_listed_once_by_its_steadiest_name() {
        let (folder, roots) = machine(&[
            ("ttyACM0", "2341:0043", Some("5573")),
            ("ttyUSB0", "1a86:7523", None),
            ("ttyUSB1", "1a86:7523", None),
        ]);
        let dev = folder.path().join("dev");
        symlink("../../ttyUSB9", dev.join("serial/by-path/platform-usb-0:1.4")).expect("a link");
        fs::write(dev.join("ttyAMA0"), "").expect("a file");
        symlink("ttyAMA0", dev.join("serial0")).expect("a link");
        let expected = [
            "serial/by-id/usb-1a86_USB_Serial-if00",
            "serial/by-id/usb-5573-if00",
            "serial/by-path/platform-usb-0:1.1-port0",
            "serial0",
        ];
        assert_eq!(roots.steady_names(), expected.map(|name| dev.join(name)));
    }
}
