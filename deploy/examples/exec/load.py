#!/usr/bin/env python3
"""A driver that runs on: the machine's load and free memory, every `interval` seconds.

Obeys the command {"interval": 2}. With the standard library alone.
"""

import json
import os
import select
import sys
import time

interval = 10.0


def say(values):
    print(json.dumps(values), flush=True)


def measure():
    boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
    try:
        with open("/proc/loadavg") as file:
            load = float(file.read().split()[0])
        with open("/proc/meminfo") as file:
            free = next(int(line.split()[1]) for line in file if line.startswith("MemAvailable:"))
    except (OSError, ValueError, StopIteration) as error:
        say({"fault": f"the kernel does not say: {error}"})
        return
    say({"load": load, "free": {"value": free / 1024, "unit": "MiB"}, "boottime": boottime})


def obey(line):
    global interval
    answer = {}
    try:
        command = json.loads(line)
        answer["ack"] = command.get("id", 0)
        seconds = float(command["interval"])
        if not 0.1 <= seconds <= 3600:
            raise ValueError("interval must be 0.1 to 3600 seconds")
        interval = seconds
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        answer["error"] = f"not understood: {error}"
    if "ack" in answer:
        say(answer)


def main():
    received = b""
    due = time.monotonic()
    while True:
        left = due - time.monotonic()
        if left <= 0:
            measure()
            due = time.monotonic() + interval
            continue
        if not select.select([sys.stdin], [], [], left)[0]:
            continue
        chunk = os.read(sys.stdin.fileno(), 4096)
        if not chunk:
            return  # vigie has gone
        received += chunk
        *lines, received = received.split(b"\n")
        for line in lines:
            obey(line)
            due = time.monotonic()


main()
