"""The framings of serial links, each as a device that sends numbered records: driver, further keys, the quantity that holds
the number, and the bytes of a record. That which is asked stands apart, as a unit that answers with numbered records.

What is sent is put together here from the formats' own descriptions, and not by the code that reads it.
"""

import struct
import threading
import time


def json_line(number):
    return b'{"n":%d,"temp":21.53,"door":true}\n' % number


def text_line(number):
    return "n={} Température: 21.5 °C, hum={}%\r\n".format(number, number % 100).encode()


def frame(number):
    """Readings as in docs/serial-frames.md: quantity 0 is the number, 1 is 21.53."""
    content = struct.pack("<BBIBBIBBf", 0x11, number & 0xff, number, 0, 5, number, 1, 6, 21.53)
    crc = 0xffff
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0x8408 if crc & 1 else crc >> 1
    content += struct.pack("<H", crc ^ 0xffff)
    return b"\0" + b"".join(bytes([len(piece) + 1]) + piece for piece in content.split(b"\0")) + b"\0"


def epoch(number):
    """What a GPS receiver says of one moment; the number is its altitude."""
    moment = "{:02}{:02}{:02}.{:02}".format(
        number // 360_000 % 24, number // 6000 % 60, number // 100 % 60, number % 100)
    sentences = [f"GNRMC,{moment},A,4735.5260,N,00054.7020,E,1.944,87.3,211126,,,A",
                 f"GNGGA,{moment},4735.5260,N,00054.7020,E,1,11,0.88,{number}.0,M,47.4,M,,"]
    return b"".join(f"${body}*{sum_of(body):02X}\r\n".encode() for body in sentences)


def sum_of(body):
    total = 0
    for byte in body.encode():
        total ^= byte
    return total


def with_crc(body):
    crc = 0xffff
    for byte in body:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xa001 if crc & 1 else crc >> 1
    return body + struct.pack("<H", crc)


class ModbusUnit:
    """Answers each request for the first two of its holding registers, which hold the next number; `with` it: until the end.

    `read` gives the bytes that have come, none after a short while without; `write` takes some. `spoil` makes of a number
    what is written in place of its answer, or gives nothing; the number is then not said, but spoilt.

    A host that is held up makes answers late: then they are asked for again, and one of them is not used. So it notes when
    it had heard each number's request, and when it began to answer it.
    """

    DRIVER, QUANTITY = "modbus-rtu", "n"
    # Seconds: the longest that can be set.
    TIMEOUT = 10
    KEYS = f'address = 1\ntimeout = "{TIMEOUT}s"\nvalue = [{{ quantity = "n", holding = 0, type = "u32" }}]'
    REQUEST = with_crc(struct.pack(">BBHH", 1, 3, 0, 2))

    def __init__(self, read, write, first, spoil=lambda number: None):
        self.read, self.write, self.next, self.spoil = read, write, first, spoil
        self.said, self.spoilt, self.ends = [], [], False
        self.heard, self.answered = {}, {first - 1: time.monotonic()}
        self.thread = threading.Thread(target=self.answer, daemon=True)

    @staticmethod
    def record(number):
        return with_crc(struct.pack(">BBBI", 1, 3, 4, number))

    def answer(self):
        asked = b""
        while not self.ends:
            asked += self.read()
            # What was asked while it spoke, it has not heard.
            before, request, behind = asked.rpartition(self.REQUEST)
            if not request:
                continue
            asked, number, self.next = behind, self.next, self.next + 1
            self.heard[number] = time.monotonic()
            instead = self.spoil(number)
            self.answered[number] = time.monotonic()
            self.write(instead or self.record(number))
            (self.spoilt if instead else self.said).append(number)

    def given_up(self):
        """The numbers that may have been given up, as their answers came too late, and those behind them, whose answers may
        have been taken for theirs.

        A number is asked for once the one before it was answered, and given up after the timeout, when it is asked again.
        """
        asked = sorted(self.heard.items())
        late = {number for (number, _), (_, again) in zip(asked, asked[1:]) if again - self.answered[number - 1] >= self.TIMEOUT}
        return late | {number + 1 for number in late}

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ends = True
        self.thread.join()


FRAMINGS = [
    ("serial-json", "", "n", json_line),
    ("serial-lines", "", "n", text_line),
    ("serial-frames", 'fields = ["n", "temp"]', "n", frame),
    ("nmea", "", "altitude", epoch),
]
