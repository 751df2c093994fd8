"""Follows the edge node usine/pi with pysparkplug, prints what it understands as lines of JSON, asks once for births: PORT."""

import json
import sys

import paho.mqtt.client as mqtt
import pysparkplug as spb

births = {}
asked = False


def show(what):
    print(json.dumps(what), flush=True)


def metrics(payload):
    return [{"name": metric.name, "type": metric.datatype.name, "value": metric.value, "alias": metric.alias,
             "time": metric.timestamp, "null": metric.is_null, "historical": metric.is_historical}
            for metric in payload.metrics]


def on_message(client, userdata, message):
    global asked
    _, _, kind, _, *device = message.topic.split("/")
    raw = message.payload
    if kind == "NDEATH":
        show({"kind": kind, "bdSeq": spb.NDeath.decode(raw).bd_seq_metric.value})
    elif kind in ("NBIRTH", "DBIRTH"):
        birth = (spb.NBirth if kind == "NBIRTH" else spb.DBirth).decode(raw)
        births[tuple(device)] = birth
        show({"kind": kind, "device": device, "seq": birth.seq, "metrics": metrics(birth)})
    elif kind == "DDATA":
        data = spb.DData.decode(raw, birth=births[tuple(device)])
        show({"kind": kind, "device": device, "seq": data.seq, "metrics": metrics(data)})
        if not asked:
            asked = True
            command = spb.Metric(timestamp=1, name="Node Control/Rebirth", datatype=spb.DataType.BOOLEAN, value=True)
            payload = spb.NCmd(timestamp=1, metrics=(command,)).encode(include_dtypes=True)
            client.publish("spBv1.0/usine/NCMD/pi", payload)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="host")
client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", qos=1)
client.on_subscribe = lambda *_: show("subscribed")
client.on_message = on_message
client.connect("127.0.0.1", port=int(sys.argv[1]))
client.loop_forever()
