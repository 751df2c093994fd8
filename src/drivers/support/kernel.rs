//! What the drivers share that read the files of the kernel's own drivers: finding a device, and errors that say what
//! the kernel's error numbers mean.

use std::io;
use std::path::{Path, PathBuf};

use crate::hardware::KernelFiles;
use crate::reading::{Fault, FaultCode};

/// Devices that are looked at in one folder of the kernel's, at most.
pub(crate) const MAX_DEVICES: usize = 256;

/// A kind of device that the kernel has a folder for.
pub(crate) struct Class {
    /// How messages call one: "IIO device".
    pub(crate) what: &'static str,
    /// Where its devices are.
    pub(crate) folder: &'static str,
    /// What the names of their folders begin with.
    pub(crate) prefix: &'static str,
    /// Where a parent device has the folder of its device, below its own.
    pub(crate) below_parent: &'static str,
    /// What to do where there is none.
    pub(crate) remedy: &'static str,
}

/// A device that the kernel has a driver for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// Its folder.
    pub(crate) folder: PathBuf,
    /// The name of its folder, which may be another one after the next start: `hwmon0`.
    pub(crate) node: String,
    /// What the kernel's driver calls it; most often the chip's name.
    pub(crate) name: String,
    /// What the device tree calls it.
    pub(crate) label: Option<String>,
}

/// Buses on which a device's parent is looked for.
const PARENT_BUSES: [&str; 4] = ["i2c", "spi", "w1", "platform"];

impl Class {
    /// The devices that there are, in the order of their folders.
    pub(crate) fn devices(&self, files: &dyn KernelFiles) -> Vec<Device> {
        let folder = Path::new(self.folder);
        let Ok(nodes) = files.list(folder) else { return Vec::new() };
        let nodes = nodes.into_iter().filter(|node| node.starts_with(self.prefix)).take(MAX_DEVICES);
        nodes
            .map(|node| {
                let folder = folder.join(&node);
                let text = |file: &str| files.read(&folder.join(file)).ok().map(|text| text.trim().to_owned());
                let (name, label) = (text("name").unwrap_or_default(), text("label"));
                Device { folder, node, name, label }
            })
            .collect()
    }

    /// The only device whose name, label or folder is `wanted`, or that is of the device `BUS/DEVICE`.
    ///
    /// # Errors
    /// There is none, or more than one: those that there are, and what to do.
    pub(crate) fn find(&self, files: &dyn KernelFiles, wanted: &str) -> Result<Device, Fault> {
        let devices = self.devices(files);
        let of_parent = wanted.split_once('/').map(|(bus, device)| self.nodes_of(files, bus, device));
        let mut fitting = devices.iter().filter(|device| match &of_parent {
            Some(nodes) => nodes.contains(&device.node),
            None => device.name == wanted || device.label.as_deref() == Some(wanted) || device.node == wanted,
        });
        let (what, remedy) = (self.what, self.remedy);
        match (fitting.next(), fitting.next()) {
            (Some(device), None) => Ok(device.clone()),
            (None, _) if devices.is_empty() => Err(Fault::new(
                FaultCode::Missing,
                format!("there is no {what} `{wanted}`, nor any other in {}: {remedy}", self.folder),
            )),
            (None, _) => Err(Fault::new(
                FaultCode::Missing,
                format!("there is no {what} `{wanted}`, only {}: {remedy}", list(files, self, &devices)),
            )),
            (Some(first), Some(second)) => {
                let several: Vec<Device> = [first, second].into_iter().chain(fitting).cloned().collect();
                let detail = format!(
                    "several {what}s are called `{wanted}`: name one by where it is: {}",
                    list(files, self, &several)
                );
                Err(Fault::new(FaultCode::Missing, detail))
            }
        }
    }

    /// The folders of the devices of this class that a device on a bus has.
    fn nodes_of(&self, files: &dyn KernelFiles, bus: &str, device: &str) -> Vec<String> {
        let parent = Path::new("/sys/bus").join(bus).join("devices").join(device);
        let nodes = files.list(&parent.join(self.below_parent)).unwrap_or_default();
        nodes.into_iter().filter(|node| node.starts_with(self.prefix)).collect()
    }

    /// Where a device is, as `find` takes it; stays the same when devices are numbered otherwise.
    pub(crate) fn parent(&self, files: &dyn KernelFiles, device: &Device) -> Option<String> {
        PARENT_BUSES.into_iter().find_map(|bus| {
            let parents = files.list(&Path::new("/sys/bus").join(bus).join("devices")).ok()?;
            let parent = parents.into_iter().find(|parent| self.nodes_of(files, bus, parent).contains(&device.node))?;
            Some(format!("{bus}/{parent}"))
        })
    }
}

/// Devices for a message: name and place of each.
fn list(files: &dyn KernelFiles, class: &Class, devices: &[Device]) -> String {
    let texts: Vec<String> = devices
        .iter()
        .map(|device| {
            let place = class.parent(files, device).unwrap_or_else(|| device.node.clone());
            format!("`{}` ({place})", device.name)
        })
        .collect();
    texts.join(", ")
}

/// May this be the name of a device? What is given may hold one slash, and leads nowhere else.
pub(crate) fn is_device_name(text: &str) -> bool {
    let mut parts = text.split('/');
    let plain = |part: &str| !part.is_empty() && part != ".." && part != "." && !part.chars().any(char::is_control);
    parts.by_ref().take(2).all(plain) && parts.next().is_none()
}

/// The text of a device's file, without the line's end.
///
/// # Errors
/// What the kernel's error number means.
pub(crate) fn read(files: &dyn KernelFiles, path: &Path) -> Result<String, Fault> {
    match files.read(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) => Err(fault(path, &error)),
    }
}

/// A number from a device's file.
///
/// # Errors
/// As of [`read`], and what is no number.
pub(crate) fn number(files: &dyn KernelFiles, path: &Path) -> Result<f64, Fault> {
    let text = read(files, path)?;
    parse_number(&text).ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        Fault::new(FaultCode::BadData, format!("{} holds no number: {shown:?}", path.display()))
    })
}

/// A finite decimal number; some of the kernel's files have its unit behind it (`-12.5 dB`).
pub(crate) fn parse_number(text: &str) -> Option<f64> {
    text.split_whitespace().next()?.parse::<f64>().ok().filter(|number| number.is_finite())
}

/// What an error number of the kernel's drivers means.
fn fault(path: &Path, error: &io::Error) -> Fault {
    let (code, meaning) = match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::NotFound => (FaultCode::Missing, "is not there (unplugged?)"),
        _ if error.kind() == io::ErrorKind::InvalidData => (FaultCode::BadData, "holds no text"),
        Some(libc::ENODEV) => (FaultCode::Missing, "has lost its device (unplugged?)"),
        Some(libc::ENXIO | libc::EREMOTEIO) => {
            (FaultCode::Missing, "gives nothing, because the chip does not answer: check its supply and wiring")
        }
        Some(libc::EIO | libc::ETIMEDOUT | libc::EPROTO) => {
            (FaultCode::Bus, "gives nothing, because the transfer from the chip failed")
        }
        Some(libc::EBADMSG | libc::EILSEQ) => (FaultCode::Crc, "gives nothing, because the checksum does not match"),
        Some(libc::EBUSY | libc::EAGAIN) => (FaultCode::Busy, "is in use by another program or by the kernel"),
        Some(libc::EINVAL | libc::ERANGE) => (
            FaultCode::Impossible,
            "has no value: the chip's probe is open or shorted, or the value outside of what it can measure",
        ),
        Some(libc::ENODATA) => (FaultCode::BadData, "has no value yet"),
        Some(libc::EACCES | libc::EPERM) => {
            (FaultCode::Permission, "may not be read by this user: a udev rule can allow it")
        }
        _ => (FaultCode::Io, "cannot be read"),
    };
    Fault::new(code, format!("{} {meaning} ({error})", path.display()))
}

/// Files held in memory, for the drivers' tests.
#[cfg(test)]
pub(crate) mod scripted {
    use std::collections::{BTreeMap, BTreeSet};
    use std::io;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use crate::hardware::KernelFiles;

    /// What a file does when it is read: gives this text, or this error number.
    pub(crate) type Content = Result<String, i32>;

    /// Files with what each read of them gives, in order; the last one stays.
    #[derive(Default)]
    pub(crate) struct Files(Mutex<BTreeMap<PathBuf, Vec<Content>>>);

    impl Files {
        pub(crate) fn new(files: &[(&str, &str)]) -> Self {
            let made = Self::default();
            for (path, text) in files {
                made.set(path, [Ok((*text).to_owned())]);
            }
            made
        }

        pub(crate) fn set(&self, path: &str, contents: impl IntoIterator<Item = Content>) {
            let contents = contents.into_iter().collect();
            self.0.lock().expect("no panic").insert(PathBuf::from(path), contents);
        }

        /// Takes away all files below a folder.
        pub(crate) fn remove(&self, folder: &str) {
            self.0.lock().expect("no panic").retain(|path, _| !path.starts_with(folder));
        }
    }

    impl KernelFiles for Files {
        fn read(&self, path: &Path) -> io::Result<String> {
            let mut files = self.0.lock().expect("no panic");
            let contents = files.get_mut(path).ok_or(io::ErrorKind::NotFound)?;
            let content = if contents.len() > 1 { contents.remove(0) } else { contents[0].clone() };
            content.map_err(io::Error::from_raw_os_error)
        }

        fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
            let files = self.0.lock().expect("no panic");
            let inside = files.keys().filter_map(|path| path.strip_prefix(folder).ok());
            let names: BTreeSet<String> =
                inside.filter_map(|rest| Some(rest.iter().next()?.to_str()?.to_owned())).collect();
            if names.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(names.into_iter().collect()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::scripted::Files;
    use super::*;

    const CLASS: Class = Class {
        what: "hwmon chip",
        folder: "/sys/class/hwmon",
        prefix: "hwmon",
        below_parent: "hwmon",
        remedy: "load its driver",
    };

    fn two_of_a_kind() -> Files {
        Files::new(&[
            ("/sys/class/hwmon/hwmon0/name", "lm75\n"),
            ("/sys/class/hwmon/hwmon1/name", "lm75\n"),
            ("/sys/class/hwmon/hwmon2/name", "cpu_thermal\n"),
            ("/sys/class/hwmon/hwmon1/label", "cellar\n"),
            ("/sys/bus/i2c/devices/1-0048/hwmon/hwmon0/name", "lm75\n"),
            ("/sys/bus/i2c/devices/1-0049/hwmon/hwmon1/name", "lm75\n"),
        ])
    }

    #[test]
    fn a_device_is_found_by_name_label_folder_and_place() {
        let files = two_of_a_kind();
        for (wanted, node) in
            [("cpu_thermal", "hwmon2"), ("cellar", "hwmon1"), ("hwmon0", "hwmon0"), ("i2c/1-0049", "hwmon1")]
        {
            let device = CLASS.find(&files, wanted).expect(wanted);
            assert_eq!(device.node, node);
        }
        let device = CLASS.find(&files, "cellar").expect("a device");
        assert_eq!(CLASS.parent(&files, &device).as_deref(), Some("i2c/1-0049"));
    }

    #[test]
    fn what_is_not_there_and_what_is_there_twice_is_told_with_what_there_is() {
        let files = two_of_a_kind();
        let fault = CLASS.find(&files, "bme280").expect_err("none");
        assert!(fault.code == FaultCode::Missing && fault.detail.contains("`cpu_thermal` (hwmon2)"), "{fault}");
        let fault = CLASS.find(&files, "lm75").expect_err("two");
        assert!(fault.detail.contains("several") && fault.detail.contains("`lm75` (i2c/1-0048)"), "{fault}");
        let fault = CLASS.find(&Files::default(), "lm75").expect_err("none");
        assert!(fault.detail.contains("nor any other") && fault.detail.contains("load its driver"), "{fault}");
    }

    #[test]
    fn names_lead_nowhere_else() {
        for fine in ["lm75", "iio:device0", "dht11@4", "i2c/1-0048"] {
            assert!(is_device_name(fine), "{fine}");
        }
        for wrong in ["", "/", "..", "../x", "a/b/c", "/etc", "a/", "a\n"] {
            assert!(!is_device_name(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn error_numbers_mean_something() {
        let path = Path::new("/sys/x");
        for (number, code) in [
            (libc::ENOENT, FaultCode::Missing),
            (libc::ENODEV, FaultCode::Missing),
            (libc::EIO, FaultCode::Bus),
            (libc::EBADMSG, FaultCode::Crc),
            (libc::EINVAL, FaultCode::Impossible),
            (libc::EACCES, FaultCode::Permission),
            (libc::EBUSY, FaultCode::Busy),
            (libc::EFBIG, FaultCode::Io),
        ] {
            let fault = fault(path, &io::Error::from_raw_os_error(number));
            assert!(fault.code == code && fault.detail.starts_with("/sys/x "), "{fault}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_finite_number_or_none(text in any::<String>()) {
            prop_assert!(parse_number(&text).is_none_or(f64::is_finite));
        }

        #[test]
        fn numbers_are_read_whatever_stands_behind_them(number in -1e12_f64..1e12) {
            prop_assert_eq!(parse_number(&format!("{number} dB\n")), Some(number));
        }
    }
}
