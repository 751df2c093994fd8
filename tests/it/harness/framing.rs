//! The framings of serial links, each as a device that sends numbered records, or answers with them.
//!
//! What is sent is put together here from the formats' own descriptions, and not by the code that reads it.

/// A framing, and a device that speaks it.
pub(crate) struct Framing {
    /// Also the name of its driver.
    pub(crate) driver: &'static str,
    /// Further keys of its sensor.
    pub(crate) keys: &'static str,
    /// The quantity that holds a record's number.
    pub(crate) quantity: &'static str,
    /// A damaged record is noticed, so that no wrong number can come out.
    pub(crate) checked: bool,
    /// The bytes of the record with that number.
    pub(crate) record: fn(u32) -> Vec<u8>,
    /// The question to which a record is the answer; `None`: the device talks by itself.
    pub(crate) request: Option<fn() -> Vec<u8>>,
}

impl Framing {
    /// The bytes of the record with that number.
    pub(crate) fn record(&self, number: u32) -> Vec<u8> {
        (self.record)(number)
    }
}

/// The one that is asked. The number is in the first two of the holding registers.
pub(crate) const MODBUS: Framing = Framing {
    driver: "modbus-rtu",
    keys: "address = 1\nevery = \"20ms\"\ntimeout = \"10s\"\n\
           value = [{ quantity = \"n\", holding = 0, type = \"u32\" }]",
    quantity: "n",
    checked: true,
    record: |number| with_crc(&[&[1, 3, 4], &number.to_be_bytes()[..]].concat()),
    request: Some(|| with_crc(&[1, 3, 0, 0, 0, 2])),
};

/// With CRC-16/MODBUS, bit by bit.
fn with_crc(body: &[u8]) -> Vec<u8> {
    let step = |crc: u16, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 };
    let crc = body.iter().fold(0xffff, |crc, byte| (0..8).fold(crc ^ u16::from(*byte), step));
    [body, &crc.to_le_bytes()].concat()
}

/// All that talk by themselves.
pub(crate) const FRAMINGS: [Framing; 4] = [
    Framing {
        driver: "serial-json",
        keys: "",
        quantity: "n",
        checked: false,
        record: |number| format!("{{\"n\":{number},\"temp\":21.53,\"door\":true}}\n").into_bytes(),
        request: None,
    },
    Framing {
        driver: "serial-lines",
        keys: "",
        quantity: "n",
        checked: false,
        record: |number| format!("n={number} Température: 21.5 °C, hum={}%\r\n", number % 100).into_bytes(),
        request: None,
    },
    Framing {
        driver: "serial-frames",
        keys: "fields = [\"n\", \"temp\"]",
        quantity: "n",
        checked: true,
        record: frame,
        request: None,
    },
    Framing { driver: "nmea", keys: "", quantity: "altitude", checked: true, record: epoch, request: None },
];

/// Readings as in `docs/serial-frames.md`: quantity 0 is the number, 1 is 21.53.
fn frame(number: u32) -> Vec<u8> {
    let mut content = vec![0x11, number.to_le_bytes()[0]];
    content.extend(number.to_le_bytes());
    content.extend([0, 5]);
    content.extend(number.to_le_bytes());
    content.extend([1, 6]);
    content.extend(21.53_f32.to_le_bytes());
    content.extend(check(&content).to_le_bytes());
    let mut stuffed = vec![0];
    // Each piece before a zero, and the last one, has its length in front, which counts itself.
    for piece in content.split(|byte| *byte == 0) {
        stuffed.push(u8::try_from(piece.len() + 1).expect("a short frame"));
        stuffed.extend(piece);
    }
    stuffed.push(0);
    stuffed
}

/// CRC-16/IBM-SDLC, bit by bit.
fn check(bytes: &[u8]) -> u16 {
    let step = |crc: u16, _| if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 };
    !bytes.iter().fold(0xffff, |crc, byte| (0..8).fold(crc ^ u16::from(*byte), step))
}

/// What a GPS receiver says of one moment, each a hundredth of a second after the one before: the number is its altitude.
fn epoch(number: u32) -> Vec<u8> {
    let (second, minute, hour) = (number / 100, number / 6000, number / 360_000);
    let time = format!("{:02}{:02}{:02}.{:02}", hour % 24, minute % 60, second % 60, number % 100);
    let sentences = [
        format!("GNRMC,{time},A,4735.5260,N,00054.7020,E,1.944,87.3,211126,,,A"),
        format!("GNGGA,{time},4735.5260,N,00054.7020,E,1,11,0.88,{number}.0,M,47.4,M,,"),
    ];
    let with_sum = |body: &String| format!("${body}*{:02X}\r\n", body.bytes().fold(0, |sum, byte| sum ^ byte));
    sentences.iter().map(with_sum).collect::<String>().into_bytes()
}
