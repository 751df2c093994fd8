"""A gateway with simulated hardware: an agent in a guest whose buses and lines are the kernel's own, with chips and
contacts of ours behind them, and a subscriber at a broker of the host who notes what comes out.
"""

import contextlib
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import threading
import time

from guest import HOST, Failed, Guest, initramfs

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "bench"))
from lab import DEADLINE, Mosquitto, Process, free_port, wait_for

CONFIG = """
[gateway]
name = "lab"
topic = "lab/{{sensor}}/{{quantity}}"
[clock]
trust = "always"
[outbox]
path = "{outbox}"
[uplink.lab]
url = "mqtt://{host}:{port}"
{sensors}
"""
SOCKET = "/run/chips"
ENDED = "LAB: the agent ended with"


class Message:
    """What came: on which topic, what it says, when."""

    def __init__(self, topic, body):
        self.topic, self.body, self.came = topic, body, time.monotonic()

    @property
    def id(self):
        """Which reading it is; `None` of what is no reading."""
        return self.body.get("id") if isinstance(self.body, dict) else None

    @property
    def run(self):
        """Of which start of the agent it is; `None` of what is no reading."""
        return int(self.id.partition("-")[0]) if self.id else None

    @property
    def value(self):
        return self.body["value"]

    @property
    def time(self):
        """Seconds since 1970, as the reading says."""
        seconds, _, fraction = self.body["time"].rstrip("Z").partition(".")
        return time_of(seconds) + float(f"0.{fraction or 0}")

    def __repr__(self):
        return f"{self.topic} {json.dumps(self.body, ensure_ascii=False)}"


def time_of(text):
    import calendar
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


class Broker:
    """Mosquitto on the host, with a subscriber to everything of the gateway's.

    A reading counts once: which one it is says its `id`, and at QoS 1 it comes again when a connection was held up for so
    long that it was given up.
    """

    def __init__(self, folder):
        self.mosquitto = Mosquitto(folder, free_port())
        self.port = self.mosquitto.port
        # Only ever appended to.
        self.messages = []
        self.readings = set()
        self.marks, self.marked = 0, 0
        # The agent's run whose readings count: one that has ended may leave some, which come at the next start. `None`: all.
        self.run = None
        command = ["mosquitto_sub", "-p", self.port, "-q", 1, "-t", "lab/#", "-F", "%t %p"]
        self.subscriber = Process(command, stdout=subprocess.PIPE)
        threading.Thread(target=self.receive, daemon=True).start()
        wait_for("the subscription", self.subscribed, pause=0.1)

    def mark(self):
        self.marks += 1
        message = ["mosquitto_pub", "-p", str(self.port), "-q", "1", "-t", "lab/mark", "-m", str(self.marks)]
        subprocess.run(message, check=True)

    def subscribed(self):
        self.mark()
        return self.marked

    def settle(self):
        """Waits until everything is noted that the broker has handed on by now."""
        self.mark()
        mine = self.marks
        wait_for("the broker", lambda: self.marked >= mine)

    def receive(self):
        for line in self.subscriber.child.stdout:
            topic, _, payload = line.decode().rstrip("\n").partition(" ")
            with contextlib.suppress(ValueError):
                body = json.loads(payload)
                if topic == "lab/mark":
                    self.marked = body
                    continue
                message = Message(topic.removeprefix("lab/"), body)
                reading = (topic, message.id)
                if message.id is None or reading not in self.readings:
                    self.readings.add(reading)
                    self.messages.append(message)

    def of(self, topic, since=0):
        return [message for message in self.messages[since:] if message.topic == topic and self.counts(message)]

    def counts(self, message):
        return self.run is None or message.run in (None, self.run)

    def close(self):
        for process in (self.subscriber, self.mosquitto):
            process.__exit__()


class Gateway:
    """A guest with hardware, and the agent in it. `with` it: whatever was started ends with it."""

    def __init__(self, *, modules=(), programs=(), drive=None, outbox="/tmp/outbox", processors=1):
        self.modules, self.programs = modules, [os.environ["LAB_CHIPS"], *programs]
        self.drive, self.outbox, self.processors = drive, outbox, processors
        self.cleanup = contextlib.ExitStack()

    def __enter__(self):
        with self.cleanup as cleanup:
            self.folder = cleanup.enter_context(tempfile.TemporaryDirectory(prefix="lab-"))
            self.broker = Broker(self.folder)
            cleanup.callback(self.broker.close)
            self.initrd = initramfs(self.folder, modules=self.modules, programs=self.programs)
            self.boot()
            cleanup.callback(lambda: self.guest.__exit__(None))
            self.cleanup = cleanup.pop_all()
        return self

    def __exit__(self, kind, *_):
        if kind and not issubclass(kind, Failed):
            print(self.guest.failed("this was not to be"), file=sys.stderr)
        self.cleanup.close()

    def boot(self, hasty=False):
        self.guest = Guest(self.folder, self.initrd, self.drive, self.processors, hasty)

    def sh(self, script, **options):
        return self.guest.sh(script, **options)

    # The chips.

    def serve_chips(self, *buses):
        devices = " ".join(f"/dev/simbus-{bus}" for bus in buses)
        self.sh(f"lab-chips serve {SOCKET} {devices} >/dev/ttyS0 2>&1 & until [ -S {SOCKET} ]; do sleep 0.1; done")

    def chips(self, command):
        return self.sh(f"lab-chips tell {SOCKET} {command}").strip()

    # The lines.

    def make_lines(self, chip, names, count=54, label="pinctrl-bcm2835", hogs=()):
        """A GPIO chip; `names` by offset; a hog is a line that a driver of the kernel has, and its name."""
        folder = f"/sys/kernel/config/gpio-sim/{chip}"
        lines = [f"mkdir -p {folder}/bank", f"echo {count} >{folder}/bank/num_lines", f"echo {label} >{folder}/bank/label"]
        for offset, name in names.items():
            lines += [f"mkdir {folder}/bank/line{offset}", f"echo '{name}' >{folder}/bank/line{offset}/name"]
        for offset, holder in dict(hogs).items():
            hog = f"{folder}/bank/line{offset}/hog"
            lines += [f"mkdir {hog}", f"echo '{holder}' >{hog}/name", f"echo input >{hog}/direction"]
        self.sh("\n".join(["set -e", *lines, f"echo 1 >{folder}/live"]))

    def line_folder(self, chip, offset):
        folder = f"/sys/kernel/config/gpio-sim/{chip}"
        return f"/sys/devices/platform/$(cat {folder}/dev_name)/$(cat {folder}/bank/chip_name)/sim_gpio{offset}"

    def drive_line(self, chip, offset, high):
        """Drives a line; gives the guest's wall clock before and after."""
        level = "up" if high else "down"
        return self.between(f"echo pull-{level} >{self.line_folder(chip, offset)}/pull")

    def now(self):
        """The guest's wall clock, seconds since 1970."""
        return self.between("true")[0]

    def between(self, command):
        """Runs a command; gives the guest's wall clock before and after, seconds since 1970."""
        said = self.sh(f"adjtimex >/run/before; {command}; adjtimex >/run/after; cat /run/before /run/after")
        seconds, micros = (re.findall(rf"tv_{unit}: +(\d+)", said) for unit in ("sec", "usec"))
        return tuple(int(whole) + int(part) / 1e6 for whole, part in zip(seconds, micros))

    def pulses(self, line, count, rate, limit=DEADLINE):
        """Lets a line go up and down so often, so many times a second; returns once it has: by how much, in seconds, the
        edge was late that was latest, because the guest was held up.
        """
        parameter = "/sys/module/gpio_simx/parameters/pulses"
        self.sh(f"echo '{line} {count} {rate}' >{parameter}")
        said = self.sh(f"until grep '^{count} of {count},' {parameter}; do sleep 0.1; done", limit=limit)
        return int(re.search(r"late by (\d+)", said)[1]) / 1e6

    # The agent.

    def start(self, sensors, environment="", says="connected"):
        config = CONFIG.format(host=HOST, port=self.broker.port, outbox=self.outbox, sensors=sensors)
        self.sh(f"cat >/run/vigie.toml <<'TOML'\n{config}\nTOML")
        self.launch(environment, says)

    def launch(self, environment="", says="connected"):
        """Starts the agent and waits until it says something."""
        since = len(self.guest.log())
        self.sh(
            f"( NO_COLOR=1 RUST_LOG=info {environment} "
            "sh -c 'echo $$ >/run/vigie.pid; exec vigie run --config /run/vigie.toml'; "
            f"echo '{ENDED}' $? ) >/dev/ttyS0 2>&1 &"
        )
        self.until("the agent to start", lambda: any(word in self.guest.log()[since:] for word in (says, ENDED)))
        self.expect(ENDED not in self.guest.log()[since:], "the agent ended at once")
        self.broker.run = int(re.search(r"vigie starts .*run=(\d+)", self.guest.log()[since:])[1])

    def signal(self, name):
        self.sh(f"kill -{name} $(cat /run/vigie.pid)")

    def end(self, name="TERM", status=0):
        """Ends the agent with a signal, which it is to do with that status."""
        since = len(self.guest.log())
        self.signal(name)
        self.guest.logged(f"{ENDED} {status}\n", since)
        self.broker.settle()

    def kill(self):
        self.end("KILL", status=128 + 9)

    # What comes out.

    def mark(self):
        """The number of messages so far, to look only at later ones."""
        self.broker.settle()
        return len(self.broker.messages)

    def until(self, what, condition, most=DEADLINE):
        """Waits for a condition, so many seconds at most; gives its value."""
        try:
            return wait_for(what, condition, pause=0.05, most=most)
        except SystemExit as end:
            last = "\n".join(str(message) for message in self.broker.messages[-30:])
            raise self.guest.failed(f"{end}\n--- the last messages\n{last}\n") from None

    def message(self, topic, since=0, where=lambda message: True):
        """The first message on a topic for which that holds, waiting for it."""
        def found():
            return next((message for message in self.broker.of(topic, since) if where(message)), None)
        return self.until(f"a message on {topic}", found)

    def value(self, topic, since=0, where=lambda value: True):
        return self.message(topic, since, lambda message: where(message.value)).value

    def fault(self, sensor, reason, since=0, says=""):
        """Waits until a sensor has a fault of that reason, whose words have `says` in them."""
        def has(message):
            return message.body.get("reason") == reason and says in message.body.get("detail", "")
        return self.message(f"{sensor}/availability", since, has)

    def works(self, sensor, since=0):
        """Waits until a sensor is said to work."""
        return self.message(f"{sensor}/availability", since, lambda message: message.body["state"] == "online")

    def expect(self, holds, what):
        if not holds:
            raise self.guest.failed(what)


def case(text):
    """Says what was just seen."""
    print(text, flush=True)


def main(run):
    try:
        run()
    except Failed as failure:
        raise SystemExit(f"FAILED: {failure}") from None
