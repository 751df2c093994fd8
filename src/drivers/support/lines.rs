//! Cuts a stream of bytes into lines, for the decoders of serial links.

use crate::reading::{Fault, FaultCode};

/// A line that was longer than allowed; its bytes up to the next line's beginning are skipped, and the stream goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl TooLong {
    /// As a fault.
    pub(crate) fn fault(self, max_bytes: usize) -> Fault {
        let detail = format!("a line is longer than {max_bytes} bytes (is the baud rate right?); it was skipped");
        Fault::new(FaultCode::BadData, detail)
    }
}

/// Characters of a bad line that its fault shows.
const EXCERPT: usize = 60;

/// The beginning of a line as it may stand in a message: without control characters.
pub(crate) fn excerpt(text: &str) -> String {
    text.trim().chars().take(EXCERPT).flat_map(char::escape_debug).collect()
}

/// Collects lines from chunks that are cut anywhere. Holds at most `max_bytes`.
#[derive(Debug)]
pub(crate) struct Lines {
    /// What ends a line.
    end: u8,
    max_bytes: usize,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The rest of an over-long line is being skipped.
    skipping: bool,
    /// Bytes since the last end, those that are skipped included.
    unfinished: usize,
}

impl Lines {
    /// Lines that end with a newline.
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self::ending(max_bytes, b'\n')
    }

    /// Lines that end with that byte.
    pub(crate) fn ending(max_bytes: usize, end: u8) -> Self {
        Self { end, max_bytes, begun: Vec::new(), skipping: false, unfinished: 0 }
    }

    /// Bytes that have come since the last end of a line.
    pub(crate) fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// Takes the next bytes and hands over each line that they complete, without its end. An over-long line is
    /// told once, as soon as it is too long.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut line: impl FnMut(Result<&[u8], TooLong>)) {
        while let Some(end) = bytes.iter().position(|byte| *byte == self.end) {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            bytes = rest;
            self.unfinished = 0;
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if self.begun.len() + head.len() > self.max_bytes {
                line(Err(TooLong));
            } else if self.begun.is_empty() {
                line(Ok(head));
            } else {
                self.begun.extend_from_slice(head);
                line(Ok(&self.begun));
            }
            self.begun.clear();
        }
        self.unfinished = self.unfinished.saturating_add(bytes.len());
        if self.skipping || bytes.is_empty() {
            return;
        }
        if self.begun.len() + bytes.len() > self.max_bytes {
            self.begun.clear();
            self.skipping = true;
            line(Err(TooLong));
        } else {
            self.begun.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]], max_bytes: usize) -> Vec<Result<Vec<u8>, TooLong>> {
        let mut lines = Lines::new(max_bytes);
        let mut out = Vec::new();
        for chunk in chunks {
            lines.feed(chunk, |line| out.push(line.map(<[u8]>::to_vec)));
            assert!(lines.begun.len() <= max_bytes);
        }
        out
    }

    #[test]
    fn lines_are_put_together_whichever_way_they_are_cut() {
        let text = b"one\n\ntwo\r\nthree";
        let whole = cut(&[text], 10);
        assert_eq!(whole, [Ok(b"one".to_vec()), Ok(vec![]), Ok(b"two\r".to_vec())]);
        let bytes: Vec<&[u8]> = text.chunks(1).collect();
        assert_eq!(cut(&bytes, 10), whole);
    }

    #[test]
    fn an_over_long_line_is_told_once_and_the_next_one_comes_through() {
        assert_eq!(cut(&[b"1234\n12345\n1\n"], 4), [Ok(b"1234".to_vec()), Err(TooLong), Ok(b"1".to_vec())]);
        assert_eq!(cut(&[b"123", b"45", b"67", b"8\n1", b"\n"], 4), [Err(TooLong), Ok(b"1".to_vec())]);
    }

    #[test]
    fn bytes_without_an_end_are_counted_beyond_the_limit() {
        let mut lines = Lines::new(4);
        for (chunk, unfinished) in [(&b"123"[..], 3), (b"456", 6), (b"7\n1\n", 0), (b"12", 2), (b"", 2), (b"\n123", 3)]
        {
            lines.feed(chunk, |_| {});
            assert_eq!(lines.unfinished(), unfinished);
        }
    }
}
