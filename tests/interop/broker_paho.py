"""Uses the embedded broker through Eclipse Paho in every way that a LAN's clients do: PORT VERSION (4: 3.1.1, 5).

Prints a line for each check that has passed, `restart` and `kill` where the broker is to be ended so and started again,
and `done` at the end. Whatever is not as it should be ends it with an error.
"""

import queue
import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT, VERSION = int(sys.argv[1]), int(sys.argv[2])
# What anything is waited for at most, seconds; only a broken broker gets there.
DEADLINE = 60
# Something that is not to come is not there when this much later message has come.
LAST = "last"
# Larger than what one read, one TLS record or one buffer holds, and smaller than the broker's largest packet.
LARGE = 1_000_000


def say(text):
    print(text, flush=True)


def passed(what):
    say(f"passed {what}")


def expect(what, got, wanted):
    if got != wanted:
        sys.exit(f"{what}: got {got!r}, expected {wanted!r}")


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """A client that goes on connecting; what happens to it comes in order through queues."""

    def __init__(self, name, clean=True, will=None, will_delay=0, expiry=3600):
        self.messages, self.connects, self.subscribed = queue.Queue(), queue.Queue(), queue.Queue()
        arguments = {} if VERSION == 5 else {"clean_session": clean}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=VERSION, **arguments)
        self.client.reconnect_delay_set(1, 1)
        self.client.on_connect = lambda client, data, flags, reason, properties: self.connects.put((flags, reason))
        self.client.on_subscribe = lambda client, data, number, reasons, properties: self.subscribed.put(reasons)
        self.client.on_message = self.keep
        self.aliases = {}
        if will:
            extra = {"properties": properties(PacketTypes.WILLMESSAGE, WillDelayInterval=will_delay)} \
                if VERSION == 5 else {}
            self.client.will_set(will, "gone", qos=1, **extra)
        extra = {}
        if VERSION == 5:
            extra = {"clean_start": mqtt.MQTT_CLEAN_START_FIRST_ONLY if clean else False,
                     "properties": properties(PacketTypes.CONNECT,
                                              SessionExpiryInterval=0 if clean else expiry, TopicAliasMaximum=10)}
        self.client.connect("127.0.0.1", PORT, keepalive=30, **extra)
        self.client.loop_start()
        self.present = self.connected()

    def keep(self, client, data, message):
        # Paho leaves it to its user to remember what topic an alias stands for.
        if alias := getattr(message.properties, "TopicAlias", None):
            self.aliases[alias] = message.topic or self.aliases[alias]
            message.topic = self.aliases[alias].encode()
        self.messages.put(message)

    def connected(self):
        """Waits until it is connected (again); is a session there?"""
        flags, reason = self.connects.get(timeout=DEADLINE)
        expect("CONNACK", reason.is_failure, False)
        return flags.session_present

    def subscribe(self, topic, qos=2, **options):
        if options:
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **options))
        else:
            self.client.subscribe(topic, qos=qos)
        reasons = self.subscribed.get(timeout=DEADLINE)
        expect(f"SUBACK of {topic}", [reason.value for reason in reasons], [qos])
        return self

    def publish(self, topic, payload, qos=1, retain=False, **values):
        extra = {"properties": properties(PacketTypes.PUBLISH, **values)} if values else {}
        self.client.publish(topic, payload, qos=qos, retain=retain, **extra).wait_for_publish(DEADLINE)

    def next(self):
        return self.messages.get(timeout=DEADLINE)

    def gets(self, what, *wanted):
        """The next messages are these: topic, payload, QoS, retained."""
        for each in wanted:
            message = self.next()
            expect(what, (message.topic, message.payload.decode(), message.qos, message.retain), each)

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self):
        """Is gone without a word, as if it were killed."""
        self.client.loop_stop()
        self.client._sock_close()


def every_quality():
    writer, reader = Client("qos-writer"), Client("qos-reader")
    for wanted in (0, 1, 2):
        reader.subscribe("qos/#", wanted)
        for sent in (0, 1, 2):
            writer.publish(f"qos/{sent}", f"{wanted}", sent)
            reader.gets("QoS", (f"qos/{sent}", f"{wanted}", min(wanted, sent), False))
    writer.leave()
    reader.leave()
    passed("every quality of service")


def many_in_order():
    count = 300
    writer, reader = Client("many-writer"), Client("many-reader")
    reader.subscribe("many")
    for qos in (1, 2):
        infos = [writer.client.publish("many", str(number), qos=qos) for number in range(count)]
        for info in infos:
            info.wait_for_publish(DEADLINE)
        reader.gets("in order", *(("many", str(number), qos, False) for number in range(count)))
    writer.leave()
    reader.leave()
    passed("many at once, in order")


def retained():
    writer = Client("retained-writer")
    writer.publish("kept/a/b", "1", retain=True)
    writer.publish("kept/a/b", "2", 2, retain=True)
    writer.publish("kept/c", "3", 0, retain=True)
    writer.publish("kept/gone", "4", retain=True)
    writer.publish("kept/gone", "", retain=True)
    writer.publish("kept/last", LAST, retain=True)
    for pattern, wanted in (("kept/a/b", ["2"]), ("kept/+", ["3", LAST]), ("kept/#", ["2", "3", LAST]), ("+/+/b", ["2"])):
        reader = Client("retained-reader").subscribe(pattern, 1)
        got = [reader.next() for _ in wanted]
        expect(pattern, sorted(message.payload.decode() for message in got), wanted)
        expect(pattern, {message.retain for message in got}, {True})
        reader.leave()
    if VERSION == 5:
        reader = Client("retained-reader").subscribe("kept/#", 1, retainHandling=2)
        writer.publish("kept/c", "live", retain=True)
        reader.gets("retain handling", ("kept/c", "live", 1, False))
        reader.leave()
        reader = Client("retained-reader").subscribe("kept/c", 1, retainAsPublished=True)
        reader.gets("retain as published", ("kept/c", "live", 1, True))
        writer.publish("kept/c", "again", retain=True)
        reader.gets("retain as published", ("kept/c", "again", 1, True))
        reader.leave()
    writer.leave()
    passed("retained messages")


def wills():
    reader = Client("will-reader").subscribe("will/#", 1)
    Client("will-leaves", will="will/left").leave()
    Client("will-vanishes", will="will/vanished").vanish()
    reader.gets("will", ("will/vanished", "gone", 1, False))
    if VERSION == 5:
        # One that comes back in time has no last will; the other's comes, but not before its delay.
        back = Client("will-back", clean=False, will="will/back", will_delay=5)
        late = Client("will-late", clean=False, will="will/late", will_delay=2)
        begin = time.monotonic()
        back.vanish()
        late.vanish()
        back = Client("will-back", clean=False)
        expect("session", back.present, True)
        reader.gets("will with delay", ("will/late", "gone", 1, False))
        if time.monotonic() - begin < 1.5:
            sys.exit("the last will came before its delay")
        back.leave()
    reader.publish("will/last", LAST)
    reader.gets("no other will", ("will/last", LAST, 1, False))
    reader.leave()
    passed("last wills")


def sessions():
    reader = Client("session", clean=False)
    expect("a new session", reader.present, False)
    reader.subscribe("session/#")
    writer = Client("session-writer")
    for how, qos in (("leave", 1), ("vanish", 1), ("leave", 2), ("vanish", 2)):
        getattr(reader, how)()
        for number in range(20):
            writer.publish(f"session/{number}", str(number), qos)
        reader = Client("session", clean=False)
        expect("the session", reader.present, True)
        reader.gets("session", *((f"session/{number}", str(number), qos, False) for number in range(20)))
    reader.leave()
    clean = Client("session")
    expect("a clean session", clean.present, False)
    clean.leave()
    if VERSION == 5:
        Client("short", clean=False, expiry=1).subscribe("session/#").leave()
        time.sleep(3)
        again = Client("short", clean=False)
        expect("an expired session", again.present, False)
        again.leave()
    writer.leave()
    passed("sessions of clients that leave and vanish")


def wildcards():
    writer = Client("wild-writer")
    topics = ["wild", "wild/a", "wild/a/b", "wild//b", "wild/a/b/c", "other/a"]
    table = {"wild/#": topics[:5], "wild/+": ["wild/a"], "wild/+/b": ["wild/a/b", "wild//b"], "+/a": ["wild/a", "other/a"],
             "wild/a/b": ["wild/a/b"], "+/+/+/c": ["wild/a/b/c"]}
    for pattern, matched in table.items():
        reader = Client("wild-reader").subscribe(pattern, 1)
        reader.subscribe("wild-last", 1)
        for topic in topics:
            writer.publish(topic, "x")
        writer.publish("wild-last", LAST)
        reader.gets(pattern, *((topic, "x", 1, False) for topic in matched), ("wild-last", LAST, 1, False))
        reader.leave()
    # What begins with a dollar sign is matched only by a pattern that does, too.
    everything = Client("wild-all").subscribe("#", 1)
    first = Client("wild-first").subscribe("+/sub", 1)
    first.subscribe("first/last", 1)
    dollar = Client("wild-dollar").subscribe("$dollar/#", 1)
    writer.publish("$dollar/sub", "x")
    dollar.gets("$dollar/#", ("$dollar/sub", "x", 1, False))
    writer.publish("first/last", LAST)
    first.gets("+/sub", ("first/last", LAST, 1, False))
    # The gateway's own topics come to whoever subscribes to everything.
    while (message := everything.next()).topic != "first/last":
        expect("#", message.topic.startswith("$"), False)
    for client in (writer, everything, first, dollar):
        client.leave()
    passed("wildcards, and topics with a dollar sign")


def large():
    writer, reader = Client("large-writer"), Client("large-reader").subscribe("large")
    text = "0123456789" * (LARGE // 10)
    for qos in (0, 1, 2):
        writer.publish("large", text, qos)
        reader.gets("large", ("large", text, qos, False))
    writer.leave()
    reader.leave()
    passed("large messages")


def properties_of_5():
    # Aliases: named once, and then by number alone; two aliases, and one that gets another topic.
    writer, reader = Client("alias-writer"), Client("alias-reader").subscribe("alias/#", 1)
    for topic, alias, wanted in (("alias/a", 1, "a"), ("", 1, "a"), ("alias/b", 2, "b"), ("", 2, "b"), ("", 1, "a"),
                                 ("alias/c", 1, "c"), ("", 1, "c")):
        # Paho takes no empty topic from its caller where there is no alias.
        writer.publish(topic, "x", TopicAlias=alias)
        reader.gets("topic alias", (f"alias/{wanted}", "x", 1, False))
    passed("topic aliases")
    # Expiry: what waited for too long does not come; what did not comes with what is left of its time.
    away = Client("expiry", clean=False).subscribe("expiry/#", 1)
    away.leave()
    writer.publish("expiry/short", "x", MessageExpiryInterval=1)
    writer.publish("expiry/long", "x", MessageExpiryInterval=1000)
    writer.publish("expiry/never", "x")
    writer.publish("expiry-kept", "x", retain=True, MessageExpiryInterval=1)
    time.sleep(3)
    away = Client("expiry", clean=False)
    message = away.next()
    expect("expiry", message.topic, "expiry/long")
    left = message.properties.MessageExpiryInterval
    expect(f"time that is left: {left}", 900 < left < 1000, True)
    away.gets("expiry", ("expiry/never", "x", 1, False))
    away.subscribe("expiry-kept", 1)
    writer.publish("expiry/last", LAST)
    away.gets("a retained message that expired", ("expiry/last", LAST, 1, False))
    away.leave()
    passed("message expiry")
    # What the publisher says about a message reaches its subscribers.
    values = {"ContentType": "text/plain", "ResponseTopic": "alias/answer", "CorrelationData": b"\0\1", "PayloadFormatIndicator": 1,
              "UserProperty": [("a", "1"), ("b", "2"), ("a", "3")]}
    writer.publish("alias/all", "x", 2, **values)
    message = reader.next()
    for name, value in values.items():
        expect(name, getattr(message.properties, name), value)
    # No own messages, and the number of the subscription.
    own = Client("own")
    own.subscribe("own/#", 1, noLocal=True)
    own.publish("own/x", "mine")
    writer.publish("own/x", "another's")
    own.gets("no local", ("own/x", "another's", 1, False))
    own.client.subscribe("numbered", qos=1, properties=properties(PacketTypes.SUBSCRIBE, SubscriptionIdentifier=77))
    own.subscribed.get(timeout=DEADLINE)
    writer.publish("numbered", "x")
    expect("subscription identifier", own.next().properties.SubscriptionIdentifier, [77])
    for client in (writer, reader, own):
        client.leave()
    passed("properties")


def restarts():
    """The broker goes and comes back while its clients stay."""
    away = Client("restart-away", clean=False).subscribe("restart/#")
    away.leave()
    reader = Client("restart-reader", clean=False).subscribe("restart/#")
    writer = Client("restart-writer", clean=False)
    sent = 0
    for how in ("restart", "kill"):
        writer.publish("restart-kept", how, retain=True)
        infos = []
        for number in range(200):
            infos.append(writer.client.publish("restart/x", str(sent), qos=1 + sent % 2))
            sent += 1
            if number == 100:
                # Some are on their way, and the others are published while nobody is there.
                infos[50].wait_for_publish(DEADLINE)
                say(how)
        for info in infos:
            info.wait_for_publish(DEADLINE)
        expect(f"the writer's session after {how}", writer.connected(), True)
        expect(f"the reader's session after {how}", reader.connected(), True)
        kept = Client("restart-kept").subscribe("restart-kept")
        kept.gets(how, ("restart-kept", how, 1, True))
        kept.leave()
    writer.publish("restart/last", LAST)
    away = Client("restart-away", clean=False)
    expect("the absent one's session", away.present, True)
    for client, what in ((reader, "a reader that stayed"), (away, "a reader that was away")):
        # Those of QoS 1 and of QoS 2 are in order each, not among each other.
        got, missing = [], set(range(sent)) | {LAST}
        while missing:
            text = client.next().payload.decode()
            got.append(text)
            missing.discard(text if text == LAST else int(text))
        # Each end of the broker may make what was in flight come again: Paho has at most 20.
        twice = len(got) - len(set(got))
        if twice > 2 * 2 * 20:
            sys.exit(f"{twice} duplicates at {what}")
        say(f"{what}: {len(got)} messages, {twice} of them twice")
    for client in (writer, reader, away):
        client.leave()
    passed("sessions over restarts of the broker")


every_quality()
many_in_order()
retained()
wills()
sessions()
wildcards()
large()
if VERSION == 5:
    properties_of_5()
restarts()
say("done")
