//! The agent's end of the socket.

use std::cell::RefCell;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedWriteHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::desk::{Drops, Newest, Rows};
use super::reload::Reloaded;
use super::status::{self, About};
use super::{Answer, MAX_CLIENTS, MAX_REQUEST, PATIENCE, Pause, Request, Which, pauses};
use crate::logging::AUDIT;
use crate::sampler::remote::Remotes;
use crate::uplink::Hub;

/// Answers are written when there are so many bytes of them.
const PIECE: usize = 32 * 1024;

/// Between two attempts to take a client, where the system has no descriptor for it.
const PAUSE: Duration = Duration::from_secs(1);

/// The socket, and what its requests are about.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    desk: Rc<Desk>,
}

struct Desk {
    hub: Rc<Hub>,
    about: Rc<RefCell<About>>,
    remotes: Rc<Remotes>,
    reloads: Reloads,
}

/// To whoever reloads the configuration; each request is told what came of it.
pub type Reloads = mpsc::Sender<oneshot::Sender<Reloaded>>;

impl Server {
    /// Makes the socket. One that is there is a dead agent's: ours is the outbox's lock.
    ///
    /// # Errors
    /// It cannot be made there.
    pub fn bind(
        path: &Path,
        hub: Rc<Hub>,
        about: Rc<RefCell<About>>,
        remotes: Rc<Remotes>,
        reloads: Reloads,
    ) -> io::Result<Self> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o660))?;
        Ok(Self { listener, path: path.to_owned(), desk: Rc::new(Desk { hub, about, remotes, reloads }) })
    }

    /// Serves until `stop`; the socket is gone afterwards, and every client.
    pub async fn run(self, mut stop: watch::Receiver<bool>) {
        let mut clients = JoinSet::new();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(_) = clients.join_next() => {}
                taken = self.listener.accept() => match taken {
                    Ok((stream, _)) if clients.len() < MAX_CLIENTS => {
                        clients.spawn_local(serve(stream, Rc::clone(&self.desk)));
                    }
                    Ok((stream, _)) => {
                        let busy = Answer::Error(format!("{MAX_CLIENTS} others are being served: try again later"));
                        // It fits into the socket's buffer, or nobody reads.
                        let _ = stream.try_write(&line(&busy));
                    }
                    Err(error) => {
                        tracing::debug!("control socket: {error}");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            }
        }
        clients.shutdown().await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn line(answer: &Answer) -> Vec<u8> {
    let mut line = serde_json::to_vec(answer).unwrap_or_else(|error| {
        let error = Answer::Error(format!("the answer has no form in JSON: {error}"));
        serde_json::to_vec(&error).expect("a text has a form in JSON")
    });
    line.push(b'\n');
    line
}

/// Serves a client until it goes, or takes too long.
async fn serve(stream: UnixStream, desk: Rc<Desk>) {
    let user = stream.peer_cred().ok().map(|peer| peer.uid());
    let (read, write) = stream.into_split();
    let mut read = BufReader::new(read);
    let mut answers = Answers { write, buffer: Vec::new() };
    loop {
        let mut request = Vec::new();
        let mut bounded = (&mut read).take(MAX_REQUEST as u64);
        let Ok(Ok(1..)) = timeout(PATIENCE, bounded.read_until(b'\n', &mut request)).await else { return };
        let whole = request.ends_with(b"\n");
        let result = match serde_json::from_slice(&request) {
            _ if !whole => {
                answers.put(&Answer::Error(format!("a request is a line of less than {MAX_REQUEST} bytes"))).await
            }
            Ok(request) => {
                audit(&request, user);
                desk.answer(request, &mut answers).await
            }
            Err(error) => answers.put(&Answer::Error(format!("this is no request: {error}"))).await,
        };
        if result.is_err() || answers.flush().await.is_err() || !whole {
            return;
        }
    }
}

/// Notes who asks for what changes something.
fn audit(request: &Request, user: Option<u32>) {
    let (what, sensor, uplink) = match request {
        Request::Drop { dry_run: false, uplink, sensor, .. } => ("drop", sensor.as_deref(), uplink.as_deref()),
        Request::Pause { sensor, .. } => ("pause", Some(sensor.as_str()), None),
        Request::Resume { sensor } => ("resume", Some(sensor.as_str()), None),
        Request::SetClock { .. } => ("set-clock", None, None),
        Request::Reload {} => ("reload", None, None),
        Request::BackedUp { secrets: false } => ("backup", None, None),
        Request::BackedUp { secrets: true } => ("backup-with-secrets", None, None),
        Request::Drop { dry_run: true, .. }
        | Request::Status {}
        | Request::Show { .. }
        | Request::Export { .. }
        | Request::Pauses {}
        | Request::Clock {} => return,
    };
    tracing::info!(target: AUDIT, audit = "request", request = what, user, sensor, uplink, "asked for on the command line");
}

/// Answers on their way to a client.
struct Answers {
    write: OwnedWriteHalf,
    buffer: Vec<u8>,
}

impl Answers {
    async fn put(&mut self, answer: &Answer) -> io::Result<()> {
        self.buffer.append(&mut line(answer));
        if self.buffer.len() >= PIECE { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> io::Result<()> {
        timeout(PATIENCE, self.write.write_all(&self.buffer)).await??;
        self.buffer.clear();
        self.buffer.shrink_to(PIECE);
        Ok(())
    }
}

/// A handler each request. None may hold a borrow of the outbox across an await, and each does a bounded piece of work
/// between two.
impl Desk {
    async fn answer(&self, request: Request, answers: &mut Answers) -> io::Result<()> {
        let refused = match request {
            Request::Status {} => {
                let status = status::of_agent(&self.hub, &self.about.borrow());
                answers.put(&Answer::Status(Box::new(status))).await.map(Ok)
            }
            Request::Show { which, limit } => self.show(which, limit, answers).await,
            Request::Export { which } => self.export(which, answers).await,
            Request::Drop { uplink, sensor, older_than, dry_run } => {
                let older_than = older_than.map(Duration::from_secs);
                self.drop((uplink.as_deref(), sensor), older_than, dry_run, answers).await
            }
            Request::Pauses {} => Self::said(Ok(pauses::all(&self.remotes, &*self.hub.clock)), answers).await,
            Request::Pause { sensor, seconds } => {
                let time = Duration::from_secs(seconds);
                Self::said(pauses::begin(&self.remotes, &sensor, time, &*self.hub.clock).await, answers).await
            }
            Request::Resume { sensor } => {
                Self::said(pauses::end(&self.remotes, &sensor, &*self.hub.clock), answers).await
            }
            Request::Reload {} => self.reload(answers).await,
            // It is noted before it is answered, as each that matters to an auditor.
            Request::BackedUp { .. } => answers.put(&Answer::Done { unreadable: false }).await.map(Ok),
            Request::Clock {} => answers.put(&Answer::Clock(self.hub.clock_status())).await.map(Ok),
            Request::SetClock { at, time } => match self.hub.set_clock(at, time) {
                Ok(()) => {
                    tracing::info!(target: AUDIT, audit = "clock", "the clock was set by hand");
                    answers.put(&Answer::Clock(self.hub.clock_status())).await.map(Ok)
                }
                Err(why) => {
                    tracing::warn!(target: AUDIT, audit = "clock", "the clock was not set by hand: {why}");
                    Ok(Err(why))
                }
            },
        }?;
        match refused {
            Ok(()) => Ok(()),
            Err(why) => answers.put(&Answer::Error(why)).await,
        }
    }

    async fn said(pauses: Result<Vec<Pause>, String>, answers: &mut Answers) -> io::Result<Result<(), String>> {
        match pauses {
            Ok(pauses) => answers.put(&Answer::Pauses(pauses)).await.map(Ok),
            Err(why) => Ok(Err(why)),
        }
    }

    async fn reload(&self, answers: &mut Answers) -> io::Result<Result<(), String>> {
        let (done, told) = oneshot::channel();
        if self.reloads.try_send(done).is_err() {
            return Ok(Err("another reload is under way: try again when it is done".to_owned()));
        }
        match told.await {
            Ok(reloaded) => answers.put(&Answer::Reloaded(reloaded)).await.map(Ok),
            Err(_) => Ok(Err("the agent ends".to_owned())),
        }
    }

    async fn show(&self, which: Which, limit: usize, answers: &mut Answers) -> io::Result<Result<(), String>> {
        let begun = Newest::new(&mut self.hub.outbox.borrow_mut(), &self.about.borrow(), which, limit);
        let mut newest = match begun {
            Ok(newest) => newest,
            Err(why) => return Ok(Err(why)),
        };
        while newest.step(&mut self.hub.outbox.borrow_mut(), &self.hub.dating()) {
            tokio::task::yield_now().await;
        }
        let (rows, unreadable) = newest.finish(&self.hub.outbox.borrow());
        for row in rows {
            answers.put(&Answer::Row(Box::new(row))).await?;
        }
        answers.put(&Answer::Done { unreadable }).await.map(Ok)
    }

    async fn export(&self, which: Which, answers: &mut Answers) -> io::Result<Result<(), String>> {
        let begun = Rows::new(&mut self.hub.outbox.borrow_mut(), &self.about.borrow(), which);
        let mut rows = match begun {
            Ok(rows) => rows,
            Err(why) => return Ok(Err(why)),
        };
        let mut piece = Vec::new();
        while rows.step(&mut self.hub.outbox.borrow_mut(), &self.hub.dating(), &mut piece) {
            for row in piece.drain(..) {
                answers.put(&Answer::Row(Box::new(row))).await?;
            }
            tokio::task::yield_now().await;
        }
        let unreadable = rows.unreadable(&self.hub.outbox.borrow());
        answers.put(&Answer::Done { unreadable }).await.map(Ok)
    }

    async fn drop(
        &self,
        of: (Option<&str>, Option<String>),
        older_than: Option<Duration>,
        dry_run: bool,
        answers: &mut Answers,
    ) -> io::Result<Result<(), String>> {
        let now = self.hub.now();
        let begun = {
            let (outbox, about) = (&mut *self.hub.outbox.borrow_mut(), self.about.borrow());
            Drops::new(outbox, &about, of, older_than, now, dry_run)
        };
        let mut drops = match begun {
            Ok(drops) => drops,
            Err(why) => return Ok(Err(why)),
        };
        loop {
            let more = {
                let outbox = &mut *self.hub.outbox.borrow_mut();
                let more = drops.step(outbox, &self.hub.dating());
                if !dry_run {
                    outbox.commit(self.hub.clock.boot());
                }
                more
            };
            match more {
                Ok(true) => tokio::task::yield_now().await,
                Ok(false) => return answers.put(&Answer::Dropped(drops.dropped)).await.map(Ok),
                Err(why) => return Ok(Err(why)),
            }
        }
    }
}
