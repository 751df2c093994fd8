"""Checks the checksum of each message that comes with the Python of docs/integrity.md: PORT PAGE [KEY].

Prints for each whether it is right, and whether it still is when a byte of the payload is another one.
"""

import json
import pathlib
import re
import sys

import paho.mqtt.client as mqtt

port, page, key = int(sys.argv[1]), pathlib.Path(sys.argv[2]), bytes.fromhex("".join(sys.argv[3:])) or None
exec("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)))


def show(what):
    print(json.dumps(what), flush=True)


def is_right(payload, properties):
    return check_property(payload, properties, key) if properties else check(payload, key)


def on_message(client, userdata, message):
    properties = [it for it in getattr(message.properties, "UserProperty", []) if it[0] != "id"]
    payload = bytearray(message.payload)
    right = is_right(bytes(payload), properties)
    payload[len(payload) // 3] ^= 1
    damaged = is_right(bytes(payload), properties)
    show({"topic": message.topic, "beside": bool(properties), "right": right, "damaged": damaged})


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="checks", protocol=mqtt.MQTTv5)
client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
client.on_subscribe = lambda *_: show("subscribed")
client.on_message = on_message
client.connect("127.0.0.1", port)
client.loop_forever()
