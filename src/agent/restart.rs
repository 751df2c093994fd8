//! What a reload cannot change: the keys that hold from the start of the agent to its end.

use secrecy::ExposeSecret as _;

use crate::config::{ArchiveConfig, Config, OutboxKey};

/// The keys, such as `outbox.flush`, that differ although they must not. Where there are any, nothing is reloaded: what
/// runs is always one configuration, whose hash `…/info` tells.
pub(super) fn needed(now: &Config, new: &Config) -> Vec<String> {
    let (gateway, outbox) = ((&now.gateway, &new.gateway), (&now.outbox, &new.outbox));
    let same = [
        ("gateway.name", gateway.0.name == gateway.1.name),
        ("gateway.id", gateway.0.id == gateway.1.id),
        ("gateway.site", gateway.0.site == gateway.1.site),
        ("gateway.topic", gateway.0.topic == gateway.1.topic),
        ("clock.trust", now.trust == new.trust),
        ("hardware", now.hardware.backend == new.hardware.backend && now.hardware.faults == new.hardware.faults),
        ("expander", now.hardware.expanders == new.hardware.expanders),
        ("outbox.path", outbox.0.path == outbox.1.path),
        ("outbox.tail", outbox.0.tail == outbox.1.tail),
        ("outbox.flush", outbox.0.flush == outbox.1.flush),
        ("outbox.max_bytes", outbox.0.max_bytes == outbox.1.max_bytes),
        ("outbox.free_share", outbox.0.free_share == outbox.1.free_share),
        ("outbox.full", outbox.0.drop_newest == outbox.1.drop_newest),
        ("outbox.key", key(outbox.0.key.as_ref()) == key(outbox.1.key.as_ref())),
    ];
    let differ = same.into_iter().filter(|(_, same)| !same).map(|(key, _)| key.to_owned());
    differ.chain(archive(now.archive.as_ref(), new.archive.as_ref())).chain(broker(now, new)).collect()
}

fn key(key: Option<&OutboxKey>) -> Option<&[u8]> {
    key.map(|key| &key.expose_secret()[..])
}

fn archive(now: Option<&ArchiveConfig>, new: Option<&ArchiveConfig>) -> Vec<String> {
    let (now, new) = match (now, new) {
        (Some(now), Some(new)) => (now, new),
        (None, None) => return Vec::new(),
        _ => return vec!["archive".to_owned()],
    };
    let same = [
        ("archive.path", now.path == new.path),
        ("archive.keep", now.keep == new.keep),
        ("archive.max", now.max == new.max),
        ("archive.batch", now.batch == new.batch),
    ];
    same.into_iter().filter(|(_, same)| !same).map(|(key, _)| key.to_owned()).collect()
}

fn broker(now: &Config, new: &Config) -> Vec<String> {
    if now.broker.is_some() != new.broker.is_some() {
        return vec!["broker".to_owned()];
    }
    now.broker_keys.differing(&new.broker_keys).into_iter().map(|key| format!("broker.{key}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Machine, from_text};
    use crate::drivers::DRIVERS;

    fn config(text: &str) -> Config {
        let machine = Machine { hostname: "pi".to_owned(), ..Machine::this() };
        from_text("test.toml", text, &machine, DRIVERS).map_err(|report| report.to_string()).expect("no errors")
    }

    const FULL: &str = "[gateway]\nname = \"a\"\nid = \"1\"\nsite = \"s\"\n[uplink.home]\nurl = \"mqtt://b\"\n\
        [outbox]\npath = \"/x\"\n[archive]\nkeep = \"1d\"\n";

    #[test]
    fn what_needs_a_restart_is_named_and_the_rest_does_not() {
        let now = config(FULL);
        for (from, to, keys) in [
            ("url = \"mqtt://b\"", "url = \"mqtt://c\"\nqos = 2", &[][..]),
            ("site = \"s\"", "site = \"s\"\nlabel = \"Here\"\nlocation = { latitude = 1.0, longitude = 2.0 }", &[]),
            // A default that is written out is no change.
            ("path = \"/x\"", "path = \"/x\"\nflush = \"1s\"", &[]),
            ("name = \"a\"\nid = \"1\"", "name = \"b\"\nid = \"2\"", &["gateway.name", "gateway.id"]),
            (
                "path = \"/x\"",
                "path = \"/y\"\nflush = \"0s\"\nfull = \"drop-newest\"",
                &["outbox.path", "outbox.flush", "outbox.full"],
            ),
            ("keep = \"1d\"", "keep = \"2d\"\nbatch = \"1h\"", &["archive.keep", "archive.batch"]),
            ("[archive]\nkeep = \"1d\"", "", &["archive"]),
            ("[archive]", "[clock]\ntrust = \"always\"\n[archive]", &["clock.trust"]),
            ("[archive]", "[hardware]\nbackend = \"sim\"\n[archive]", &["hardware"]),
        ] {
            assert!(FULL.contains(from), "{from}");
            assert_eq!(needed(&now, &config(&FULL.replace(from, to))), keys, "{to}");
        }
    }

    #[cfg(feature = "broker")]
    #[test]
    fn of_the_broker_the_keys_are_named() {
        let now = config("[gateway]\nname = \"a\"\n[broker]\nlisten = \"127.0.0.1:1883\"\n");
        let new =
            config("[gateway]\nname = \"a\"\n[broker]\nlisten = \"127.0.0.1:1884\"\n[broker.limits]\nqueue = 7\n");
        assert_eq!(needed(&now, &new), ["broker.limits", "broker.listen"]);
        assert_eq!(needed(&now, &config("[gateway]\nname = \"a\"\n[uplink.u]\nurl = \"mqtt://b\"\n")), ["broker"]);
    }
}
