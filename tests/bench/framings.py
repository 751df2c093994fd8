"""The framings of serial links, each as a device that sends numbered records: driver, further keys, the quantity that holds
the number, and the bytes of a record.

What is sent is put together here from the formats' own descriptions, and not by the code that reads it.
"""

import struct


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


FRAMINGS = [
    ("serial-json", "", "n", json_line),
    ("serial-lines", "", "n", text_line),
    ("serial-frames", 'fields = ["n", "temp"]', "n", frame),
    ("nmea", "", "altitude", epoch),
]
