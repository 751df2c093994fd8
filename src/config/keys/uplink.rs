//! The keys of uplinks, and of how a broker is reached.

use super::sparkplug::SPARKPLUG_KEY;
use super::{Section, key, targets};

pub(super) const COMMANDS_HELP: &str = "Take commands to devices from this broker, on the topic `…/set` of each sensor whose \
                             driver has them; see [commands](commands.md).";

pub(super) const AUDIT_HELP: &str = "Publish what an auditor asks for (starts, reloads, logins that failed, commands…) on \
                                     `…/audit`; see [service](service.md#for-an-auditor).";

pub(super) const COMMAND_MAX_AGE_HELP: &str = "A command that may be older is refused.";

/// `[uplink.NAME]`
pub(super) static UPLINK: Section = Section {
    title: "[uplink.NAME]",
    intro: "A broker to publish to. As many as wanted, each at its own pace. The name `broker` is taken by the \
            embedded broker.",
    keys: &[
        key(
            "url",
            "`\"mqtt://HOST:PORT\"`, `\"mqtts://…\"`, `\"ws://HOST:PORT/PATH\"`, `\"wss://…\"`, or a list of up to 16",
            None,
            "The broker; port 1883, with TLS 8883, over WebSocket 80 and 443. Along a list it fails over: each in turn, \
             then a pause. The brokers of a list count as independent: what was in flight to one is sent again to the \
             next.",
        ),
        targets::PRESET,
        key(
            "failback",
            "duration, `\"1s\"` to a year",
            Some("`\"3m\"`"),
            "While connected to a later one of several URLs, how often it is tried whether the first answers again; \
             seldomer, up to an hour, when it answers but then does not stay.",
        ),
        key(
            "connect",
            "`\"always\"` or `\"every DURATION\"`, from 1m",
            Some("`\"always\"`"),
            "`every 15m`: connect so often, send what waits, and disconnect; for metered links and batteries. Meanwhile \
             the gateway's availability is `asleep`.",
        ),
        key(
            "mqtt",
            "`\"3.1.1\"` or `\"5\"`",
            Some("`\"3.1.1\"`"),
            "Version of MQTT. With 5 the broker gives reasons and limits, which are observed, topics get aliases, and \
             each message has the reading's `id` as a user property.",
        ),
        key(
            "client_id",
            "text with `{gateway}` `{hostname}` `{id}`",
            Some("`\"vigie-{gateway}\"`"),
            "Client identifier; no two clients of a broker may have the same.",
        ),
        key(
            "username",
            "text, or a table as `password`",
            Some("none"),
            "User name at the broker; where it is a secret itself, such as an access token, where it is read from.",
        ),
        key(
            "password",
            "table, see [password](#password)",
            Some("none"),
            "Where the password is read from, at each connection.",
        ),
        targets::SHARED_ACCESS_KEY,
        targets::SIGNATURE_LIFETIME,
        key("qos", "0, 1 or 2", Some("1"), "At most once, at least once, exactly once."),
        key(
            "retain",
            "true or false",
            Some("true; false with `batch`"),
            "Does the broker keep the last reading of a topic? Never for events.",
        ),
        targets::STATE,
        key(
            "inflight",
            "1 to 65535",
            Some("100"),
            "How many messages may wait for their acknowledgement; fewer if the broker takes fewer, which only MQTT 5 \
             tells (in 3.1.1, at most 16 with `qos = 2`).",
        ),
        key(
            "keep_alive",
            "duration, `\"1s\"` to `\"65535s\"`",
            Some("`\"30s\"`"),
            "A silent connection is tested this often.",
        ),
        key(
            "clock_wait",
            "duration up to a year",
            Some("`\"1m\"`; `\"0s\"` for a broker on this machine"),
            "While the clock is not set, how long a connected uplink holds readings in the hope of dating them.",
        ),
        key(
            "max_packet",
            "size, `\"1KiB\"` to 268435455",
            Some("`\"1MiB\"`"),
            "Largest packet that is sent or accepted.",
        ),
        key("rooms", "list of names", Some("all"), "Only readings of these rooms are sent, and those of `sensors`."),
        key("sensors", "list of names", Some("all"), "Only readings of these sensors are sent, and those of `rooms`."),
        key(
            "max_age",
            "duration, `\"1s\"` to a year",
            Some("none"),
            "Readings that are older when their turn comes are dropped, and counted.",
        ),
        key(
            "backlog",
            "`\"all\"` or `\"latest\"`",
            Some("`\"all\"`"),
            "What is sent of the readings that were taken while there was no connection: all of them, or only the newest \
             of each topic, for consumers that take every arrival for the present.",
        ),
        key(
            "backlog_rate",
            "number, 0.001 to 1000000",
            Some("what the link takes"),
            "Messages of the backlog a second, at the most.",
        ),
        key(
            "backlog_topic",
            "topic with `{topic}`",
            Some("`\"{topic}\"`"),
            "Where the backlog is published; `{topic}` is the topic of live readings, as in `\"backlog/{topic}\"`. \
             The backlog has `\"backlog\":true` in it, and is never retained.",
        ),
        key(
            "live_first",
            "true or false",
            Some("true, but with `backlog = \"latest\"`"),
            "Live readings go before the backlog. With `false` everything goes in the order in which it was taken.",
        ),
        key("commands", "true or false", Some("false"), COMMANDS_HELP),
        key("command_max_age", "duration, `\"2s\"` to a year", Some("`\"30s\"`"), COMMAND_MAX_AGE_HELP),
        key("audit", "true or false", Some("false"), AUDIT_HELP),
        targets::DISCOVERY,
        targets::DISCOVERY_PREFIX,
        SPARKPLUG_KEY,
        key("integrity", "table, see [integrity](#integrity)", Some("none"), "A checksum of each payload."),
        key(
            "privacy",
            "table, see [privacy](#uplinknameprivacy)",
            Some("nothing is hidden"),
            "What is not to be told.",
        ),
        key("tls", "table, see [tls](#tls)", Some("the system's authorities"), "For `mqtts://` and `wss://`."),
        key("proxy", "table, see [proxy](#proxy)", Some("none"), "An HTTP proxy to go through."),
        key(
            "interface",
            "name of a network interface, such as `\"wwan0\"`",
            Some("as the system routes"),
            "The only interface that the connection may go through. Names are looked up as the system does it.",
        ),
    ],
};

/// `password = { … }`
pub(super) static PASSWORD: Section = Section {
    title: "password",
    intro: "Where a password is read from, in exactly one way; a newline at its end is taken off. It is never written \
            into the configuration itself, and never printed. Files and credentials are read anew at each connection, \
            and looked at while connected: a changed one, such as a fresh token (JWT), is used without a restart.",
    keys: &[
        key("credential", "name", Some("none"), "A credential of the service: `LoadCredential=NAME:PATH` in its unit."),
        key("file", "path", Some("none"), "A file that nobody but its owner may read (`chmod 600`)."),
        key("env", "name", Some("none"), "An environment variable."),
    ],
};

/// `tls = { … }`
pub(super) static TLS: Section = Section {
    title: "tls",
    intro: "For `mqtts://` and `wss://`, as `tls = { ca = \"ca.pem\" }` or `[uplink.NAME.tls]`. The files (PEM) are read \
            anew at each connection. While connected they are looked at every 30 seconds: when one has changed and all \
            of them are right, the connection is made anew; when not, that is logged and the connection stays. \
            While the clock is not set, a certificate is refused only if it had expired when vigie last knew the time, \
            or when it was built.",
    keys: &[
        key("ca", "path", Some("the system's authorities"), "The authorities to trust instead of the system's."),
        key("cert", "path", Some("none"), "Our certificate chain, where the broker asks for one."),
        key("key", "path", Some("none"), "Its private key; nobody but its owner may read it (`chmod 600`)."),
        key(
            "server_name",
            "host name",
            Some("the URL's host"),
            "Name that is asked for (SNI) and that the broker's certificate must be for.",
        ),
        key("alpn", "list of texts", Some("none"), "Protocols to offer (ALPN), such as `[\"x-amzn-mqtt-ca\"]`."),
    ],
};

/// `proxy = { … }`
pub(super) static PROXY: Section = Section {
    title: "proxy",
    intro: "An HTTP proxy that lets connections through (CONNECT), as `proxy = { url = \"http://proxy.lan:3128\" }`. The \
            proxy looks up the broker's name.",
    keys: &[
        key("url", "`\"http://HOST:PORT\"`", None, "The proxy."),
        key("username", "text without colon", Some("none"), "User name, where the proxy asks for one (Basic)."),
        key("password", "table, see [password](#password)", Some("none"), "Where its password is read from."),
    ],
};
