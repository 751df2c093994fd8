//! The broker's thread: rmqtt, its settings, its start and its end.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::hook::{Handler, HookResult, Parameter, ReturnType, Type};
use rmqtt::net::{Builder, Listener};
use rmqtt::router::DefaultRouter;
use rmqtt::server::MqttServer;
use rmqtt::shared::DefaultShared;
use tokio::net::TcpSocket;
use tokio::sync::{oneshot, watch};

use super::retained::{Retained, Store};
use super::{BrokerError, PortOwner};

/// Threads of the task queues are tasks in truth; with a handful of clients more of them wait for nothing.
const TASK_WORKERS: usize = 16;
/// Jobs that may wait for these.
const TASK_QUEUE: usize = 1024;

/// What outlives a restart of the broker within the process.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) retained: Arc<Retained>,
    dropped: AtomicU64,
}

impl Shared {
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

/// The broker's thread, from outside.
#[derive(Debug)]
pub(super) struct Server {
    address: SocketAddr,
    /// Sending, or dropping it, asks the thread to end.
    stop: Option<oneshot::Sender<()>>,
    /// Why the thread has ended.
    end: watch::Receiver<Option<String>>,
}

impl Server {
    /// Starts the thread and waits until it listens on the first of the addresses that is free.
    pub(super) async fn spawn(candidates: Vec<SocketAddr>, shared: Arc<Shared>) -> Result<Self, BrokerError> {
        let (stop, stopped) = oneshot::channel();
        let (listening, bound) = oneshot::channel();
        let (ended, end) = watch::channel(None);
        std::thread::Builder::new().name("broker".to_owned()).spawn(move || {
            let run = AssertUnwindSafe(|| run(&candidates, &shared, listening, stopped));
            let why = match catch_unwind(run) {
                Ok(Ok(())) => "it was stopped".to_owned(),
                Ok(Err(why)) => why,
                Err(_) => "it panicked".to_owned(),
            };
            ended.send_replace(Some(why));
        })?;
        match bound.await {
            Ok(address) => Ok(Self { address: address?, stop: Some(stop), end }),
            Err(_) => Err(BrokerError::Ended(why(end).await)),
        }
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
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
    candidates: &[SocketAddr],
    shared: &Arc<Shared>,
    listening: oneshot::Sender<Result<SocketAddr, BrokerError>>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), String> {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = listening.send(Err(error.into()));
            return Ok(());
        }
    };
    let mut context = None;
    let end = runtime.block_on(async {
        let (listener, address) = match first_free(candidates) {
            Ok(bound) => bound,
            Err(error) => {
                let _ = listening.send(Err(error));
                return Ok(());
            }
        };
        let scx = context.insert(make_context(shared).await).clone();
        let server = MqttServer::new(scx).listener_by_id(listener, address.port()).build();
        let _ = listening.send(Ok(address));
        tokio::select! {
            end = server.run() => Err(match end {
                Ok(()) => "it stopped listening".to_owned(),
                Err(error) => format!("{error:#}"),
            }),
            _ = stopped => Ok(()),
        }
    });
    // A session spawns a task when it is dropped, and panics where there is no runtime; an ended one will do.
    let handle = runtime.handle().clone();
    runtime.shutdown_background();
    let _entered = handle.enter();
    if let Some(context) = context {
        break_cycles(&context);
    }
    end
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

async fn make_context(shared: &Arc<Shared>) -> ServerContext {
    let context = ServerContext::new()
        // It would look at the machine's load every other second, to turn clients away from a busy one.
        .busy_check_enable(false)
        .task_exec_workers(TASK_WORKERS)
        .task_exec_queue_max(TASK_QUEUE)
        .mqtt_max_sessions(isize::try_from(super::MAX_SESSIONS).expect("a small number"))
        .build()
        .await;
    *context.extends.retain_mut().await = Box::new(Store(Arc::clone(&shared.retained)));
    let hooks = context.extends.hook_mgr().register();
    hooks.add(Type::MessageDropped, Box::new(CountDropped(Arc::clone(shared)))).await;
    hooks.start().await;
    context
}

struct CountDropped(Arc<Shared>);

#[async_trait]
impl Handler for CountDropped {
    async fn hook(&self, _: &Parameter, result: Option<HookResult>) -> ReturnType {
        self.0.dropped.fetch_add(1, Ordering::Relaxed);
        (true, result)
    }
}

/// Listens on the first of the addresses that nobody holds.
fn first_free(candidates: &[SocketAddr]) -> Result<(Listener, SocketAddr), BrokerError> {
    for address in candidates {
        match listen(*address) {
            Ok(bound) => return Ok(bound),
            Err(why) if why.kind() != std::io::ErrorKind::AddrInUse => {
                return Err(BrokerError::Listen { address: *address, why });
            }
            Err(_) => {}
        }
    }
    Err(match candidates {
        [address] => BrokerError::InUse { address: *address, owner: PortOwner::of(*address) },
        _ => {
            let first = candidates.first().expect("there is an address to listen on");
            let last = candidates.last().expect("as above");
            BrokerError::NoneFree { from: *first, last: last.port() }
        }
    })
}

fn listen(address: SocketAddr) -> std::io::Result<(Listener, SocketAddr)> {
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
        .allow_anonymous(true)
        .allow_zero_keepalive(true)
        // No lower limit of the keep-alive than the protocol's: rmqtt refuses 3.1.1 clients that ask for more.
        .max_keepalive(u16::MAX)
        .max_packet_size(super::MAX_PACKET_BYTES)
        .max_inflight(NonZeroU16::new(super::MAX_IN_FLIGHT).expect("it is not 0"))
        .max_mqueue_len(super::MAX_QUEUED)
        .max_connections(super::MAX_SESSIONS.into())
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
