//! What a transaction is on the wires: adjacent operations of one kind are one transfer, however they were cut
//! (embedded-hal's contract of `transaction`).
//!
//! Linux would take each as a message with a start and an address of its own; to a chip, the second of two writes would
//! then begin with a register's number. And i2c-bcm2835 refuses a second read (EOPNOTSUPP).

use embedded_hal::i2c::Operation;

/// Bytes in one direction.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    Write(Vec<u8>),
    Read(Vec<u8>),
}

impl Part {
    /// As one operation.
    pub(super) fn operation(&mut self) -> Operation<'_> {
        match self {
            Self::Write(bytes) => Operation::Write(bytes),
            Self::Read(buffer) => Operation::Read(buffer),
        }
    }
}

/// The operations put together; directions alternate.
pub(super) fn of(operations: &[Operation<'_>]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for operation in operations {
        match (operation, parts.last_mut()) {
            (Operation::Write(bytes), Some(Part::Write(before))) => before.extend_from_slice(bytes),
            (Operation::Write(bytes), _) => parts.push(Part::Write(bytes.to_vec())),
            (Operation::Read(buffer), Some(Part::Read(before))) => before.resize(before.len() + buffer.len(), 0),
            (Operation::Read(buffer), _) => parts.push(Part::Read(vec![0; buffer.len()])),
        }
    }
    parts
}

/// Hands what was read to the operations that the parts were made of.
pub(super) fn hand_out(parts: &[Part], operations: &mut [Operation<'_>]) {
    let mut read = parts.iter().filter_map(|part| match part {
        Part::Read(bytes) if !bytes.is_empty() => Some(bytes),
        _ => None,
    });
    let mut rest: &[u8] = &[];
    for operation in operations {
        if let Operation::Read(buffer) = operation {
            // A part ends where the direction changes, so never within a buffer.
            if rest.is_empty() && !buffer.is_empty() {
                rest = read.next().map_or(&[], Vec::as_slice);
            }
            let (bytes, others) = rest.split_at(buffer.len());
            buffer.copy_from_slice(bytes);
            rest = others;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_operations_of_one_kind_are_one_transfer() {
        let (mut first, mut second, mut third, mut none, mut nothing) = ([0; 2], [0; 1], [0; 1], [], []);
        let mut operations = [
            Operation::Write(&[0x10]),
            Operation::Write(&[0x20, 0x30]),
            Operation::Read(&mut first),
            Operation::Read(&mut second),
            Operation::Read(&mut none),
            Operation::Write(&[0x40]),
            Operation::Read(&mut third),
            Operation::Write(&[]),
            Operation::Read(&mut nothing),
        ];
        let mut parts = of(&operations);
        let expected = [
            Part::Write(vec![0x10, 0x20, 0x30]),
            Part::Read(vec![0; 3]),
            Part::Write(vec![0x40]),
            Part::Read(vec![0]),
            Part::Write(Vec::new()),
            Part::Read(Vec::new()),
        ];
        assert_eq!(parts, expected);
        parts[1] = Part::Read(vec![1, 2, 3]);
        parts[3] = Part::Read(vec![4]);
        hand_out(&parts, &mut operations);
        assert_eq!((first, second, third), ([1, 2], [3], [4]));
    }

    #[test]
    fn an_empty_write_is_a_transfer_of_its_own_kind() {
        // It asks whether anybody is there.
        assert_eq!(of(&[Operation::Write(&[])]), [Part::Write(Vec::new())]);
    }
}
