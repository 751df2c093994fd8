//! Frames of Modbus RTU: requests, and what answers them (Modbus Application Protocol V1.1b3; Modbus over serial line
//! V1.02).

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
    /// Does an entry have one bit, not 16?
    pub(super) fn has_bits(self) -> bool {
        matches!(self, Self::Coil | Self::Discrete)
    }

    /// Has it entries that can be written?
    pub(super) fn can_be_written(self) -> bool {
        matches!(self, Self::Coil | Self::Holding)
    }

    /// The most entries that one request may read (6.1 to 6.4).
    pub(super) fn most(self) -> u16 {
        if self.has_bits() { 2_000 } else { 125 }
    }

    /// One of its entries, for people.
    fn entry(self) -> &'static str {
        match self {
            Self::Coil => "coil",
            Self::Discrete => "discrete input",
            Self::Holding => "holding register",
            Self::Input => "input register",
        }
    }
}

/// What a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// To read entries (6.1 to 6.4).
    Read,
    /// To write one entry (6.5, 6.6): its two bytes on the line.
    WriteOne([u8; 2]),
    /// To write entries one after the other (6.11, 6.12): their bytes on the line.
    Write(Vec<u8>),
}

/// A request to a unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which unit: 1 to 247. Nobody answers a broadcast (0), so there are none.
    pub(super) address: u8,
    pub(super) table: Table,
    /// The first entry, counted from 0.
    pub(super) first: u16,
    /// At least 1, and at most what the table allows.
    pub(super) count: u16,
    pub(super) action: Action,
}

/// Why there is no answer among the bytes that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) code: FaultCode,
    pub(super) what: String,
}

/// Bytes of a frame around its data: address, function, checksum.
const AROUND: usize = 4;

/// Bytes of an exception's frame: its data is one byte.
const EXCEPTION_BYTES: usize = AROUND + 1;

/// Bytes of what answers a write: its data is an address, and a count or a value.
const WRITTEN_BYTES: usize = AROUND + 4;

/// Bytes that a message shows.
const EXCERPT: usize = 16;

impl Request {
    /// The function's number.
    pub(super) fn function(&self) -> u8 {
        match (&self.action, self.table) {
            (Action::Read, Table::Coil) => 1,
            (Action::Read, Table::Discrete) => 2,
            (Action::Read, Table::Holding) => 3,
            (Action::Read, Table::Input) => 4,
            (Action::WriteOne(_), table) if table.has_bits() => 5,
            (Action::WriteOne(_), _) => 6,
            (Action::Write(_), table) if table.has_bits() => 15,
            (Action::Write(_), _) => 16,
        }
    }

    /// The bytes to send, checksum included.
    #[must_use]
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![self.address, self.function()];
        frame.extend(self.first.to_be_bytes());
        match &self.action {
            Action::Read => frame.extend(self.count.to_be_bytes()),
            Action::WriteOne(value) => frame.extend(value),
            Action::Write(data) => {
                frame.extend(self.count.to_be_bytes());
                frame.push(u8::try_from(data.len()).unwrap_or(u8::MAX));
                frame.extend(data);
            }
        }
        frame.extend(crc(&frame).to_le_bytes());
        frame
    }

    /// Is what answers it, byte for byte, the request itself?
    pub(super) fn is_its_own_answer(&self) -> bool {
        matches!(self.action, Action::WriteOne(_))
    }

    /// Bytes of the data that it asks for.
    fn data_bytes(&self) -> usize {
        usize::from(if self.table.has_bits() { self.count.div_ceil(8) } else { 2 * self.count })
    }

    /// Bytes of its answer, unless that is an exception.
    fn answer_bytes(&self) -> usize {
        match self.action {
            Action::Read => AROUND + 1 + self.data_bytes(),
            Action::WriteOne(_) | Action::Write(_) => WRITTEN_BYTES,
        }
    }

    /// The answer among the bytes that came: its data, or the number of an exception.
    ///
    /// It is found wherever it begins. Adapters hear a stray byte when the line changes its direction, and what was too
    /// late for another request may be before it. Address, function, length and checksum must all be right.
    #[must_use]
    pub fn answer<'a>(&self, came: &'a [u8]) -> Option<Result<&'a [u8], u8>> {
        (0..came.len()).find_map(|start| self.answer_at(&came[start..]))
    }

    fn answer_at<'a>(&self, came: &'a [u8]) -> Option<Result<&'a [u8], u8>> {
        let [address, function, data @ ..] = came else { return None };
        if *address != self.address {
            return None;
        }
        if *function == self.function() | 0x80 {
            let whole = came.get(..EXCEPTION_BYTES)?;
            return (crc(whole) == 0).then_some(Err(whole[2]));
        }
        let whole = came.get(..self.answer_bytes())?;
        let fits = match self.action {
            Action::Read => usize::from(data[0]) == self.data_bytes(),
            // Units that hold something else than they were told say what: that is read back.
            Action::WriteOne(_) => data[..2] == self.first.to_be_bytes(),
            Action::Write(_) => data[..4] == self.frame()[2..6],
        };
        (*function == self.function() && fits && crc(whole) == 0).then(|| Ok(&whole[3..whole.len() - 2]))
    }

    /// Do these bytes hold no answer, though an answer has no more bytes? Whole frames of others do not count.
    pub(super) fn is_spoilt(&self, came: &[u8]) -> bool {
        without_frames(came).0.len() >= self.answer_bytes()
    }

    /// Why the bytes that came are no answer.
    pub(super) fn refused(&self, came: &[u8]) -> Refused {
        let (rest, last) = without_frames(came);
        let (code, what) = match (last, rest.len()) {
            (Some([address, ..]), 0) if *address != self.address => {
                (FaultCode::BadData, format!("unit {address} answers in its place"))
            }
            (Some(frame), 0) => (FaultCode::BadData, format!("its answer is none to this request: {}", excerpt(frame))),
            (_, count) if count < self.answer_bytes() => {
                let all = self.answer_bytes();
                (FaultCode::Crc, format!("only {count} of the {all} bytes of its answer came: {}", excerpt(rest)))
            }
            _ => (
                FaultCode::Crc,
                format!(
                    "its answer is damaged, as its checksum shows: check the wiring, its termination, and the baud \
                     rate ({})",
                    excerpt(rest)
                ),
            ),
        };
        Refused { code, what }
    }

    /// What it asks for, for people.
    pub(super) fn told(&self) -> String {
        let Self { address, table, first, count, .. } = self;
        let function = self.function();
        let last = u32::from(*first) + u32::from(*count) - 1;
        let entry = table.entry();
        match count {
            1 => format!("unit {address}, {entry} {first} (function {function})"),
            _ => format!("unit {address}, {entry}s {first} to {last} (function {function})"),
        }
    }
}

/// What is left behind whole frames, and the last of those.
fn without_frames(came: &[u8]) -> (&[u8], Option<&[u8]>) {
    let (mut rest, mut last) = (came, None);
    while let Some(frame) = whole_frame(rest) {
        (rest, last) = (&rest[frame.len()..], Some(frame));
    }
    (rest, last)
}

/// The answer of any unit, to any request of ours, at the beginning of these bytes.
fn whole_frame(came: &[u8]) -> Option<&[u8]> {
    let length = match *came {
        [_, function, ..] if function & 0x80 != 0 => EXCEPTION_BYTES,
        [_, 1..=4, length, ..] => AROUND + 1 + usize::from(length),
        [_, 5 | 6 | 15 | 16, ..] => WRITTEN_BYTES,
        _ => return None,
    };
    came.get(..length).filter(|frame| crc(frame) == 0)
}

fn excerpt(bytes: &[u8]) -> String {
    let shown = bytes.iter().take(EXCERPT).map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    if bytes.len() > EXCERPT { format!("{shown} …") } else { shown }
}

/// What an exception means (Modbus Application Protocol V1.1b3, section 7).
pub(super) fn exception_words(exception: u8) -> &'static str {
    match exception {
        1 => "illegal function: it has no such table, or not this way to write it",
        2 => "illegal data address: not all of these are there",
        3 => "illegal data value: it takes no such value, or fewer at once",
        4 => "server device failure",
        5 => "acknowledge: it takes longer",
        6 => "server device busy: try again later",
        8 => "memory parity error",
        10 => "gateway path unavailable",
        11 => "gateway target device failed to respond",
        _ => "which the specification does not know",
    }
}

/// CRC-16/MODBUS: of "123456789" it is 0x4b37 (Modbus over serial line V1.02, 6.2.2). Of a frame with its checksum it
/// is 0.
pub(super) fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}
