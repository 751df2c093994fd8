//! Who listens on a port, as far as /proc tells (proc(5), proc_pid_net(5)).

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The program that holds a port. Its name is known only for processes whose descriptors we may see: our own user's,
/// or all for root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PortOwner {
    /// A process that we may look into.
    Process {
        /// Its process id.
        pid: u32,
        /// Its name (`/proc/PID/comm`).
        name: String,
    },
    /// Another user's process.
    User(u32),
    /// /proc tells nothing.
    Unknown,
}

impl fmt::Display for PortOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name} (process {pid})"),
            Self::User(uid) => write!(f, "a program of the user with id {uid} (`sudo ss -ltnp` names it)"),
            Self::Unknown => f.write_str("another program (`sudo ss -ltnp` names it)"),
        }
    }
}

impl PortOwner {
    /// Looks for a listener that keeps us from `address`.
    pub(super) fn of(address: SocketAddr) -> Self {
        let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        let Some(listener) =
            tables.iter().filter_map(|table| fs::read_to_string(table).ok()).find_map(|table| find(&table, address))
        else {
            return Self::Unknown;
        };
        process_with_socket(listener.inode).unwrap_or(Self::User(listener.uid))
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Listener {
    uid: u32,
    inode: u64,
}

/// `TCP_LISTEN` in the column `st`.
const LISTEN: &str = "0A";

/// The listener of a table in the format of /proc/net/tcp that takes connections to `address`: one on the same address
/// or on all of them.
fn find(table: &str, address: SocketAddr) -> Option<Listener> {
    table.lines().skip(1).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, local, _, LISTEN, _, _, _, uid, _, inode, ..] = columns[..] else { return None };
        let (ip, port) = local.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        (same_port && covers(ip, address))
            .then_some(())
            .and_then(|()| Some(Listener { uid: uid.parse().ok()?, inode: inode.parse().ok()? }))
    })
}

/// Does a listener on `ip` (hexadecimal, 32-bit words in the machine's byte order) take connections to `address`?
fn covers(ip: &str, address: SocketAddr) -> bool {
    if ip.bytes().all(|digit| digit == b'0') {
        return true;
    }
    let words: Option<Vec<[u8; 4]>> = ip
        .as_bytes()
        .chunks(8)
        .map(|digits| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok().map(native_bytes))
        .collect();
    let ours = address.ip().to_canonical();
    match words.as_deref() {
        Some([v4]) => ours == Ipv4Addr::from(*v4),
        Some([a, b, c, d]) => {
            let mut bytes = [0; 16];
            for (place, word) in bytes.chunks_mut(4).zip([a, b, c, d]) {
                place.copy_from_slice(word);
            }
            ours == Ipv6Addr::from(bytes).to_canonical()
        }
        _ => false,
    }
}

#[expect(clippy::host_endian_bytes, reason = "the kernel prints an address in network order as a native word")]
fn native_bytes(word: u32) -> [u8; 4] {
    word.to_ne_bytes()
}

fn process_with_socket(inode: u64) -> Option<PortOwner> {
    let link = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd"))
            .ok()?
            .flatten()
            .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == link.as_str()));
        let name = || {
            fs::read_to_string(entry.path().join("comm"))
                .map_or_else(|_| "?".to_owned(), |name| name.trim_end().to_owned())
        };
        holds.then(|| PortOwner::Process { pid, name: name() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_listener_of_this_process() {
        for on in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0"] {
            let Ok(listener) = std::net::TcpListener::bind(on) else {
                assert!(on.starts_with('['), "{on}: this machine has IPv4");
                continue;
            };
            let mut address = listener.local_addr().unwrap();
            if address.ip().is_unspecified() {
                address.set_ip(Ipv4Addr::LOCALHOST.into());
            }
            match PortOwner::of(address) {
                PortOwner::Process { pid, .. } => assert_eq!(pid, std::process::id(), "{on}"),
                other => panic!("{on}: {other:?}"),
            }
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn reads_the_kernels_tables() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
                   0: 0100007F:075B 00000000:0000 01 00000000:00000000 00:00000000 00000000   101        0 10 1\n\
                   1: 0200007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000   102        0 11 1\n\
                   2: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000   103        0 12 1\n";
        let address = "127.0.0.1:1883".parse().unwrap();
        assert_eq!(find(tcp, address), Some(Listener { uid: 103, inode: 12 }));
        let tcp6 = "header\n\
                    0: 00000000000000000000000000000000:075B 0:0000 0A 0:0 00:0 0   104        0 13 1\n\
                    1: nonsense\n";
        assert_eq!(find(tcp6, address), Some(Listener { uid: 104, inode: 13 }));
        let mapped = "header\n0: 0000000000000000FFFF00000100007F:075B 0:0000 0A 0:0 00:0 0 105 0 14 1\n";
        assert_eq!(find(mapped, address), Some(Listener { uid: 105, inode: 14 }));
        assert_eq!(find(mapped, "127.0.0.1:1884".parse().unwrap()), None);
    }
}
