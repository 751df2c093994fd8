//! Frames of Modbus RTU: requests to read, and what answers them (Modbus Application Protocol V1.1b3; Modbus over serial
//! line V1.02).

use crate::reading::FaultCode;

/// A table of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Table {
    /// Switches that can be read and written.
    Coil,
    /// Switches that can be read.
    Discrete,
    /// Registers that can be read and written.
    Holding,
    /// Registers that can be read.
    Input,
}

impl Table {
    /// The function that reads it (6.1 to 6.4).
    fn function(self) -> u8 {
        match self {
            Self::Coil => 1,
            Self::Discrete => 2,
            Self::Holding => 3,
            Self::Input => 4,
        }
    }

    /// Does an entry have one bit, not 16?
    pub(super) fn has_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// The most entries that one request may read (6.1 to 6.4).
    pub(super) fn most(self) -> u16 {
        if self.has_bits() { 2_000 } else { 125 }
    }

    /// Its entries, for people.
    pub(super) fn entries(self) -> &'static str {
        match self {
            Self::Coil => "coils",
            Self::Discrete => "discrete inputs",
            Self::Holding => "holding registers",
            Self::Input => "input registers",
        }
    }
}

/// A request to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Which unit: 1 to 247.
    pub(super) address: u8,
    pub(super) table: Table,
    /// The first entry, counted from 0.
    pub(super) first: u16,
    /// At least 1, and at most what the table allows.
    pub(super) count: u16,
}

/// Why an answer gives no data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: FaultCode,
    pub(super) what: String,
}

impl Request {
    /// The bytes to send.
    pub(super) fn frame(&self) -> Vec<u8> {
        let [first_high, first_low] = self.first.to_be_bytes();
        let [count_high, count_low] = self.count.to_be_bytes();
        let mut frame = vec![self.address, self.table.function(), first_high, first_low, count_high, count_low];
        frame.extend(crc(&frame).to_le_bytes());
        frame
    }

    /// Bytes of the data that it asks for.
    fn data_bytes(&self) -> usize {
        usize::from(if self.table.has_bits() { self.count.div_ceil(8) } else { 2 * self.count })
    }

    /// Bytes of the answer that begins like that.
    fn answer_bytes(&self, came: &[u8]) -> usize {
        // An exception has the function with its highest bit set, and one byte.
        let data = if came.get(1).is_some_and(|function| function & 0x80 != 0) { 0 } else { self.data_bytes() };
        5 + data
    }

    /// Does that hold all bytes of an answer? Of a damaged one, as many as an answer has.
    pub(super) fn is_whole(&self, came: &[u8]) -> bool {
        came.len() >= self.answer_bytes(came)
    }

    /// The data of an answer. What comes behind it is not looked at.
    ///
    /// # Errors
    /// It is damaged, is none to this request, or an exception.
    pub(super) fn data<'a>(&self, answer: &'a [u8]) -> Result<&'a [u8], Refused> {
        let refused = |code, what| Err(Refused { code, what });
        // What is right as a whole says something else than was asked for, and is told as such.
        let more = answer.get(..self.answer_bytes(answer)).filter(|_| crc(answer) != 0);
        let answer = more.unwrap_or(answer);
        let Some((body, [low, high])) = answer.split_last_chunk::<2>() else {
            return refused(FaultCode::BadData, "its answer is too short".to_owned());
        };
        let expected = crc(body);
        if u16::from_le_bytes([*low, *high]) != expected {
            let what = format!(
                "the checksum of its answer should be {:02x?}: check the wiring, its termination, and the baud rate",
                expected.to_le_bytes()
            );
            return refused(FaultCode::Crc, what);
        }
        match *body {
            [address, ..] if address != self.address => {
                refused(FaultCode::BadData, format!("unit {address} answers in its place"))
            }
            [_, function, exception] if function == self.table.function() | 0x80 => {
                let what = format!("it refuses with exception {exception}, {}", exception_words(exception));
                refused(FaultCode::BadData, what)
            }
            [_, function, length, ref data @ ..]
                if function == self.table.function()
                    && data.len() == usize::from(length)
                    && data.len() == self.data_bytes() =>
            {
                Ok(data)
            }
            _ => refused(FaultCode::BadData, format!("its answer is none to this request: {body:02x?}")),
        }
    }
}

/// What an exception means (Modbus Application Protocol V1.1b3, section 7).
fn exception_words(exception: u8) -> &'static str {
    match exception {
        1 => "illegal function: it has no such table",
        2 => "illegal data address: not all of these are there",
        3 => "illegal data value: it gives fewer at once",
        4 => "server device failure",
        5 => "acknowledge: it takes longer",
        6 => "server device busy: try again later",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "which the specification does not know",
    }
}

/// CRC-16/MODBUS: of "123456789" it is 0x4b37 (Modbus over serial line V1.02, 6.2.2).
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}
