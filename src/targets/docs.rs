//! `docs/targets.md`, made of the registry.

use std::fmt::Write;

use super::home_assistant::classes::ROWS;
use super::{Cost, Given, Rule, TARGETS, Target};

const HEAD: &str = "\
# Targets

<!-- Made from src/targets/ by `UPDATE_DOCS=1 cargo test`: change it there. -->

What an uplink needs depends on the system at its other end. For some of them there is a preset, which sets what that
system wants; what is written beside it wins:

```toml
[uplink.cloud]
preset = \"aws-iot\"
url = \"mqtts://a1b2c3-ats.iot.eu-west-1.amazonaws.com\"
tls = { cert = \"client.pem\", key = \"client.key\" }
```

`vigie check` prints what a preset has set. It also holds each uplink against what its target takes, as far as that is known
before the first reading, with the preset or by the name of the host: what cannot work is an error, what loses something or
costs more than it need is a warning, which the agent logs when it starts.

A complete example for each system is in [config/targets](../config/targets), also for those that need no preset: Mosquitto
and other brokers, EMQX, HiveMQ, OpenRemote, Kuzzle, SiteWhere, Mainflux, Eclipse Kura, programs for ChirpStack, Node-RED.
What a payload looks like can be set for each uplink: see [payloads](payloads.md).
";

const HOME_ASSISTANT: &str = "
Each sensor is announced, retained, on `homeassistant/device/vigie_GATEWAY_SENSOR/config`, where GATEWAY is `id` of
`[gateway]`; so is the gateway itself, to which they belong. Numbers and texts are sensors, switches are binary sensors,
events are events with their value, pictures are images. A device is in the area of its room. It is available while the
gateway is connected and the sensor works; a value that has not come three times in a row counts as unknown.

When a value should have come is known by `every` of a sensor that is asked, of a GPIO line, and of a program with
`mode = \"once\"`, and behind its filters: by `heartbeat` of `change`, and by the filters `throttle`, `heartbeat`, `timeout` and
those with `send_every` or a window. Of a sensor that speaks by itself (a serial port, a program that runs on) it is known by
`timeout` or `heartbeat` alone: `filters = [{ timeout = \"5m\" }]`. Where it is not known, as with `change` without
`heartbeat`, and for events, a value holds until the sensor fails.

Quantities that a device names itself are announced when they come first. What was announced is remembered: what a later
configuration does not have is taken away, and so is a quantity that has not come in the last twenty starts. When Home
Assistant starts (`homeassistant/status`), everything is announced again within ten seconds. Commands are not announced:
what a device takes is not known.

With `discovery = true`, and without the preset, the same is announced beside the whole backlog.

The device class is found by name and unit; where none fits there is none. A name counts if all its words are in the
quantity's, as in `soil_moisture`.

";

const SPARKPLUG: &str = "
The gateway's topics are `spBv1.0/GROUP/NBIRTH/NODE` and so on, those of a sensor `spBv1.0/GROUP/DDATA/NODE/SENSOR`, so that
Ignition shows a tag as `Edge Nodes/GROUP/NODE/SENSOR/QUANTITY`. Numbers are `Double`, switches `Boolean`, texts `String`,
bytes `Bytes`; an event has the type of its values. Units are the property `engUnit`; the sensor's label, room and place are
metrics below `Properties`.

- **Births.** Each connection begins with NBIRTH and a DBIRTH for each sensor that works, with all its metrics and their
  present values. Events, pictures, and what has not been measured yet, have none (`is_null`). A sensor that comes later is
  born then, and born anew when it gives a quantity that is not in its birth. `Node Control/Rebirth` makes all of it anew, once
  a second at the most.
- **Deaths.** A sensor that fails dies (DDEATH) as soon as what it gave before that is sent. The node's death (NDEATH) is the
  will, and is published before an orderly end; with `mqtt = \"5\"` the will comes then, too. `bdSeq` goes on after a restart; a
  power cut may set it back by what the last few connections had counted.
- **Backlog.** It has `is_historical`, and so has what is older than the value in the birth. If its sensor does not work now, or
  is there no longer, the device is born without values for that, and dies when all of it is sent.
- **What is certain.** Sparkplug sends everything at QoS 0, in sessions that nobody keeps: a reading counts as delivered when it
  was written to a connected socket. What was under way when the connection broke is lost, and nobody is told. What was taken
  while there was no connection is not: it waits in the outbox, as always. With `primary_host` it also waits while that host is
  not online; without it, what is published while the host is away reaches the broker only. Give the same broker a second
  uplink at QoS 1 for what must not be lost.
- **Time.** While the clock is not set, births wait for `clock_wait`; what is sent after that has no timestamps, which
  the specification wants, because vigie makes none up.
- **Commands.** NCMD is taken for rebirths. With `commands = true` hosts may write to the metrics of sensors that take
  [commands](commands.md) (DCMD), and of no others; the log says which these are when the broker has accepted the
  subscriptions. What a host writes is as if it had come on `…/set` as a JSON object, `{\"relay\":true}`, with the names that the
  device itself has for its quantities, and with the unit in which it takes them: filters are not reckoned back. The same
  rules hold: a command that is retained, older than `command_max_age` by its timestamp, or of too many bytes is refused, and
  so is one for a metric that is not in the birth, is derived, or has a value of bytes. The result is the metric `result` of
  the device, a JSON object as bytes, with timestamp.

No two uplinks may have the same `group` and `node`, also at different brokers: a host that hears both would take one for the
other.
";

/// The page.
#[must_use]
pub fn docs() -> String {
    let mut text = HEAD.to_owned();
    for target in TARGETS {
        // Writing to a `String` cannot fail.
        let _ = write!(text, "\n## {}: `preset = \"{}\"`\n\n{}\n\n", target.title, target.name, target.about);
        defaults(target, &mut text);
        limits(target, &mut text);
        let _ = writeln!(text, "\nSource: {}.", target.source);
        if target.name == super::home_assistant::TARGET.name {
            text.push_str(HOME_ASSISTANT);
            classes(&mut text);
        } else if target.name == super::sparkplug::TARGET.name {
            text.push_str(SPARKPLUG);
        }
    }
    text
}

fn defaults(target: &Target, text: &mut String) {
    let given = Given { host: "HOST".to_owned(), port: 443, client_id: "CLIENT_ID".to_owned(), format: String::new() };
    text.push_str("| Sets | to |\n|---|---|\n");
    for default in (target.defaults)(&given) {
        let _ = writeln!(text, "| `{}` | `{}` |", default.key, default.value);
    }
}

fn limits(target: &Target, text: &mut String) {
    if target.limits.is_empty() {
        return;
    }
    text.push_str("\n| What is checked | otherwise | because |\n|---|---|---|\n");
    for limit in target.limits {
        let cost = match limit.cost {
            Cost::Fails => "error",
            Cost::Loses => "warning",
        };
        let _ = writeln!(text, "| {} | {cost} | {} |", rule(limit.rule), limit.because);
    }
}

fn rule(rule: Rule) -> String {
    match rule {
        Rule::Qos(most) => format!("`qos` is at most {most}"),
        Rule::NoRetain => "`retain = false`".to_owned(),
        Rule::NoState => "`state = false`".to_owned(),
        Rule::Tls => "`url` is one with TLS".to_owned(),
        Rule::Packet(most) => format!("`max_packet` is at most {most}"),
        Rule::KeepAlive(least, most) => {
            format!("`keep_alive` is from {} s to {} s", least.as_secs(), most.as_secs())
        }
        Rule::Version311 => "`mqtt = \"3.1.1\"`".to_owned(),
        Rule::Slashes(most) => format!("topics have at most {most} slashes"),
        Rule::TopicBytes(most) => format!("topics have at most {most} bytes"),
        Rule::TopicStart(start) => format!("topics begin with `{start}`"),
        Rule::ClientId(most) => format!("`client_id` has at most {most} bytes"),
        Rule::Inflight(most) => format!("`inflight` is at most {most}"),
        Rule::Interval(least) => format!("one message in {} ms", least.as_millis()),
        Rule::Username => "`username` is given".to_owned(),
        Rule::SecretUsername => "`username` is read from elsewhere, or there is a `password`".to_owned(),
    }
}

fn classes(text: &mut String) {
    text.push_str("| Device class | Units | Names |\n|---|---|---|\n");
    for row in ROWS {
        let list = |words: &[&str], none: &str| {
            let shown = |word: &&str| if word.is_empty() { none.to_owned() } else { format!("`{word}`") };
            words.iter().map(shown).collect::<Vec<_>>().join(", ")
        };
        let names = if row.names.is_empty() { "any".to_owned() } else { list(row.names, "") };
        let _ = writeln!(text, "| `{}` | {} | {names} |", row.device, list(row.units, "none"));
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_documentation_is_current() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/targets.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, docs()).expect("writable documentation");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == docs(), "docs/targets.md is not current: run UPDATE_DOCS=1 cargo test");
    }
}
