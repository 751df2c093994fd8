"""Prints each reading that comes on topics below PREFIX as a line of JSON, decoded by programs of others: PORT FORM PREFIX."""

import json
import sys

import cbor2
import paho.mqtt.client as mqtt
from line_protocol_parser import parse_line

port, form, prefix = int(sys.argv[1]), sys.argv[2], sys.argv[3]

# RFC 8428, table 4.
LABELS = {-1: "bver", -2: "bn", -3: "bt", -4: "bu", -5: "bv", -6: "bs",
          0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd"}


def resolved(pack):
    """The records with their base values resolved (RFC 8428, 4.6)."""
    base = {}
    for record in pack:
        base.update({key: value for key, value in record.items() if key.startswith("b")})
        yield {
            "n": base.get("bn", "") + record.get("n", ""),
            "t": base.get("bt", 0) + record.get("t", 0),
            "u": record.get("u", base.get("bu")),
            **{key: record[key] for key in ("v", "vs", "vb") if key in record},
        }


def readings(payload):
    if form == "senml":
        return resolved(json.loads(payload))
    if form == "senml-cbor":
        return resolved([{LABELS[key]: value for key, value in record.items()} for record in cbor2.loads(payload)])
    if form == "influx":
        return [parse_line(line) for line in payload.decode().split("\n")]
    return [json.loads(payload)]


def show(what):
    print(json.dumps(what), flush=True)


def on_message(client, userdata, message):
    found = list(readings(message.payload))
    show({"topic": message.topic, "retain": message.retain, "bytes": len(message.payload), "readings": found})


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="reader")
client.on_connect = lambda client, *_: client.subscribe(prefix + "/#", qos=2)
client.on_subscribe = lambda *_: show("subscribed")
client.on_message = on_message
client.connect("127.0.0.1", port)
client.loop_forever()
