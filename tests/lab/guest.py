"""A machine of our own: Linux in QEMU, without any hardware but what is named here.

Its log is what it says on its console. Commands are run in it over a port of their own, and their output and exit
status come back. Its second serial port is a socket, at which the host plays the device; it reaches the host's loopback
as 10.0.2.2; its drive is one of `drive.py`.
"""

import contextlib
import functools
import lzma
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "bench"))
sys.path.insert(0, str(HERE))
from drive import Drive
from lab import DEADLINE, wait_for

# What the guest's kernel is given, with everything that these need.
MODULES = ["virtio_pci", "virtio_console", "virtio_blk", "virtio_net", "ext4", "crc32c_generic"]
# What a test may add: to break a disk below the file system, and to spoil a network card in both directions.
FLAKY_DISK = ["dm_flakey"]
FLAKY_NETWORK = ["sch_netem", "sch_ingress", "act_mirred", "cls_matchall", "ifb"]
# Seconds that a command in a guest may take, and a guest's start: the machine may have much else to do.
COMMAND = START = DEADLINE
HOST = "10.0.2.2"
END = "LAB-END"


class Failed(Exception):
    pass


def parts():
    """The folder of kernel and busybox, which `setup` has made."""
    return pathlib.Path(os.environ["LAB_PARTS"])


def archive(entries):
    """A cpio archive (newc) of (path, mode, data), as the kernel unpacks it (its `buffer-format.rst`)."""
    out = bytearray()
    for number, (path, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], start=1):
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += b"\0" * (-len(out) % 4) + data
        out += b"\0" * (-len(out) % 4)
    return bytes(out)


def in_load_order(names):
    """The files of these modules, each behind those that it needs (modules.dep(5))."""
    folder = next((parts() / "lib/modules").iterdir())
    needs = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
    builtin = {pathlib.Path(line).stem.replace("-", "_") for line in (folder / "modules.builtin").read_text().split()}
    by_name = {pathlib.Path(module).name.split(".")[0].replace("-", "_"): module for module in needs}
    order = []
    for name in names:
        if name in builtin:
            continue
        if name not in by_name:
            raise SystemExit(f"the kernel has no module {name}")
        for module in [*reversed(needs[by_name[name]]), by_name[name]]:
            if module not in order:
                order.append(module)
    return [folder / module for module in order]


def libraries(binary):
    """The shared libraries that a program loads, and what loads them."""
    listed = subprocess.run(["ldd", binary], check=True, capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", listed)


def tool(name):
    """The files of one of this machine's own programs, for a guest's folder /lib."""
    program = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if not program:
        raise SystemExit(f"there is no {name} on this machine: please install it")
    return [pathlib.Path(program), *map(pathlib.Path, libraries(program))]


def initramfs(folder, *beside, modules=(), programs=()):
    """Everything that the guest has: busybox, modules, the agent, what lies in `guest`, files `beside` these in its
    folder /lib, and further programs. A module may have parameters behind its name. Gives the file."""
    files = {"bin/busybox": parts() / "busybox", "init": HERE / "guest/init"}
    for program in [os.environ["LAB_BINARY"], *programs]:
        stripped = pathlib.Path(folder, pathlib.Path(program).name)
        subprocess.run(["strip", "-o", stripped, program], check=True)
        files[f"bin/{stripped.name}"] = stripped
        files |= {library.lstrip("/"): pathlib.Path(library) for library in libraries(stripped)}
    files |= {f"lab/{file.name}": file for file in (HERE / "guest").iterdir() if file.name != "init"}
    files |= {f"lib/{file.name}": file for file in beside}
    contents = {path: file.read_bytes() for path, file in files.items()}
    order, parameters = [], dict(module.split(" ", 1) for module in modules if " " in module)
    for module in in_load_order([*MODULES, *(module.split(" ")[0] for module in modules)]):
        name = module.name.removesuffix(".xz")
        contents[f"modules/{name}"] = lzma.decompress(module.read_bytes()) if module.suffix == ".xz" else module.read_bytes()
        order.append(f"{name} {parameters.get(name.removesuffix('.ko'), '')}")
    contents["modules/order"] = "".join(f"{name}\n" for name in order).encode()
    folders = sorted({str(folder) for path in contents for folder in pathlib.Path(path).parents} - {"."})
    entries = [(folder, stat.S_IFDIR | 0o755, b"") for folder in folders]
    entries += [(path, stat.S_IFREG | 0o755, data) for path, data in contents.items()]
    out = pathlib.Path(folder, "initramfs")
    out.write_bytes(archive(entries))
    return out


@functools.cache
def ticks():
    """How fast the time stamp counter of this machine counts, in kHz (`tsc.c`)."""
    with tempfile.TemporaryDirectory() as folder:
        program = pathlib.Path(folder, "tsc")
        subprocess.run(["cc", "-o", program, HERE / "tsc.c"], check=True)
        return int(subprocess.run([program], check=True, stdout=subprocess.PIPE).stdout)


class Guest:
    """A machine that runs; a `with` block ends it in any case.

    One with `hasty` has a clock of its own, which counts the instructions of its only processor and leaps to the next
    timer when there is nothing to do: minutes of waiting take seconds, and anything outside, as the network, is slow.
    More than one of the `processors` is for measurements alone (docs/maintaining.md says why).
    `rtc` is what its hardware clock shows at the start. `system` is the image of a root with an init of its own, which is
    not changed, and has a service that hands a shell to the host.
    """

    def __init__(self, folder, initrd, drive=None, processors=1, hasty=False, rtc=None, system=None):
        self.log_file = pathlib.Path(folder, "console")
        self.log_file.write_bytes(b"")
        shell, sketch = (pathlib.Path(folder, name) for name in ("shell", "sketch"))
        listeners = [listening(path) for path in (shell, sketch)]
        # Whatever becomes of this program, no machine stays behind.
        command = [
            "setpriv", "--pdeathsig", "KILL", "qemu-system-x86_64", "-cpu", "max", "-M", "q35", "-m", "512" if system else "320",
            # In a hasty machine, an instruction takes 16 ns.
            *(["-accel", "tcg,thread=single", "-icount", "shift=4,sleep=off"] if hasty else ["-accel", "tcg,thread=multi"]),
            "-smp", 1 if hasty else processors,
            *(["-rtc", f"base={rtc}"] if rtc else []),
            "-nodefaults", "-display", "none", "-no-reboot", "-no-user-config",
            "-kernel", parts() / "vmlinuz", "-initrd", initrd,
            "-append", "console=ttyS0 quiet loglevel=4 panic=-1 random.trust_cpu=on tsc=reliable no_timer_check"
            # A hasty machine has a counter of its own, and nobody holds that up.
            + ("" if hasty else f" tsc_early_khz={ticks()}")
            + (" root=/dev/vda net.ifnames=0 systemd.getty_auto=no" if system else ""),
            "-serial", f"file:{self.log_file}",
            "-chardev", f"socket,id=sketch,path={sketch}", "-device", "isa-serial,chardev=sketch",
            "-chardev", f"socket,id=shell,path={shell}", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=shell",
            "-nic", "user,model=virtio-net-pci",
        ]
        if drive:
            drive.on()
            command += [
                "-blockdev", f"driver=nbd,node-name=drive,server.type=unix,server.path={drive.path}",
                "-device", "virtio-blk-pci,drive=drive,write-cache=on,werror=report,rerror=report",
            ]
        if system:
            command += ["-drive", f"file={system},if=virtio,format=raw,snapshot=on"]
        self.drive = drive
        self.errors = open(pathlib.Path(folder, "qemu"), "wb")
        self.qemu = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self.errors,
                                     stderr=self.errors)
        self.received = b""
        try:
            self.shell, self.sketch = (self.accept(listener) for listener in listeners)
            # It has time to take what it is sent.
            self.sketch.settimeout(DEADLINE)
            self.sh("ifconfig lo 127.0.0.1 && ifconfig eth0 10.0.2.15 netmask 255.255.255.0", limit=START)
        except BaseException:
            self.qemu.kill()
            self.qemu.wait()
            raise

    def accept(self, listener):
        def connected():
            if self.qemu.poll() is not None:
                raise self.failed(f"QEMU ended with {self.qemu.returncode}")
            with contextlib.suppress(TimeoutError):
                return listener.accept()[0]

        with listener:
            listener.settimeout(0.1)
            connection = wait_for("QEMU to start", connected)
        connection.settimeout(1)
        return connection

    def failed(self, why):
        errors = pathlib.Path(self.errors.name).read_text(errors="replace")
        return Failed(f"{why}\n--- QEMU says\n{errors}\n--- the guest's console\n{self.log()[-6000:]}")

    def log(self):
        """What was said on the console."""
        return self.log_file.read_bytes().decode(errors="replace").replace("\r", "")

    def sh(self, script, limit=COMMAND, check=True):
        """Runs a script in the guest; gives its output."""
        output, status = self.status(script, limit)
        if check and status:
            raise self.failed(f"this ended with {status} in the guest: {script}\n{output}")
        return output

    def status(self, script, limit=COMMAND):
        """Runs a script in the guest; gives its output and exit status."""
        # The mark is put together in the guest, so that no echo of the command is taken for it.
        self.shell.settimeout(limit)
        self.shell.sendall(f"( {script}\n) </dev/null; echo {END[:3]}''{END[3:]} $?\n".encode())
        self.shell.settimeout(1)
        end = time.monotonic() + limit
        while not (mark := re.search(rf"{END} (\d+)\r?\n".encode(), self.received)):
            if self.qemu.poll() is not None:
                raise self.failed(f"QEMU ended with {self.qemu.returncode} at: {script}")
            if time.monotonic() > end:
                raise self.failed(f"not done after {limit} s in the guest: {script}\n{self.received.decode()}")
            # A connection that was reset is QEMU's end, which is seen above.
            with contextlib.suppress(TimeoutError, ConnectionError):
                self.received += self.shell.recv(65536)
        output = self.received[:mark.start()].decode(errors="replace").replace("\r", "")
        self.received = self.received[mark.end():]
        return output, int(mark[1])

    def logged(self, text, since=0):
        """Waits until the log has that text behind `since`; gives the position behind it."""
        def there():
            if self.qemu.poll() is not None:
                raise self.failed(f"QEMU ended with {self.qemu.returncode} while this was waited for: {text}")
            return self.log().find(text, since) + 1
        try:
            return wait_for(f"the guest's log to have {text!r}", there, pause=0.05) - 1 + len(text)
        except SystemExit as end:
            raise self.failed(str(end)) from None

    def kill(self):
        """The power is cut: memory is gone at once, the drive keeps what it must. Gives what became of its writes."""
        self.qemu.send_signal(signal.SIGKILL)
        self.qemu.wait()
        for end in (self.shell, self.sketch, self.errors):
            end.close()
        return self.drive.cut() if self.drive else None

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind and not issubclass(kind, Failed):
            print(self.failed("this was not to be"), file=sys.stderr)
        if self.qemu.returncode is None:
            self.kill()


def alone(script):
    """Runs a script of the folder `guest` in a machine of its own, with an empty drive; gives its exit status."""
    with tempfile.TemporaryDirectory(prefix="lab-") as folder:
        drive = Drive(folder, 64, seed=0)
        with Guest(folder, initramfs(folder), drive) as guest:
            # It waits several times itself.
            output, status = guest.status(f"/lab/{script}", limit=4 * COMMAND)
            print(output, end="")
            if status:
                print(guest.log(), file=sys.stderr)
    return status


def listening(path):
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


if __name__ == "__main__":
    sys.exit(alone(sys.argv[1]))
