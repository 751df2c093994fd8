//! Frames on the wire: cut out of a stream of bytes at zeros, unstuffed, and held against their checksum.
//!
//! COBS (S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", 1999) takes the zeros out of a frame, so that
//! a zero ends it. The checksum is the frame check sequence of HDLC and PPP (RFC 1662, appendix C.2).

use crc::{CRC_16_IBM_SDLC, Crc};

use crate::reading::{Fault, FaultCode};

/// The most bytes of a frame, its header and its checksum included and before zeros are taken out. As many as COBS
/// can carry with one byte more, which keeps a sender's part small.
pub const MAX_FRAME_BYTES: usize = 254;

/// A frame with its zeros taken out has one byte more.
const MAX_STUFFED_BYTES: usize = MAX_FRAME_BYTES + 1;

/// Bytes of the checksum, the low one first.
pub(super) const CRC_BYTES: usize = 2;

/// Between two frames.
const DELIMITER: u8 = 0;

/// CRC-16/IBM-SDLC, also called CRC-16/X-25; of "123456789" it is 0x906e.
const CRC: Crc<u16> = Crc::<u16>::new(&CRC_16_IBM_SDLC);

/// Characters of text between frames that a fault shows.
const EXCERPT: usize = 60;

/// A frame as it is written to the link: checksum behind it, zeros taken out, a delimiter on either side. The one
/// before it ends whatever noise the line has brought. The content has [`MAX_FRAME_BYTES`] less two for the checksum at
/// most; a longer one is no frame to anybody.
#[must_use]
pub fn seal(mut content: Vec<u8>) -> Vec<u8> {
    let checksum = CRC.checksum(&content);
    content.extend_from_slice(&checksum.to_le_bytes());
    let mut bytes = vec![DELIMITER];
    bytes.extend_from_slice(&cobs::encode_vec(&content));
    bytes.push(DELIMITER);
    bytes
}

/// Collects frames from chunks that are cut anywhere. Holds no more than one frame.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come since the last delimiter.
    begun: Vec<u8>,
    /// The rest of an over-long piece is being skipped.
    skipping: bool,
    /// Bytes since the last delimiter, those that are skipped included.
    unfinished: usize,
    /// A delimiter has come since the port was opened, so that the next frame begins at its beginning.
    in_step: bool,
}

impl Frames {
    /// Takes the next bytes and hands over the content of each frame that they complete, without its checksum. What is
    /// no frame is told; of the first piece after the port was opened it is not, since its beginning may be missing.
    pub(super) fn feed(&mut self, mut bytes: &[u8], mut frame: impl FnMut(Result<&[u8], Fault>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == DELIMITER) {
            self.collect(&bytes[..end]);
            bytes = &bytes[end + 1..];
            self.unfinished = 0;
            let in_step = std::mem::replace(&mut self.in_step, true);
            if std::mem::take(&mut self.skipping) {
                if in_step {
                    frame(Err(too_long()));
                }
            } else if !self.begun.is_empty() {
                match open(&mut self.begun) {
                    Err(_) if !in_step => {}
                    content => frame(content),
                }
            }
            self.begun.clear();
        }
        self.unfinished = self.unfinished.saturating_add(bytes.len());
        self.collect(bytes);
    }

    /// Bytes that have come since the last delimiter.
    pub(super) fn unfinished(&self) -> usize {
        self.unfinished
    }

    fn collect(&mut self, bytes: &[u8]) {
        if self.skipping {
            return;
        }
        if self.begun.len() + bytes.len() > MAX_STUFFED_BYTES {
            self.begun.clear();
            self.skipping = true;
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}

fn too_long() -> Fault {
    Fault::new(
        FaultCode::BadData,
        format!(
            "more than {MAX_STUFFED_BYTES} bytes without the zero that ends a frame (is the baud rate right, and does \
             the device send frames?); they were skipped"
        ),
    )
}

/// The content of what stood between two delimiters.
fn open(stuffed: &mut [u8]) -> Result<&[u8], Fault> {
    let text = text_of(stuffed);
    let decoded = match cobs::decode_in_place(stuffed) {
        Ok(length) => length,
        Err(_) => return Err(no_frame(stuffed.len(), text, "it is not stuffed as COBS has it")),
    };
    let frame = &stuffed[..decoded];
    let Some((content, checksum)) = frame.split_last_chunk::<CRC_BYTES>() else {
        return Err(no_frame(stuffed.len(), text, "it is too short for a checksum"));
    };
    let (expected, found) = (CRC.checksum(content), u16::from_le_bytes(*checksum));
    if expected != found {
        return Err(match text {
            Some(_) => no_frame(stuffed.len(), text, "its checksum is wrong"),
            None => Fault::new(
                FaultCode::Crc,
                format!("a frame of {decoded} bytes has the checksum {found:#06x}, not {expected:#06x}"),
            ),
        });
    }
    Ok(content)
}

/// Printed text, for people; `None` for what can be a damaged frame.
fn text_of(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let printed = |character: char| !character.is_control() || character.is_whitespace();
    (text.chars().count() >= 4 && text.chars().all(printed))
        .then(|| text.chars().take(EXCERPT).flat_map(char::escape_default).collect())
}

fn no_frame(length: usize, text: Option<String>, why: &str) -> Fault {
    let detail = match text {
        Some(text) => format!("text between the frames: `{text}`; a sketch that sends frames must print nothing else"),
        None => format!(
            "{length} bytes between two zeros are no frame: {why} (is the baud rate right, and does the device send \
             frames?)"
        ),
    };
    Fault::new(FaultCode::BadData, detail)
}
