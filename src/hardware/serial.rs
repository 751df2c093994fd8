//! Serial ports: which one, how to open it, and what can be asked of it while it is open.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::reading::{Fault, FaultCode};

/// The longest serial number of a USB device: a string descriptor holds 126 characters (USB 2.0, 9.6.7).
pub const MAX_USB_SERIAL: usize = 126;

/// Which port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PortName {
    /// A device node, or a link to one, such as `/dev/serial/by-id/…`.
    Path(PathBuf),
    /// The port of a USB device, whichever socket it is in.
    Usb(UsbId),
    /// The only serial port on USB that there is.
    Auto,
}

impl PortName {
    /// Reads it as it is written in a configuration: a path, `usb:VVVV:PPPP`, `usb:VVVV:PPPP:SERIAL` or `auto`.
    ///
    /// # Errors
    /// What is wrong, and what was expected.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let expected = "expected a path such as \"/dev/ttyUSB0\", \"usb:2341:0043\", or \"auto\"";
        if text.is_empty() {
            return Err(("is empty".to_owned(), expected.to_owned()));
        }
        if let Some(rest) = text.strip_prefix("usb:") {
            return UsbId::parse(rest)
                .map(Self::Usb)
                .map_err(|why| (format!("= \"{text}\" {why}"), USB_FORM.to_owned()));
        }
        let other_case = text.to_ascii_lowercase();
        if text == "auto" {
            Ok(Self::Auto)
        } else if text.starts_with('/') || text.starts_with(super::sim::PORT_PREFIX) {
            Ok(Self::Path(PathBuf::from(text)))
        } else if other_case == "auto" || other_case.starts_with("usb:") {
            Err((format!("= \"{text}\" names no port"), format!("did you mean \"{other_case}\"?")))
        } else {
            let meant = format!("did you mean \"/dev/{text}\"? otherwise {expected}");
            Err((format!("= \"{text}\" is not a path from the root"), meant))
        }
    }
}

const USB_FORM: &str = "expected \"usb:VENDOR:PRODUCT\" or \"usb:VENDOR:PRODUCT:SERIAL\", with four hexadecimal digits \
                        each as `lsusb` shows them, such as \"usb:2341:0043\"";

impl From<PathBuf> for PortName {
    fn from(path: PathBuf) -> Self {
        Self::Path(path)
    }
}

impl From<&str> for PortName {
    fn from(path: &str) -> Self {
        Self::Path(PathBuf::from(path))
    }
}

impl fmt::Display for PortName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Usb(id) => id.fmt(f),
            Self::Auto => f.write_str("auto"),
        }
    }
}

/// What a USB device says that it is (USB 2.0, 9.6.1).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UsbId {
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// `iSerialNumber`'s text; `None`: whichever, or none.
    pub serial: Option<String>,
}

impl UsbId {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let mut parts = text.splitn(3, ':');
        let (vendor, product) = (parts.next().unwrap_or_default(), parts.next().ok_or("lacks the product")?);
        let number = |digits: &str| {
            let whole = digits.len() == 4 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            u16::from_str_radix(digits, 16).ok().filter(|_| whole)
        };
        let serial = parts.next().map(str::to_owned);
        match &serial {
            Some(serial) if serial.is_empty() => return Err("ends with `:`"),
            Some(serial) if serial.chars().count() > MAX_USB_SERIAL => return Err("has too long a serial number"),
            _ => {}
        }
        Ok(Self {
            vendor: number(vendor).ok_or("has no vendor of four hexadecimal digits")?,
            product: number(product).ok_or("has no product of four hexadecimal digits")?,
            serial,
        })
    }
}

impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "usb:{:04x}:{:04x}", self.vendor, self.product)?;
        if let Some(serial) = &self.serial {
            write!(f, ":{serial}")?;
        }
        Ok(())
    }
}

/// The form of a character on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Format {
    /// 7 data bits instead of 8.
    pub seven_bits: bool,
    /// The parity bit.
    pub parity: Parity,
    /// 2 stop bits instead of 1.
    pub two_stop_bits: bool,
}

/// A parity bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Parity {
    /// There is none.
    None,
    /// The ones, it included, are even.
    Even,
    /// They are odd.
    Odd,
}

impl Format {
    /// 8 data bits, no parity, 1 stop bit: `8N1`.
    pub const DEFAULT: Self = Self { seven_bits: false, parity: Parity::None, two_stop_bits: false };

    /// All there are, by their usual names.
    pub const ALL: [(&'static str, Self); 12] = {
        const fn of(seven_bits: bool, parity: Parity, two_stop_bits: bool) -> Format {
            Format { seven_bits, parity, two_stop_bits }
        }
        [
            ("8N1", of(false, Parity::None, false)),
            ("8E1", of(false, Parity::Even, false)),
            ("8O1", of(false, Parity::Odd, false)),
            ("8N2", of(false, Parity::None, true)),
            ("8E2", of(false, Parity::Even, true)),
            ("8O2", of(false, Parity::Odd, true)),
            ("7N1", of(true, Parity::None, false)),
            ("7E1", of(true, Parity::Even, false)),
            ("7O1", of(true, Parity::Odd, false)),
            ("7N2", of(true, Parity::None, true)),
            ("7E2", of(true, Parity::Even, true)),
            ("7O2", of(true, Parity::Odd, true)),
        ]
    };
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, format)| format == self).map(|(name, _)| *name);
        f.write_str(name.expect("the table has each combination"))
    }
}

/// What is done about the reset that opening a port gives to many boards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reset {
    /// Nothing: the kernel raises DTR and RTS at opening, and lowers them at closing.
    #[default]
    Kernel,
    /// DTR and RTS stay up at closing (HUPCL is cleared), so that the next opening does not change them.
    Avoid,
    /// DTR goes down and up again after opening, whatever it was before.
    Pulse,
}

/// How to open a serial port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SerialSettings {
    /// Which one.
    pub port: PortName,
    /// Bits per second.
    pub baud: u32,
    /// The form of a character.
    pub format: Format,
    /// Whether the device is to be reset.
    pub reset: Reset,
    /// What comes within this time after opening is dropped: the boot text of a board that was reset.
    pub skip: Duration,
}

impl SerialSettings {
    /// That port at that rate, with 8N1 and nothing done about resets.
    pub fn new(port: impl Into<PortName>, baud: u32) -> Self {
        Self { port: port.into(), baud, format: Format::DEFAULT, reset: Reset::Kernel, skip: Duration::ZERO }
    }

    /// What a failed read means: the end of the stream (`None`) and the errors of a device that is gone are how Linux
    /// says that a cable was pulled (EIO and ENXIO from a hung-up tty, ENODEV from a driver that has left).
    #[must_use]
    pub fn read_fault(&self, error: Option<&std::io::Error>) -> Fault {
        let port = &self.port;
        let Some(error) = error else {
            return Fault::new(FaultCode::Unplugged, format!("{port} was closed from its other end (unplugged?)"));
        };
        match error.raw_os_error() {
            Some(libc::EIO | libc::ENXIO | libc::ENODEV) => {
                Fault::new(FaultCode::Unplugged, format!("{port} is gone (unplugged?): {error}"))
            }
            _ => Fault::new(FaultCode::Io, format!("{port} cannot be read: {error}")),
        }
    }
}

/// An open serial port. Dropping it lets go of it.
pub trait SerialPort: AsyncRead + AsyncWrite + Send + Unpin {
    /// The device node that was opened.
    fn node(&self) -> &Path;

    /// What tells how many bytes were lost; `None` where nobody counts.
    fn overruns(&self) -> Option<Overruns>;
}

/// Tells the kernel's count of the bytes that a port has lost because they came quicker than they were taken, by the
/// UART or by the kernel's own buffer; the count wraps around. `None` once the port is closed.
pub type Overruns = Box<dyn Fn() -> Option<u32> + Send>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        let usb = |vendor, product, serial: Option<&str>| {
            PortName::Usb(UsbId { vendor, product, serial: serial.map(str::to_owned) })
        };
        for (text, port) in [
            ("/dev/serial/by-id/usb-Arduino-if00", PortName::from("/dev/serial/by-id/usb-Arduino-if00")),
            ("sim:arduino", PortName::from("sim:arduino")),
            ("auto", PortName::Auto),
            ("usb:2341:0043", usb(0x2341, 0x43, None)),
            ("usb:1a86:7523:A:b", usb(0x1a86, 0x7523, Some("A:b"))),
        ] {
            assert_eq!(PortName::parse(text).as_ref(), Ok(&port));
            assert_eq!(port.to_string(), text);
        }
        assert_eq!(PortName::parse("usb:1A86:7523"), Ok(usb(0x1a86, 0x7523, None)));
    }

    #[test]
    fn what_names_no_port_is_told_with_what_was_meant() {
        for (text, message, expected) in [
            ("", "is empty", "\"auto\""),
            ("ttyUSB0", "not a path from the root", "did you mean \"/dev/ttyUSB0\"?"),
            ("Auto", "names no port", "did you mean \"auto\"?"),
            ("USB:2341:0043", "names no port", "did you mean \"usb:2341:0043\"?"),
            ("usb:2341", "lacks the product", "usb:2341:0043"),
            ("usb:2341:43", "no product of four", "usb:2341:0043"),
            ("usb:+341:0043", "no vendor of four", "usb:2341:0043"),
            ("usb:2341:0043:", "ends with `:`", "usb:2341:0043"),
            (&format!("usb:2341:0043:{}", "x".repeat(127)), "too long", "usb:2341:0043"),
        ] {
            let (found, hint) = PortName::parse(text).expect_err(text);
            assert!(found.contains(message) && hint.contains(expected), "{text}: {found}; {hint}");
        }
    }

    #[test]
    fn formats_have_their_usual_names() {
        for (name, format) in Format::ALL {
            assert_eq!(format.to_string(), name);
            assert_eq!(format.seven_bits, name.starts_with('7'));
            assert_eq!(format.two_stop_bits, name.ends_with('2'));
        }
        assert_eq!(Format::DEFAULT.to_string(), "8N1");
    }

    proptest! {
        #[test]
        fn any_text_is_a_port_or_told(text in "(usb:|auto|/dev/)?[ -~é:]{0,20}") {
            if let Ok(port) = PortName::parse(&text) {
                prop_assert_eq!(PortName::parse(&port.to_string()), Ok(port));
            }
        }
    }
}
