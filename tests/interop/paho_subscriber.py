"""Prints each message that comes, as an object of JSON in a line of its own: PORT VERSION (4: 3.1.1, 5)."""

import base64
import json
import sys

import paho.mqtt.client as mqtt

port, version = int(sys.argv[1]), int(sys.argv[2])


def show(what):
    print(json.dumps(what), flush=True)


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe("#", qos=2)


def on_message(client, userdata, message):
    properties = message.properties.json() if message.properties else {}
    show({
        "topic": message.topic,
        "payload": base64.b64encode(message.payload).decode(),
        "qos": message.qos,
        "retain": message.retain,
        "properties": properties,
    })


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="paho", protocol=version)
client.on_connect = on_connect
client.on_subscribe = lambda *_: show("subscribed")
client.on_message = on_message
client.connect("127.0.0.1", port)
client.loop_forever()
