"""Browses the network for services with python-zeroconf: KIND…, for example `_mqtt._tcp.local.`

Prints a line of JSON for each service that comes, with what its name stands for, and for each that goes. Runs until it is
killed.
"""

import json
import signal
import sys

from zeroconf import IPVersion, ServiceBrowser, ServiceListener, Zeroconf

# What an answer is waited for at most, milliseconds; only a responder that does not answer gets there.
DEADLINE = 60_000


class Printer(ServiceListener):
    def add_service(self, zc, type_, name):
        info = zc.get_service_info(type_, name, timeout=DEADLINE)
        found = info and {
            "addresses": sorted(info.parsed_addresses(IPVersion.V4Only)),
            "port": info.port,
            "host": info.server,
            "text": {key.decode(): (value or b"").decode() for key, value in info.properties.items()},
        }
        say("here", name, found=found)

    def remove_service(self, zc, type_, name):
        say("gone", name)

    def update_service(self, zc, type_, name):
        """What changes about a service is of no interest here."""


def say(event, name, **more):
    print(json.dumps({"event": event, "name": name, **more}), flush=True)


ServiceBrowser(Zeroconf(), sys.argv[1:], Printer())
say("browses", "")
signal.pause()
