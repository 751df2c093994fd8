"""An emulated Raspberry Pi 3B: QEMU's `raspi3b`, with a TMP105 on its I2C bus and a network card on its USB.

It is a machine like that of `guest.py`, and is talked to in the same way. What it has of the board: the controllers of
GPIO, I2C and serial ports, at register level, and the device tree. A line that is driven keeps its level; resistors and
interrupts of lines are not emulated. It runs busybox, or what is on its SD card.
"""

import contextlib
import json
import lzma
import pathlib
import stat
import subprocess
import time

from guest import HERE, START, Guest, archive, in_load_order, listening, parts

# `dwc2` and those behind it are the network card; without the watchdog's driver the board cannot be switched off.
MODULES = ["i2c_bcm2835", "i2c_dev", "bcm2835_wdt", "dwc2", "usbnet", "cdc_ether"]
# What it takes to read an SD card: the controller, whose driver sees the card, and the file system.
CARD_MODULES = ["bcm2835", "mmc_block", "ext4", "crc32c_generic"]
# What an arm64 program of ours loads; the libraries of later glibc are empty but named.
LIBRARIES = ["ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2"]
# The chip's place on the bus.
BUS, CHIP = 1, 0x48


def initramfs(folder, programs, modules=()):
    """Everything that the board has: busybox, modules, glibc, and these programs, by their names in /bin."""
    libraries = parts() / "lib/aarch64-linux-gnu"
    files = {"bin/busybox": parts() / "busybox", "init": HERE / "board/init"}
    files |= {f"bin/{name}": pathlib.Path(program) for name, program in programs.items()}
    files |= {f"lib/{name}": libraries / name for name in LIBRARIES}
    contents = {path: file.read_bytes() for path, file in files.items()}
    order = []
    for module in in_load_order([*MODULES, *modules]):
        name = module.name.removesuffix(".xz")
        contents[f"modules/{name}"] = lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()
        order.append(name)
    contents["modules/order"] = "".join(f"{name}\n" for name in order).encode()
    folders = sorted({str(above) for path in contents for above in pathlib.Path(path).parents} - {"."})
    entries = [(above, stat.S_IFDIR | 0o755, b"") for above in folders]
    entries += [(path, stat.S_IFREG | 0o755, data) for path, data in contents.items()]
    out = pathlib.Path(folder, "initramfs")
    out.write_bytes(archive(entries))
    return out


class Board(Guest):
    """A board that runs; a `with` block ends it in any case.

    With a card, which is the image of a root without a partition table, its first program is /sbin/init of that, and it has a
    shell once a service there (`board/shell.service`) is started.
    """

    drive = None

    def __init__(self, folder, initrd, card=None):
        shell, control = (pathlib.Path(folder, name) for name in ("shell", "control"))
        self.log_file = pathlib.Path(folder, "console")
        self.log_file.write_bytes(b"")
        listeners = [listening(path) for path in (shell, control)]
        command = [
            "setpriv", "--pdeathsig", "KILL", parts() / "run", parts() / "host/usr/bin/qemu-system-aarch64",
            "-accel", "tcg,thread=multi", "-M", "raspi3b", "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
            "-kernel", parts() / "vmlinuz", "-dtb", parts() / "board.dtb", "-initrd", initrd,
            # rppal drives lines through /dev/mem here: only Raspberry Pi OS has a /dev/gpiomem.
            "-append", "console=ttyAMA0,115200 quiet loglevel=4 panic=-1 iomem=relaxed deferred_probe_timeout=1"
            + (" root=/dev/mmcblk0 net.ifnames=0" if card else ""),
            *(["-drive", f"if=sd,format=raw,file={card}"] if card else []),
            "-serial", f"file:{self.log_file}", "-serial", f"unix:{shell}", "-qmp", f"unix:{control}",
            "-device", f"tmp105,id=chip,bus=i2c-bus.{BUS},address={CHIP}",
            "-netdev", "user,id=net", "-device", "usb-net,netdev=net",
        ]
        self.errors = open(pathlib.Path(folder, "qemu"), "wb")
        self.qemu = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self.errors,
                                     stderr=self.errors)
        self.received = b""
        try:
            # `kill` of a guest closes its ends by these names.
            self.shell, self.sketch = (self.accept(listener) for listener in listeners)
            self.replies = self.sketch.makefile("r")
            self.control("qmp_capabilities")
            self.ready()
            self.sh("until ifconfig usb0 10.0.2.15 netmask 255.255.255.0 2>/dev/null; do sleep 0.1; done", limit=START)
        except BaseException:
            self.qemu.kill()
            self.qemu.wait()
            raise

    def ready(self):
        """Waits until the board's shell listens; what is sent to its port before is lost."""
        end = time.monotonic() + START
        while b"LAB-READY" not in self.received:
            if time.monotonic() > end or self.qemu.poll() is not None:
                raise self.failed("the board did not start")
            with contextlib.suppress(TimeoutError, ConnectionError):
                self.received += self.shell.recv(65536)
        self.received = b""

    def control(self, command, **arguments):
        """Has QEMU do something (its QMP)."""
        self.sketch.settimeout(None)
        self.sketch.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        for line in self.replies:
            reply = json.loads(line)
            if "error" in reply:
                raise self.failed(f"QEMU does not {command} {arguments}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]
        raise self.failed("QEMU ended")

    def temperature(self, celsius):
        """Warms or cools the chip."""
        self.control("qom-set", path="/machine/peripheral/chip", property="temperature", value=round(celsius * 1000))
