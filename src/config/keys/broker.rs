//! The keys of the embedded broker.

use super::uplink::{AUDIT_HELP, COMMAND_MAX_AGE_HELP, COMMANDS_HELP};
use super::{Section, key};

/// `[broker]`
pub(super) static BROKER: Section = Section {
    title: "[broker]",
    intro: "The embedded broker, for a gateway without any other; docs/broker.md says what it keeps and what it bounds. A \
            configuration may consist of this and sensors alone.",
    keys: &[
        key(
            "listen",
            "address and port",
            Some("`\"127.0.0.1:1883\"`, unless there is a `listener`"),
            "Where it listens, plain. An address that others than this machine reach needs `users`, or `anonymous = true`.",
        ),
        key(
            "listener",
            "tables, see [[broker.listener]](#brokerlistener)",
            Some("none"),
            "More listeners: with TLS, or for WebSockets.",
        ),
        key(
            "users",
            "path",
            Some("none: nobody is asked for a password"),
            "File with the users' names and hashed passwords, as `vigie broker passwd` writes it. It is read again when it \
             changes.",
        ),
        key(
            "anonymous",
            "true or false",
            Some("true where there are neither `users` nor client certificates"),
            "May clients come in without a user? With listeners that others than this machine reach, that must be said here.",
        ),
        key(
            "user",
            "tables, see [broker.user.NAME](#brokerusername)",
            Some("none"),
            "What a user may read and write; one without a table everything that is not the gateway's own.",
        ),
        key(
            "jwt",
            "table, see [broker.jwt](#brokerjwt)",
            Some("none"),
            "Logins with a token (JWT) in place of the password.",
        ),
        key(
            "watch",
            "table, see [broker.watch](#brokerwatch)",
            Some("nothing"),
            "What of the clients is told in the topic `…/broker`.",
        ),
        key(
            "discoverable",
            "true or false",
            Some("true"),
            "Are listeners that others than this machine reach announced to their networks, as `_mqtt._tcp` and \
             `_secure-mqtt._tcp` (DNS-SD)?",
        ),
        key(
            "sys_interval",
            "duration, `\"0s\"`: never",
            Some("`\"60s\"`"),
            "How often the broker says below `$SYS/broker` how it is.",
        ),
        key("limits", "table, see [broker.limits](#brokerlimits)", Some("for a Pi with 512 MB"), "Bounds."),
        key(
            "ingest",
            "tables, see [[broker.ingest]](#brokeringest)",
            Some("none"),
            "What of the clients' messages goes up to the uplinks.",
        ),
        key(
            "deliver",
            "tables, see [[broker.deliver]](#brokerdeliver)",
            Some("none"),
            "What of the uplinks' messages comes down to the clients.",
        ),
        key(
            "bridges",
            "list of client identifiers",
            Some("those that say that they are, as Mosquitto's of 3.1.1 do"),
            "Clients that are bridges of other brokers: what they bring never goes up.",
        ),
        key(
            "path",
            "path",
            Some("`broker` in the state folder"),
            "Folder of what outlives the process: retained messages, sessions, what waits for them.",
        ),
        key("commands", "true or false", Some("false"), COMMANDS_HELP),
        key("command_max_age", "duration, `\"2s\"` to a year", Some("`\"30s\"`"), COMMAND_MAX_AGE_HELP),
        key("audit", "true or false", Some("false"), AUDIT_HELP),
    ],
};

/// `[[broker.listener]]`
pub(super) static BROKER_LISTENER: Section = Section {
    title: "[[broker.listener]]",
    intro: "A listener of the embedded broker. Clients use `mqtt://`, with `tls` `mqtts://`, with `websocket` `ws://`, with \
            both `wss://`.",
    keys: &[
        key("listen", "address and port", None, "Where. The usual ports are 1883, with TLS 8883."),
        key("tls", "table, see [tls of a listener](#tls-of-a-listener)", Some("none: plain"), "TLS."),
        key("websocket", "true or false", Some("false"), "MQTT over WebSocket, for browsers; any path will do."),
    ],
};

/// `tls = { … }`
pub(super) static LISTENER_TLS: Section = Section {
    title: "tls of a listener",
    intro: "Files in PEM form; `vigie broker cert` makes them. They are read again when they change.",
    keys: &[
        key("certificate", "path", None, "The server's certificate, with what is between it and the authority."),
        key("key", "path", None, "Its private key."),
        key(
            "client_ca",
            "path",
            Some("none: clients are not asked for a certificate"),
            "Authority of the clients' certificates. A client that shows one is the user of its common name; without \
             `users`, no client comes in without one.",
        ),
    ],
};

/// `[broker.user.NAME]`
pub(super) static BROKER_USER: Section = Section {
    title: "[broker.user.NAME]",
    intro: "What a user may do. Once there is such a table for a user, what it does not list is not allowed; on the topics \
            that the gateway publishes on, nobody else may publish in any case. `[broker.user.anonymous]` is for clients \
            without a user. In a filter, the level `%u` stands for the user's name and `%c` for the client identifier.",
    keys: &[
        key(
            "read",
            "list of topic filters",
            Some("none"),
            "What the user may subscribe to: these filters, or narrower ones.",
        ),
        key("write", "list of topic filters", Some("none"), "What the user may publish on."),
        key(
            "certificate",
            "text",
            Some("the user's name"),
            "Common name of the client certificate that is this user's.",
        ),
    ],
};

/// `[broker.jwt]`
pub(super) static BROKER_JWT: Section = Section {
    title: "[broker.jwt]",
    intro: "A client whose password is a JSON Web Token (RFC 7519) is the user that `sub` names. `exp` and `nbf` count as \
            soon as the gateway knows the time; docs/broker.md says what holds before.",
    keys: &[
        key(
            "key",
            "path",
            None,
            "What tokens are verified with: a public key in PEM form (RSA: RS256; P-256: ES256), or a secret of at least \
             32 bytes (HS256), which not everybody may read.",
        ),
        key("audience", "text", Some("any"), "What `aud` must name."),
    ],
};

/// `[broker.watch]`
pub(super) static BROKER_WATCH: Section = Section {
    title: "[broker.watch]",
    intro: "What of the clients is told in the retained topic `…/broker` of the gateway, and in the log. `silent_after` of \
            [[broker.ingest]](#brokeringest) is the same for topics.",
    keys: &[
        key(
            "silent_after",
            "duration, `\"1s\"` to a year",
            Some("none"),
            "A client that published regularly, at least three times within this time each, and does so no more.",
        ),
        key(
            "unknown_clients",
            "true or false",
            Some("false"),
            "Client identifiers that were never seen before. In the first hour all are taken as known.",
        ),
        key(
            "rate_factor",
            "2 to 1000",
            Some("none"),
            "A client that publishes so many times as many messages as it did on average over the last hour.",
        ),
    ],
};

/// `[broker.limits]`
pub(super) static BROKER_LIMITS: Section = Section {
    title: "[broker.limits]",
    intro: "Bounds of the embedded broker. Reaching one is counted, is in the log at most once a minute, and harms nobody but \
            the client that reached it.",
    keys: &[
        key(
            "connections",
            "1 to 10000",
            Some("1024"),
            "Connections at a time. One address other than this machine's may have half of them.",
        ),
        key(
            "connect_rate",
            "1 to 1000000",
            Some("100"),
            "Connections that an address may open a second; twice as many at once.",
        ),
        key("packet", "size, `\"1KiB\"` to `\"16MiB\"`", Some("`\"1MiB\"`"), "Largest packet from a client."),
        key(
            "message_rate",
            "1 to 1000000",
            Some("1000"),
            "Messages that a client may publish a second; twice as many at once. Who is faster is read more slowly.",
        ),
        key("queue", "1 to 1000000", Some("10000"), "Messages that wait for one client. What comes on top is dropped."),
        key("queue_bytes", "size, `\"64KiB\"` to `\"256MiB\"`", Some("`\"4MiB\"`"), "Their size, for one client."),
        key(
            "retained",
            "1 to 1000000",
            Some("10000"),
            "Retained messages. A new one on top is delivered and not kept.",
        ),
        key("retained_bytes", "size, `\"64KiB\"` to `\"256MiB\"`", Some("`\"16MiB\"`"), "Their size."),
        key("subscriptions", "1 to 1000000", Some("500"), "Subscriptions of a client."),
        key(
            "keep_alive",
            "duration, `\"10s\"` to 65535 s",
            Some("what the client asks for"),
            "The longest keep-alive of MQTT 5, whose clients are told. A client that is gone without a word is noticed after one \
             and a half times as long.",
        ),
    ],
};
