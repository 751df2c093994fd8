"""Units on a bus: pymodbus behind one pseudo-terminal, whoever asks behind another, and wires between that can be bad.

Arguments: the path of a link to make to the port of whoever asks; `echo` for an adapter that hears what it sends.
Prints `ready`, then each frame on the wires as an object of JSON in a line of its own.
"""

import asyncio
import errno
import json
import os
import pty
import sys
import tty

from pymodbus.client.mixin import ModbusClientMixin
from pymodbus.constants import ExcCodes
from pymodbus.datastore import ModbusDeviceContext, ModbusServerContext, ModbusSparseDataBlock
from pymodbus.framer.rtu import FramerRTU
from pymodbus.server import ModbusSerialServer

LINK, ECHO = sys.argv[1], "echo" in sys.argv[2:]

METER, FAILING, DAMAGED_ONCE, DAMAGED, STRAY, LATE, SLOW, DEAF, STUBBORN = 1, 2, 3, 4, 5, 6, 8, 9, 10
"""The units; 7 is not there."""

SLOW_SECONDS = 0.3
"""Within what the unit has for its answer."""

LATE_SECONDS = [1.9, 2.5]
"""Of each second request, within the 2 s that the unit has; of the others, after them."""


def with_checksum(body):
    return body + FramerRTU.compute_CRC(body).to_bytes(2, "big")


OTHERS_FRAME = with_checksum(bytes([11, 4, 2, 0, 99]))
"""What a unit 11 would answer that has a register of 99."""


def show(what):
    print(json.dumps(what), flush=True)


class Block(ModbusSparseDataBlock):
    """Entries at addresses as they are on the line; pymodbus counts from 1."""

    def __init__(self, entries=None):
        blocks = {address + 1: values for address, values in (entries or {}).items()}
        super().__init__(blocks or {0: [0]})


def unit(cls=ModbusDeviceContext, **tables):
    blocks = {name: Block(tables.get(name)) for name in ("co", "di", "hr", "ir")}
    return cls(**blocks)


class Failing(ModbusDeviceContext):
    """Refuses for the reason that is the address."""

    def getValues(self, func_code, address, count=1):
        return ExcCodes(address) if address in list(ExcCodes) else super().getValues(func_code, address, count)


class Deaf(ModbusDeviceContext):
    """Acknowledges what is written, and goes on as before; but 99 is too much for it."""

    def setValues(self, func_code, address, values):
        return ExcCodes.ILLEGAL_VALUE if 99 in values else None


def registers(value, kind, word_order="big"):
    kind = ModbusClientMixin.DATATYPE[kind]
    return ModbusClientMixin.convert_to_registers(value, kind, word_order=word_order)


def swapped(words):
    return [word >> 8 | (word & 0xFF) << 8 for word in words]


holding = {}
for base, order in [(100, "big"), (200, "little")]:
    holding[base] = (
        registers(-2, "INT16")
        + registers(65000, "UINT16")
        + registers(-100000, "INT32", order)
        + registers(4000000000, "UINT32", order)
        + registers(230.25, "FLOAT32", order)
        + registers(-1234567890123, "INT64", order)
        + registers(1234567890123, "UINT64", order)
        + registers(-0.1, "FLOAT64", order)
    )
holding[300] = swapped(registers(230.25, "FLOAT32"))
holding[310] = swapped(registers(230.25, "FLOAT32", "little"))
holding[320] = registers("SDM120", "STRING") + [0]
holding[400] = [0b0000_0010_0000_0001]
# What commands write.
holding[500] = [200]
holding[501] = registers(1.5, "FLOAT32", "little")
holding[510] = [7]
holding[520] = registers("off", "STRING") + [0]

meter = unit(
    co={16: [True, False], 40: [False, False]},
    di={5: [False, True, True]},
    hr=holding,
    ir={0: registers(230.2, "FLOAT32"), 12: registers(-1150.5, "FLOAT32"), 30: registers(float("nan"), "FLOAT32")},
)
plain = {0: [42, 43]}
units = {
    METER: meter,
    FAILING: unit(Failing, hr={0: [0] * 20}),
    DAMAGED_ONCE: unit(hr=plain),
    DAMAGED: unit(hr=plain),
    STRAY: unit(hr=plain),
    LATE: unit(hr={0: [42, 43], 10: [1000, 1001]}),
    SLOW: unit(hr=plain),
    DEAF: unit(Deaf, hr=plain),
    STUBBORN: unit(hr=plain),
}


def open_pty():
    master, port = pty.openpty()
    tty.setraw(port)
    os.set_blocking(master, False)
    return master, port


class Frames:
    """Puts frames together that come in pieces."""

    def __init__(self):
        self.bytes = b""

    def feed(self, more):
        self.bytes += more
        if len(self.bytes) < 4 or FramerRTU.compute_CRC(self.bytes) != 0:
            return None
        frame, self.bytes = self.bytes, b""
        return frame


class Wires:
    """Carries what is said, and spoils what some units say."""

    def __init__(self, loop, asker, device):
        self.loop, self.asker, self.device = loop, asker, device
        self.requests, self.answers = Frames(), Frames()
        self.asked = {}
        self.listen()
        loop.add_reader(device, self.from_device)

    def listen(self):
        self.loop.add_reader(self.asker, self.from_asker)

    def from_asker(self):
        try:
            frame = self.requests.feed(os.read(self.asker, 1024))
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            # Nobody has the port open: a pseudo-terminal only tells who looks.
            self.loop.remove_reader(self.asker)
            self.loop.call_later(0.02, self.listen)
            return
        if frame is None:
            return
        number, function = frame[0], frame[1]
        self.asked[number] = self.asked.get(number, 0) + 1
        show({"unit": number, "function": function, "request": frame.hex()})
        if ECHO:
            self.say(frame)
        # What is written to this one is lost on its way.
        if not (number == STUBBORN and function in (5, 6, 15, 16)):
            os.write(self.device, frame)

    def from_device(self):
        answer = self.answers.feed(os.read(self.device, 1024))
        if answer is None:
            return
        number = answer[0]
        odd = self.asked[number] % 2 == 1
        if number == DAMAGED or (number == DAMAGED_ONCE and odd):
            self.say(answer[:3] + bytes([answer[3] ^ 0x10]) + answer[4:])
        elif number == STRAY:
            self.say(b"\x00\xff" + (OTHERS_FRAME if odd else b"") + answer)
        elif number == LATE:
            self.loop.call_later(LATE_SECONDS[odd], self.say, answer)
        elif number == SLOW:
            self.loop.call_later(SLOW_SECONDS, self.say, answer)
        else:
            self.say(answer)

    def say(self, said):
        try:
            os.write(self.asker, said)
        except OSError as error:
            # Nobody listens any more.
            if error.errno != errno.EIO:
                raise


async def main():
    # Both ends stay open here but the one that is for whoever asks.
    asker, port = open_pty()
    os.symlink(os.ttyname(port), LINK)
    os.close(port)
    device, bus = open_pty()
    Wires(asyncio.get_running_loop(), asker, device)
    context = ModbusServerContext(devices=units, single=False)
    server = ModbusSerialServer(context, port=os.ttyname(bus), baudrate=9600, ignore_missing_devices=True)
    os.close(bus)
    await server.serve_forever(background=True)
    show("ready")
    await asyncio.Event().wait()


asyncio.run(main())
