//! Found without configuration: listeners that others reach are announced by multicast DNS (RFC 6762) as services of
//! their networks (DNS-SD, RFC 6763): `_mqtt._tcp`, with TLS `_secure-mqtt._tcp`, as IANA has them. There is no such name
//! for MQTT over WebSocket.
//!
//! The answers are given by a thread of the crate's, which sleeps while nobody asks. Avahi may run beside it: both hear
//! every question, because they share the port, and so that they do not both speak for the host's name, ours is
//! another one then.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use mdns_sd::{IfKind, Receiver, ServiceDaemon, ServiceInfo, UnregisterStatus};

use crate::config::BrokerListener;

/// How often it is looked whether the addresses of this machine have changed, in seconds.
const LOOK_EVERY: u32 = 60;
/// How long the farewell may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// Where Avahi is asked, when it runs.
const AVAHI: &str = "/run/avahi-daemon/socket";
/// The longest name of a service (RFC 6763, 4.1.1).
const MAX_NAME_BYTES: usize = 63;

/// A service as it is announced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Service {
    kind: &'static str,
    name: String,
    port: u16,
    /// The address that it is at; `None`: all of the family.
    only: Option<IpAddr>,
    is_v4: bool,
}

/// What is announced, until this is dropped.
pub(super) struct Announcer {
    daemon: ServiceDaemon,
    services: Vec<ServiceInfo>,
}

impl std::fmt::Debug for Announcer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcer").field("services", &self.services.len()).finish_non_exhaustive()
    }
}

impl Announcer {
    /// Announces the listeners that others than this machine reach, as services of that name. `None`: there are none.
    /// A machine without a network that could hear it is not an error.
    pub(super) fn start(
        name: &str,
        listeners: &[BrokerListener],
        addresses: &[SocketAddr],
    ) -> Result<Option<Self>, mdns_sd::Error> {
        let services = services(name, listeners, addresses);
        if services.is_empty() {
            return Ok(None);
        }
        let daemon = ServiceDaemon::new()?;
        daemon.set_ip_check_interval(LOOK_EVERY)?;
        for loopback in [IfKind::LoopbackV4, IfKind::LoopbackV6] {
            daemon.disable_interface(loopback)?;
        }
        Self::with(daemon, &services, &host_name(name, Path::new(AVAHI).exists())).map(Some)
    }

    fn with(daemon: ServiceDaemon, services: &[Service], host: &str) -> Result<Self, mdns_sd::Error> {
        let mut infos = Vec::new();
        for service in services {
            let info = service.info(host)?;
            daemon.register(info.clone())?;
            tracing::info!(
                name = service.name,
                host,
                port = service.port,
                "the broker is announced as {}",
                service.kind
            );
            infos.push(info);
        }
        Ok(Self { daemon, services: infos })
    }

    /// Says that the services are gone; without it, others believe for two minutes that they are still there.
    pub(super) async fn stop(self) {
        let gone: Vec<Receiver<UnregisterStatus>> =
            self.services.iter().filter_map(|info| self.daemon.unregister(info.get_fullname()).ok()).collect();
        let farewell = tokio::task::spawn_blocking(move || {
            let until = std::time::Instant::now() + FAREWELL;
            for answer in gone {
                // Whoever does not hear it forgets the service in its own time.
                let _ = answer.recv_deadline(until);
            }
        });
        let _ = farewell.await;
        // The thread of it ends by itself.
        let _ = self.daemon.shutdown();
    }
}

impl Service {
    fn info(&self, host: &str) -> Result<ServiceInfo, mdns_sd::Error> {
        let properties = [("server", "vigie")];
        let given: &[IpAddr] = self.only.as_slice();
        let mut info = ServiceInfo::new(self.kind, &self.name, host, given, self.port, &properties[..])?;
        if self.only.is_none() {
            info = info.enable_addr_auto();
            info.set_interfaces(vec![if self.is_v4 { IfKind::IPv4 } else { IfKind::IPv6 }]);
        }
        Ok(info)
    }
}

/// What there is to announce. Names are unique, as they must be on a network.
fn services(name: &str, listeners: &[BrokerListener], addresses: &[SocketAddr]) -> Vec<Service> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    let open = listeners.iter().zip(addresses).filter(|(listener, at)| !listener.websocket && !at.ip().is_loopback());
    open.map(|(listener, at)| {
        let kind = if listener.tls.is_some() { "_secure-mqtt._tcp.local." } else { "_mqtt._tcp.local." };
        let count = counts.entry(kind).or_default();
        *count += 1;
        let number = if *count > 1 { format!(" ({count})") } else { String::new() };
        let end = name.floor_char_boundary(MAX_NAME_BYTES - number.len());
        Service {
            kind,
            name: format!("{}{number}", &name[..end]),
            port: at.port(),
            only: Some(at.ip()).filter(|ip| !ip.is_unspecified()),
            is_v4: at.is_ipv4(),
        }
    })
    .collect()
}

/// The name of this machine, which is in its certificate, too; where Avahi speaks for that one, a name of our own.
fn host_name(gateway: &str, has_avahi: bool) -> String {
    let label = |text: &str| -> String {
        let kept = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
        text.chars().map(kept).take(MAX_NAME_BYTES).collect()
    };
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let host = own.split('.').next().unwrap_or_default();
    if has_avahi || host.is_empty() {
        return format!("{}.local.", label(&format!("vigie-{gateway}")));
    }
    format!("{}.local.", label(host))
}

/// The addresses of this machine that a client may use to reach a listener at `at`.
pub(super) fn reachable(at: SocketAddr) -> Vec<SocketAddr> {
    if !at.ip().is_unspecified() {
        return vec![at];
    }
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut found: Vec<SocketAddr> = all
        .iter()
        .filter(|interface| !interface.is_loopback() && interface.ip().is_ipv4() == at.is_ipv4())
        .filter(|interface| !interface.is_link_local())
        .map(|interface| SocketAddr::new(interface.ip(), at.port()))
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mdns_sd::ServiceEvent;

    use super::*;
    use crate::config::ListenerTls;

    /// Only a failure waits for it.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn listener(at: &str, tls: bool, websocket: bool) -> BrokerListener {
        let files = || ListenerTls { certificate: "c".into(), key: "k".into(), client_ca: None };
        BrokerListener { listen: at.parse().unwrap(), tls: tls.then(files), websocket }
    }

    fn found(listeners: &[BrokerListener]) -> Vec<(&'static str, String, u16, bool)> {
        let addresses: Vec<SocketAddr> = listeners.iter().map(|listener| listener.listen).collect();
        let services = services("atelier", listeners, &addresses);
        services.into_iter().map(|one| (one.kind, one.name, one.port, one.only.is_some())).collect()
    }

    #[test]
    fn listeners_that_others_reach_are_services_with_names_of_their_own() {
        let listeners = [
            listener("127.0.0.1:1883", false, false),
            listener("0.0.0.0:1884", false, false),
            listener("192.0.2.1:1885", false, false),
            listener("0.0.0.0:8883", true, false),
            listener("0.0.0.0:8884", true, true),
        ];
        let name = str::to_owned;
        assert_eq!(
            found(&listeners),
            [
                ("_mqtt._tcp.local.", name("atelier"), 1884, false),
                ("_mqtt._tcp.local.", name("atelier (2)"), 1885, true),
                ("_secure-mqtt._tcp.local.", name("atelier"), 8883, false),
            ]
        );
        assert!(found(&listeners[..1]).is_empty(), "loopback is nobody else's");
        let long = services(&"é".repeat(100), &listeners[1..2], &[listeners[1].listen]);
        assert_eq!(long[0].name.len(), 62);
    }

    #[test]
    fn beside_avahi_the_host_has_a_name_of_ours() {
        assert_eq!(host_name("atelier 1", true), "vigie-atelier-1.local.");
        assert!(host_name("atelier", false).ends_with(".local."));
    }

    /// On a port of its own and over loopback, so that no other responder of this machine takes part.
    #[tokio::test]
    async fn a_browser_finds_it_and_hears_when_it_goes() {
        let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let daemon = || {
            let daemon = ServiceDaemon::new_with_port(port).unwrap();
            daemon.disable_interface(IfKind::All).unwrap();
            daemon.enable_interface(IfKind::LoopbackV4).unwrap();
            daemon
        };
        let browser = daemon();
        let events = browser.browse("_mqtt._tcp.local.").unwrap();
        let service = Service {
            kind: "_mqtt._tcp.local.",
            name: "atelier".to_owned(),
            port: 1884,
            only: Some([127, 0, 0, 1].into()),
            is_v4: true,
        };
        let announcer = Announcer::with(daemon(), &[service], "vigie-test.local.").unwrap();
        let next = |wanted: fn(&ServiceEvent) -> bool| {
            let events = events.clone();
            tokio::task::spawn_blocking(move || {
                let until = std::time::Instant::now() + DEADLINE;
                loop {
                    let event = events.recv_deadline(until).expect("the event does not come");
                    if wanted(&event) {
                        return event;
                    }
                }
            })
        };
        let ServiceEvent::ServiceResolved(found) =
            next(|event| matches!(event, ServiceEvent::ServiceResolved(_))).await.unwrap()
        else {
            unreachable!("it was asked for")
        };
        assert_eq!(found.get_fullname(), "atelier._mqtt._tcp.local.");
        assert_eq!((found.get_hostname(), found.get_port()), ("vigie-test.local.", 1884));
        let addresses: BTreeSet<String> = found.get_addresses().iter().map(|ip| ip.to_ip_addr().to_string()).collect();
        assert_eq!(addresses, BTreeSet::from(["127.0.0.1".to_owned()]));
        announcer.stop().await;
        next(|event| matches!(event, ServiceEvent::ServiceRemoved(..))).await.unwrap();
        let _ = browser.shutdown();
    }
}
