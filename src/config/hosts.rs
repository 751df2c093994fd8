//! Fragments for one host alone, `host-NAME.toml` beside the others: so that one card's image serves many gateways.

use std::path::Path;

/// What the names of such files begin with.
const PREFIX: &str = "host-";

/// The files that a configuration was read from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesRead {
    /// This host's name.
    pub host: String,
    /// Fragments that were read, in the order in which they count.
    pub fragments: Vec<String>,
    /// Fragments for other hosts.
    pub of_others: Vec<String>,
    /// Keys that this host's own fragment has given another value than the files for all, such as `uplink.home.url`.
    pub replaced: Vec<String>,
}

/// Which host is a fragment for? `None`: for all.
pub(super) fn host_of(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.strip_suffix(".toml")
}

/// Is that how this host is called, with or without its domain? Names of hosts have no case (RFC 4343).
pub(super) fn is_this(name: &str, hostname: &str) -> bool {
    let short = hostname.split('.').next().unwrap_or(hostname);
    [hostname, short].iter().any(|own| own.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_for_all_or_for_the_host_in_its_name() {
        for (file, host) in [
            ("vigie.d/rooms.toml", None),
            ("vigie.d/host-salle-12.toml", Some("salle-12")),
            ("host-a/rooms.toml", None),
            ("vigie.d/hostess.toml", None),
            ("vigie.d/host-.toml", Some("")),
        ] {
            assert_eq!(host_of(Path::new(file)), host, "{file}");
        }
    }

    #[test]
    fn a_host_is_called_by_its_name_with_or_without_domain() {
        for (name, hostname, is) in [
            ("salle-12", "salle-12", true),
            ("salle-12", "Salle-12.lan", true),
            ("salle-12.lan", "salle-12.lan", true),
            ("salle-1", "salle-12", false),
            ("salle-12.lan", "salle-12", false),
            ("", "salle-12", false),
        ] {
            assert_eq!(is_this(name, hostname), is, "{name} on {hostname}");
        }
    }
}
