//! The broker's thread: rmqtt, its settings, its start and its end.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use rmqtt::context::ServerContext;
use rmqtt::net::{Builder, Listener};
use rmqtt::router::DefaultRouter;
use rmqtt::server::MqttServer;
use rmqtt::shared::DefaultShared;
use rmqtt::types::{ListenerId, NodeId};
use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::fitter::Fitters;
use super::forward::Forwarder;
use super::groups::Groups;
use super::listeners::{Bound, INNER};
use super::peers::Peers;
use super::retained::Store;
use super::shared::Shared;
use super::{BrokerError, hooks, restore};
use crate::config::{BrokerLimits, BrokerListener};

/// Threads of the task queues are tasks in truth; with a handful of clients more of them wait for nothing.
const TASK_WORKERS: usize = 16;
/// Jobs that may wait for these.
const TASK_QUEUE: usize = 1024;
/// Threads that may wait: one flush, one password.
const BLOCKING_THREADS: usize = 2;
/// How long such a thread is kept for the next one.
const THREAD_KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(2);
/// What the broker crate calls this machine; there is no other.
pub(super) const NODE: NodeId = 1;
/// ...and its only listener.
pub(super) const LISTENER: ListenerId = 1;

/// Where a broker listens.
#[derive(Clone, Debug)]
pub(super) struct Addresses {
    /// Its own listener, which is the gateway's.
    pub(super) inner: SocketAddr,
    /// The configured ones, in their order.
    pub(super) outer: Vec<SocketAddr>,
}

/// The broker's thread, from outside.
#[derive(Debug)]
pub(super) struct Server {
    addresses: Addresses,
    /// Sending, or dropping it, asks the thread to end.
    stop: Option<oneshot::Sender<()>>,
    /// Why the thread has ended.
    end: watch::Receiver<Option<String>>,
}

impl Server {
    /// Starts the thread and waits until it listens everywhere. `inner` is the port of the broker's own listener, where
    /// it had one before.
    pub(super) async fn spawn(
        listeners: Vec<BrokerListener>,
        inner: Option<SocketAddr>,
        shared: Arc<Shared>,
    ) -> Result<Self, BrokerError> {
        let (stop, stopped) = oneshot::channel();
        let (listening, bound) = oneshot::channel();
        let (ended, end) = watch::channel(None);
        let deadline = deadline(&shared);
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            let run = AssertUnwindSafe(|| run(&listeners, inner, &shared, listening, stopped));
            let why = match catch_unwind(run) {
                Ok(Ok(())) => "it was stopped".to_owned(),
                Ok(Err(why)) => why,
                Err(_) => "it panicked".to_owned(),
            };
            // Freed before anybody hears of the end.
            drop(shared);
            ended.send_replace(Some(why));
        })?;
        match tokio::time::timeout(deadline, bound).await {
            Ok(Ok(addresses)) => Ok(Self { addresses: addresses?, stop: Some(stop), end }),
            Ok(Err(_)) => Err(BrokerError::Ended(why(end).await)),
            Err(_) => {
                // It may only wait for something; then it ends now, and leaves the ports free for the next start.
                drop(stop);
                let _ = tokio::time::timeout(super::STOP_DEADLINE, why(end)).await;
                Err(BrokerError::Late)
            }
        }
    }

    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(super) async fn ended(&self) -> String {
        why(self.end.clone()).await
    }

    pub(super) async fn stop(&mut self) -> Result<(), BrokerError> {
        drop(self.stop.take());
        tokio::time::timeout(super::STOP_DEADLINE, self.ended()).await.map_err(|_| BrokerError::Stuck)?;
        Ok(())
    }
}

async fn why(mut end: watch::Receiver<Option<String>>) -> String {
    match end.wait_for(Option::is_some).await {
        Ok(why) => why.clone().unwrap_or_default(),
        // The thread is gone without a word.
        Err(_) => "its thread ended".to_owned(),
    }
}

/// The thread's work, until it is told to stop. Its runtime has the one thread, so that dropping it drops every
/// connection's task and with it the connection.
fn run(
    listeners: &[BrokerListener],
    inner: Option<SocketAddr>,
    shared: &Arc<Shared>,
    listening: oneshot::Sender<Result<Addresses, BrokerError>>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_keep_alive(THREAD_KEEP_ALIVE)
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = listening.send(Err(error.into()));
            return Ok(());
        }
    };
    let mut context = None;
    let end = runtime.block_on(async {
        let (stop_flusher, flusher_stop) = oneshot::channel();
        let flushed = Arc::clone(shared);
        let flusher = tokio::spawn(async move { flushed.flush(flusher_stop).await });
        let end = tokio::select! {
            end = serve(listeners, inner, shared, listening, &mut context) => end,
            _ = stopped => Ok(()),
        };
        drop(stop_flusher);
        let _ = flusher.await;
        end
    });
    // A session spawns a task when it is dropped, and panics where there is no runtime; an ended one will do.
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    if let Some(context) = context {
        break_cycles(&context);
    }
    shared.flush_all();
    shared.watch.write_last();
    if end.is_ok() {
        shared.store().close();
    }
    end
}

/// Listens and serves until something ends that should not.
async fn serve(
    listeners: &[BrokerListener],
    inner: Option<SocketAddr>,
    shared: &Arc<Shared>,
    listening: oneshot::Sender<Result<Addresses, BrokerError>>,
    context: &mut Option<ServerContext>,
) -> Result<(), String> {
    let (outer, own, addresses) = match bind(listeners, inner, shared) {
        Ok(bound) => bound,
        Err(error) => {
            let _ = listening.send(Err(error));
            return Ok(());
        }
    };
    #[cfg(test)]
    shared.faults.at_start().await;
    let peers = Arc::new(Peers::default());
    let scx = context.insert(make_context(shared, &peers).await).clone();
    shared.forget_clients();
    restore::sessions(&scx, &own.cfg, shared).await;
    let server = MqttServer::new(scx.clone()).listener_by_id(own, LISTENER).build();
    // Tasks that never end; whichever does takes the broker with it.
    let mut doors = JoinSet::new();
    for bound in outer {
        doors.spawn(bound.run(addresses.inner, Arc::clone(shared), Arc::clone(&peers)));
    }
    let _ = listening.send(Ok(addresses));
    tokio::select! {
        end = server.run() => Err(match end {
            Ok(()) => "it stopped listening".to_owned(),
            Err(error) => format!("{error:#}"),
        }),
        Some(end) = doors.join_next() => Err(format!("a listener ended: {end:?}")),
        () = super::sys::run(&scx, shared, shared.config.sys_interval) => Err("it says nothing more".to_owned()),
        () = shared.watch.run(&shared.notices) => Err("it watches no more".to_owned()),
        () = faults(shared) => Err("a test wanted it".to_owned()),
    }
}

/// Until when a start must be done.
#[cfg(test)]
fn deadline(shared: &Shared) -> std::time::Duration {
    shared.faults.start_deadline(super::START_DEADLINE)
}

#[cfg(not(test))]
fn deadline(_: &Shared) -> std::time::Duration {
    super::START_DEADLINE
}

/// What tests bring about.
#[cfg(test)]
async fn faults(shared: &Shared) {
    shared.faults.at_work().await;
}

#[cfg(not(test))]
async fn faults(_: &Shared) {
    std::future::pending::<()>().await;
}

type AllBound = (Vec<Bound>, Listener, Addresses);

fn bind(listeners: &[BrokerListener], inner: Option<SocketAddr>, shared: &Shared) -> Result<AllBound, BrokerError> {
    let users = shared.config.users.is_some();
    let outer = listeners.iter().map(|listener| Bound::bind(listener, users)).collect::<Result<Vec<_>, _>>()?;
    // Somebody else may have taken it meanwhile; the gateway's uplink finds the broker only there.
    let wanted = inner.unwrap_or(INNER.into());
    let (own, inner) =
        listen(wanted, &shared.config.limits).map_err(|why| BrokerError::Listen { address: wanted, why })?;
    let addresses = Addresses { inner, outer: outer.iter().map(Bound::address).collect() };
    Ok((outer, own, addresses))
}

/// rmqtt's context and its parts hold each other; without this nothing of a stopped broker would ever be freed.
fn break_cycles(context: &ServerContext) {
    if let Ok(mut shared) = context.extends.shared.try_write() {
        *shared = Box::new(DefaultShared::new(None));
    }
    if let Ok(mut router) = context.extends.router.try_write() {
        *router = Box::new(DefaultRouter::new(None));
    }
}

async fn make_context(shared: &Arc<Shared>, peers: &Arc<Peers>) -> ServerContext {
    let context = ServerContext::new()
        // It would look at the machine's load every other second, to turn clients away from a busy one.
        .busy_check_enable(false)
        .task_exec_workers(TASK_WORKERS)
        .task_exec_queue_max(TASK_QUEUE)
        .mqtt_max_sessions(isize::try_from(super::MAX_SESSIONS).expect("a small number"))
        .build()
        .await;
    *context.extends.fitter_mgr_mut().await = Box::new(Fitters { keep_alive: shared.config.limits.keep_alive });
    *context.extends.shared_subscription_mut().await = Box::new(Groups::default());
    *context.extends.retain_mut().await = Box::new(Store(Arc::clone(shared)));
    *context.extends.shared_mut().await = Box::new(Forwarder::new(context.clone(), Arc::clone(shared)));
    hooks::register(&*context.extends.hook_mgr().register(), shared, peers).await;
    context
}

fn listen(address: SocketAddr, limits: &BrokerLimits) -> std::io::Result<(Listener, SocketAddr)> {
    // rmqtt does not tell which port the system chose for 0. A bound socket that does not listen keeps the chosen port
    // from everybody but another one with SO_REUSEADDR, which is ours.
    let reserved = if address.port() == 0 { Some(reserve(address)?) } else { None };
    let address = reserved.as_ref().map_or(Ok(address), TcpSocket::local_addr)?;
    Builder::new()
        .name("tcp")
        .laddr(address)
        // Connections of a broker that was killed keep the port for a minute otherwise (TIME_WAIT).
        .reuseaddr(Some(true))
        .backlog(super::MAX_SESSIONS.into())
        .nodelay(true)
        // Nobody passes without the hook's consent.
        .allow_anonymous(false)
        .allow_zero_keepalive(true)
        // No lower limit of the keep-alive than the protocol's: rmqtt refuses 3.1.1 clients that ask for more.
        .max_keepalive(u16::MAX)
        .max_packet_size(limits.packet)
        .max_inflight(NonZeroU16::new(super::MAX_IN_FLIGHT).expect("it is not 0"))
        // The bound of what waits is in `clients.rs`; a subscription to everything gets all that is retained.
        .max_mqueue_len(limits.queue.saturating_add(limits.retained))
        .max_subscriptions(limits.subscriptions)
        .max_handshaking_limit(super::MAX_HANDSHAKES)
        .handshake_timeout(super::HANDSHAKE_TIMEOUT)
        .max_clientid_len(super::MAX_CLIENT_ID_BYTES)
        .max_topic_levels(super::MAX_TOPIC_LEVELS)
        .max_topic_aliases(super::MAX_TOPIC_ALIASES)
        .session_expiry_interval(super::SESSION_EXPIRY)
        .max_session_expiry_interval(super::SESSION_EXPIRY)
        // Messages expire when their publisher says so, and are sent again on reconnection, not within a connection
        // (MQTT 5, 3.3.2.3.3 and 4.4).
        .message_expiry_interval(std::time::Duration::ZERO)
        .message_retry_interval(std::time::Duration::ZERO)
        .bind()
        .and_then(Listener::tcp)
        .map(|listener| (listener, address))
        .map_err(|error| error.downcast::<std::io::Error>().unwrap_or_else(std::io::Error::other))
}

fn reserve(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
