//! Serial ports: ttyAMA, ttyS, ttyUSB, ttyACM, and ptys.

use std::io;

use tokio_serial::{DataBits, ErrorKind, FlowControl, Parity, SerialPortBuilderExt, StopBits};

use super::node_fault;
use crate::hardware::{SerialPort, SerialSettings};
use crate::reading::{Fault, FaultCode};

const MISSING: &str = "is the cable plugged in? `ls /dev/serial/by-id` lists the USB ports; the header's port is \
                       switched on with `sudo raspi-config nonint do_serial_hw 0`";

/// Opens a port raw, with 8 data bits, no parity, 1 stop bit and no flow control. The lock (TIOCEXCL and flock) keeps
/// others out, or reports them.
pub(in crate::hardware) fn open(settings: &SerialSettings) -> Result<Box<dyn SerialPort>, Fault> {
    let path = &settings.port;
    let port = tokio_serial::new(path.to_string_lossy(), settings.baud)
        .data_bits(DataBits::Eight)
        .parity(Parity::None)
        .stop_bits(StopBits::One)
        .flow_control(FlowControl::None)
        .open_native_async();
    match port {
        Ok(port) => Ok(Box::new(port)),
        Err(error) => Err(match error.kind() {
            ErrorKind::NoDevice => Fault::new(
                FaultCode::Busy,
                format!(
                    "{0} is in use by another program (`sudo fuser -v {0}` shows which); close it there, such as a \
                     serial monitor or a login console on this port",
                    path.display()
                ),
            ),
            ErrorKind::Io(kind @ (io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)) => {
                node_fault(path, &kind.into(), MISSING)
            }
            _ => Fault::new(
                FaultCode::Io,
                format!("{} cannot be used as a serial port at {} baud: {error}", path.display(), settings.baud),
            ),
        }),
    }
}
