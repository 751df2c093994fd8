//! Where what is asked for comes from: a running agent, or the files that it left.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::Failure;
use crate::agent::{self, places};
use crate::clock::{BootId, Clock, SystemClock};
use crate::config::Config;
use crate::control::client::Client;
use crate::control::desk::{Drops, Newest, Rows};
use crate::control::status::{self, About, Status};
use crate::control::{self, Answer, Dropped, Request, Which};
use crate::export::Row;
use crate::outbox::{OpenError, Outbox};
use crate::uplink::dating::Dating;

/// Where what is asked for comes from.
pub(super) enum Source {
    /// A running agent.
    Agent(Client),
    /// The files, while no agent runs.
    Files(Box<Files>),
}

/// An outbox that no agent has.
pub(super) struct Files {
    outbox: Outbox,
    dating: Dating,
    about: About,
}

/// Hands rows over; gives `false` when nobody takes them any more.
pub(super) type Take<'a> = dyn FnMut(Row) -> Result<bool, Failure> + 'a;

impl Source {
    /// Finds the agent, or else looks at the files without changing anything.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        if let Some(client) = find_agent(config)? {
            return Ok(Self::Agent(client));
        }
        Ok(Self::Files(Box::new(Files::open(config, Outbox::inspect)?)))
    }

    /// Finds the agent, or else takes the outbox for itself, to change it.
    pub(super) fn take(config: &Config) -> Result<Self, Failure> {
        if let Some(client) = find_agent(config)? {
            return Ok(Self::Agent(client));
        }
        check_owner(&config.outbox.path)?;
        Ok(Self::Files(Box::new(Files::open(config, Outbox::open)?)))
    }

    pub(super) fn status(&mut self) -> Result<Status, Failure> {
        match self {
            Self::Files(files) => Ok(status::of_files(&mut files.outbox, &files.about, &files.dating)),
            Self::Agent(client) => match ask(client, &Request::Status {})? {
                Answer::Status(status) => Ok(*status),
                other => Err(unexpected(&other)),
            },
        }
    }

    /// The newest rows, the newest last.
    pub(super) fn show(&mut self, which: Which, limit: usize, take: &mut Take<'_>) -> Result<bool, Failure> {
        match self {
            Self::Agent(client) => receive(client, &Request::Show { which, limit }, take),
            Self::Files(files) => {
                let Files { outbox, dating, about } = &mut **files;
                let mut newest = Newest::new(outbox, about, which, limit).map_err(Failure::failed)?;
                while newest.step(outbox, dating) {}
                let (rows, unreadable) = newest.finish(outbox);
                for row in rows {
                    if !take(row)? {
                        break;
                    }
                }
                Ok(unreadable)
            }
        }
    }

    /// All rows.
    pub(super) fn export(&mut self, which: Which, take: &mut Take<'_>) -> Result<bool, Failure> {
        match self {
            Self::Agent(client) => receive(client, &Request::Export { which }, take),
            Self::Files(files) => {
                let Files { outbox, dating, about } = &mut **files;
                let mut rows = Rows::new(outbox, about, which).map_err(Failure::failed)?;
                let mut piece = Vec::new();
                while rows.step(outbox, dating, &mut piece) {
                    for row in piece.drain(..) {
                        if !take(row)? {
                            return Ok(false);
                        }
                    }
                }
                Ok(rows.unreadable(outbox))
            }
        }
    }

    /// Drops, or says how much it would be.
    pub(super) fn drop(
        &mut self,
        (uplink, sensor): (Option<String>, Option<String>),
        older_than: Option<Duration>,
        dry_run: bool,
    ) -> Result<Dropped, Failure> {
        match self {
            Self::Agent(client) => {
                let older_than = older_than.map(|age| age.as_secs());
                match ask(client, &Request::Drop { uplink, sensor, older_than, dry_run })? {
                    Answer::Dropped(dropped) => Ok(dropped),
                    other => Err(unexpected(&other)),
                }
            }
            Self::Files(files) => {
                let Files { outbox, dating, about } = &mut **files;
                // A person says what is old, by the clock that the person sees.
                let now = Some(crate::clock::WallTime::from_system(SystemTime::now()));
                let of = (uplink.as_deref(), sensor);
                let mut drops = Drops::new(outbox, about, of, older_than, now, dry_run).map_err(Failure::failed)?;
                while drops.step(outbox, dating).map_err(Failure::failed)? {}
                Ok(drops.dropped)
            }
        }
    }

    /// Ends; an outbox that was taken is closed in order.
    pub(super) fn close(self) -> Result<(), Failure> {
        match self {
            Self::Agent(_) => Ok(()),
            Self::Files(files) => {
                let now = SystemClock::new(crate::clock::Trust::default()).boot();
                files
                    .outbox
                    .close(now)
                    .map_err(|error| Failure::failed(format!("the outbox cannot be written: {error}")))
            }
        }
    }
}

/// Opens an outbox, to look at it or to change it.
type Open =
    fn(crate::outbox::Settings, BootId, crate::clock::BootTime) -> Result<(Outbox, crate::outbox::Recovery), OpenError>;

impl Files {
    fn open(config: &Config, open: Open) -> Result<Self, Failure> {
        let path = &config.outbox.path;
        match path.metadata() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::failed(format!(
                    "there is no outbox in {}: no agent has run with this configuration yet",
                    path.display()
                )));
            }
            Err(error) => return Err(Failure::failed(refused(path, &error))),
        }
        let boot = BootId::current().ok_or_else(|| Failure::failed("/proc is not mounted"))?;
        let settings = agent::outbox_settings_at(config, tail_dir(config));
        let about = About::new(config, settings.clone());
        let now = SystemClock::new(config.trust).boot();
        let (mut outbox, _) = open(settings, boot, now).map_err(|error| match error {
            OpenError::Locked { folder } => Failure::failed(format!(
                "the outbox in {} is in use, and its process does not answer: it has no control socket in any of {} \
                 (another version of vigie, or another `tail` in [outbox]?)",
                folder.display(),
                listed(&places::possible(config.outbox.tail.as_deref(), path)),
            )),
            OpenError::Io { ref error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Failure::failed(refused(path, error))
            }
            other => Failure::failed(other),
        })?;
        outbox.retain_cursors(&agent::cursors(config));
        let dating = Dating::of(&outbox);
        Ok(Self { outbox, dating, about })
    }
}

/// Where the tail of an outbox is that no agent has; where there is none, where an agent would make it.
fn tail_dir(config: &Config) -> PathBuf {
    let path = &config.outbox.path;
    let configured = config.outbox.tail.as_deref();
    let has_tail = |dir: &PathBuf| {
        let folder = Outbox::tail_folder(dir, path);
        let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
        names.into_iter().any(|name| name.as_encoded_bytes().starts_with(b"tail-"))
    };
    let found = places::possible(configured, path).into_iter().find(has_tail);
    found.unwrap_or_else(|| places::tail(configured, path).dir)
}

/// Connects to the agent that runs on this outbox; `None`: none does.
pub(in crate::cli) fn find_agent(config: &Config) -> Result<Option<Client>, Failure> {
    let path = &config.outbox.path;
    let mut denied = None;
    for dir in places::possible(config.outbox.tail.as_deref(), path) {
        let socket = control::socket(&dir, path);
        match Client::connect(&socket) {
            Ok(client) => return Ok(Some(client)),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => denied = denied.or(Some(socket)),
            // No agent, or one that died.
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {}
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => {}
            Err(error) => return Err(Failure::failed(format!("cannot connect to {}: {error}", socket.display()))),
        }
    }
    match denied {
        Some(socket) => Err(Failure::failed(denied_socket(&socket))),
        None => Ok(None),
    }
}

fn denied_socket(socket: &Path) -> String {
    // The socket where it can be seen, else the folder that hides it.
    let shown = [Some(socket), socket.parent()];
    let group = shown.into_iter().flatten().find_map(|path| rustix::fs::stat(path).ok()).map(|stat| stat.st_gid);
    let group = group.map_or_else(|| "its owner's".to_owned(), |gid| format!("`{}`", group_name(gid)));
    format!(
        "no rights on the agent's control socket {}: it is open to its owner and to the group {group}; join that group \
         (sudo adduser $USER GROUP, then log in again), or use sudo",
        socket.display()
    )
}

/// A group's name, else its number.
fn group_name(gid: u32) -> String {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}

/// Files that another user makes in an outbox would lock its agent out.
fn check_owner(path: &Path) -> Result<(), Failure> {
    let Ok(stat) = rustix::fs::stat(path) else { return Ok(()) };
    if stat.st_uid == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "the outbox in {} belongs to another user, and no agent runs that could do it: start the agent, or run this as \
         that user (sudo -u '#{}' vigie outbox drop …)",
        path.display(),
        stat.st_uid
    )))
}

fn refused(path: &Path, error: &io::Error) -> String {
    format!(
        "the outbox in {} cannot be read ({error}): no agent runs that could be asked, and its files are for their \
         owner alone; use sudo",
        path.display()
    )
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

/// Asks for something that has one answer.
pub(in crate::cli) fn ask(client: &mut Client, request: &Request) -> Result<Answer, Failure> {
    client.ask(request).map_err(Failure::failed)?;
    match client.answer().map_err(Failure::failed)? {
        Answer::Error(why) => Err(Failure::failed(why)),
        other => Ok(other),
    }
}

/// Takes rows until the agent says that these were all; `true`: some cannot be read at the moment.
fn receive(client: &mut Client, request: &Request, take: &mut Take<'_>) -> Result<bool, Failure> {
    let mut answer = ask(client, request)?;
    loop {
        match answer {
            Answer::Row(row) => {
                if !take(*row)? {
                    return Ok(false);
                }
            }
            Answer::Done { unreadable } => return Ok(unreadable),
            Answer::Error(why) => return Err(Failure::failed(why)),
            other => return Err(unexpected(&other)),
        }
        answer = client.answer().map_err(Failure::failed)?;
    }
}

/// An answer to something else.
pub(in crate::cli) fn unexpected(answer: &Answer) -> Failure {
    let kind = match answer {
        Answer::Row(_) => "a row",
        Answer::Status(_) => "its status",
        Answer::Dropped(_) => "a count",
        Answer::Pauses(_) => "its pauses",
        Answer::Clock(_) => "its clock",
        Answer::Reloaded(_) => "a reload",
        Answer::Done { .. } => "an end",
        Answer::Error(why) => why,
    };
    Failure::failed(format!("the agent answered with {kind}, which was not asked for: is it of another version?"))
}
