"""Does with MQTT discovery what Home Assistant does, by Home Assistant's own schemas: PORT.

Prints an object of JSON in a line of its own for each device that is announced ("device", the keys of its "entities", or
"invalid"), each new state that a template makes of a message ("entity", "state"), and each new availability ("entity",
"topic", "available"). Only what the schemas need of Home Assistant is loaded; the rest of it stands for nothing, because
it wants a newer Python and a hundred packages.
"""

import enum
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import types

import jinja2.sandbox
import paho.mqtt.client as mqtt
import voluptuous as vol

SOURCES = pathlib.Path(sys.prefix) / "home-assistant"
LOADED = {
    "homeassistant.const",
    "homeassistant.components.binary_sensor",
    "homeassistant.components.event.const",
    "homeassistant.components.mqtt.abbreviations",
    "homeassistant.components.mqtt.binary_sensor",
    "homeassistant.components.mqtt.config",
    "homeassistant.components.mqtt.const",
    "homeassistant.components.mqtt.event",
    "homeassistant.components.mqtt.image",
    "homeassistant.components.mqtt.schemas",
    "homeassistant.components.mqtt.sensor",
    "homeassistant.components.mqtt.util",
    "homeassistant.components.sensor.const",
}
STANDS_FOR_NOTHING = {"homeassistant", "httpx", "propcache"}

templates = jinja2.sandbox.SandboxedEnvironment()
templates.filters["tojson"] = json.dumps


class Whatever(type):
    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class Nothing(metaclass=Whatever):
    """A class or function of which nothing is needed."""

    def __init__(self, *args, **kwargs):
        pass

    def __init_subclass__(cls, **kwargs):
        pass

    def __class_getitem__(cls, item):
        return cls

    def __call__(self, *args, **kwargs):
        return self


class DeprecatedMembers(enum.EnumType):
    """An enumeration that would warn of some of its members."""

    @classmethod
    def __prepare__(cls, name, bases, **kwargs):
        return super().__prepare__(name, bases)

    def __new__(cls, name, bases, members, **kwargs):
        return super().__new__(cls, name, bases, members)

    def __init__(cls, name, bases, members, **kwargs):
        super().__init__(name, bases, members)


class Stub(types.ModuleType):
    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        inner = f"{self.__name__}.{name}"
        if inner in LOADED or inner in sys.modules:
            return importlib.import_module(inner)
        # A class of its own each time: some are bases of one class together.
        return Whatever(name, (Nothing,), {})


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in STANDS_FOR_NOTHING:
            return None
        if name in LOADED:
            file = SOURCES / (name.replace(".", "/") + ".py")
            if not file.exists():
                file = SOURCES / name.replace(".", "/") / "__init__.py"
            return importlib.util.spec_from_file_location(name, file)
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec):
        return Stub(spec.name)

    def exec_module(self, module):
        pass


sys.meta_path.insert(0, Finder())


def template(value):
    templates.parse(value)
    return value


# The helpers' schemas, as homeassistant.helpers.config_validation documents them.
validation = Stub("homeassistant.helpers.config_validation")
validation.string = vol.All(vol.Any(str, int, float), vol.Coerce(str))
validation.template = template
validation.boolean = vol.Boolean()
validation.positive_int = vol.All(vol.Coerce(int), vol.Range(min=0))
validation.ensure_list = lambda value: value if isinstance(value, list) else [value]
validation.deprecated = lambda *args, **kwargs: lambda value: value
for name in ("configuration_url", "icon", "url"):
    setattr(validation, name, validation.string)
sys.modules[validation.__name__] = validation
deprecation = importlib.import_module("homeassistant.helpers.deprecation")
deprecation.EnumWithDeprecatedMembers = DeprecatedMembers
helpers = importlib.import_module("homeassistant.helpers")
helpers.config_validation = validation
entity = importlib.import_module("homeassistant.helpers.entity")
entity.ENTITY_CATEGORIES_SCHEMA = vol.In(["config", "diagnostic"])
sensor = importlib.import_module("homeassistant.components.sensor")
constants = importlib.import_module("homeassistant.components.sensor.const")
vars(sensor).update({name: value for name, value in vars(constants).items() if not name.startswith("__")})
event = importlib.import_module("homeassistant.components.event")
event.DEVICE_CLASSES_SCHEMA = vol.Any("button", "doorbell", "motion")
event.ATTR_EVENT_TYPE = "event_type"

from homeassistant.components.mqtt import abbreviations, schemas  # noqa: E402

platforms = {
    name: importlib.import_module(f"homeassistant.components.mqtt.{name}").DISCOVERY_SCHEMA
    for name in ("binary_sensor", "event", "image", "sensor")
}


last = {}


def show(what):
    """What is said of the same thing again is not news."""
    about = (what.get("device"), what.get("entity"), what.get("topic")) if isinstance(what, dict) else what
    line = json.dumps(what)
    if last.get(about) != line:
        last[about] = line
        print(line, flush=True)


def spelt_out(config, table=abbreviations.ABBREVIATIONS):
    return {table.get(key, key): value for key, value in config.items()}


def devices(payload):
    """The validated entities of a device message by component, None for one that is taken away."""
    message = spelt_out(payload)
    message["origin"] = spelt_out(message["origin"], abbreviations.ORIGIN_ABBREVIATIONS)
    message["device"] = spelt_out(message["device"], abbreviations.DEVICE_ABBREVIATIONS)
    message["availability"] = [spelt_out(one) for one in message.get("availability", [])]
    message["components"] = {key: spelt_out(config) for key, config in message["components"].items()}
    schemas.DEVICE_DISCOVERY_SCHEMA(message)
    found = {}
    for key, config in message["components"].items():
        platform = config.pop("platform")
        if config:
            config |= {"device": message["device"], "origin": message["origin"]}
            config |= {
                option: message[option]
                for option in schemas.SHARED_OPTIONS
                if option in message and option not in config
            }
            config = platforms[platform](config)
            if platform == "sensor":
                check_class(config)
            found[key] = config | {"platform": platform}
        else:
            found[key] = None
    return found


def check_class(config):
    """What a sensor's unit and state class may be with its device class: otherwise the entity is refused, or warned of."""
    device, state = config.get("device_class"), config.get("state_class")
    units = constants.DEVICE_CLASS_UNITS.get(device)
    if units is not None and config.get("unit_of_measurement") not in units:
        raise vol.Invalid(f"{device} in {config.get('unit_of_measurement')}")
    if device and state and state not in constants.DEVICE_CLASS_STATE_CLASSES[device]:
        raise vol.Invalid(f"{device} as {state}")


known = {}


def announced(topic, payload):
    device = topic.split("/")[2]
    if not payload:
        known.pop(device, None)
        show({"device": device, "entities": None})
        return
    try:
        found = devices(json.loads(payload))
    except Exception as error:
        show({"device": device, "invalid": repr(error)})
        return
    entities = known.setdefault(device, {})
    for key, config in found.items():
        entities.pop(key, None)
        if config:
            entities[key] = config
    show({"device": device, "entities": sorted(entities)})


compiled = functools.cache(templates.from_string)


def rendered(source, payload):
    value = payload.decode("utf-8", "replace")
    try:
        value_json = json.loads(value)
    except ValueError:
        value_json = None
    return compiled(source).render(value=value, value_json=value_json, this={"state": "before"})


def arrived(topic, payload):
    for config in [config for entities in known.values() for config in entities.values()]:
        name = config["unique_id"]
        if config.get("state_topic") == topic:
            source = config.get("value_template", "{{ value }}")
            show({"entity": name, "state": rendered(source, payload)})
        for place in config.get("availability", []):
            if place["topic"] == topic:
                state = rendered(place["value_template"], payload)
                show({"entity": name, "topic": topic, "available": state})


def on_connect(client, userdata, flags, reason, properties):
    # What is announced first, so that the retained states find their entities.
    client.subscribe("homeassistant/device/+/config", qos=1)


def on_subscribe(client, userdata, mid, reasons, properties):
    if not userdata:
        userdata.append(mid)
        client.publish("homeassistant/status", "online")
        show("started")


def on_message(client, userdata, message):
    if message.topic.startswith("homeassistant/device/"):
        announced(message.topic, message.payload.decode())
        # As Home Assistant does when an entity appears: retained states come again with each subscription.
        client.subscribe("#", qos=1)
    else:
        arrived(message.topic, message.payload)


client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="home-assistant", userdata=[])
client.on_connect = on_connect
client.on_subscribe = on_subscribe
client.on_message = on_message
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()
