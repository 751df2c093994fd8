//! How it stands with an outbox.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::archive;
use crate::clock::BootTime;
use crate::config::{BrokerUrl, Config};
use crate::export;
use crate::outbox::{CursorId, Outbox, Settings};
use crate::uplink::Hub;
use crate::uplink::counters::Counters;
use crate::uplink::dating::{Date, Dating};

/// Tells how the embedded broker is.
#[derive(Clone)]
pub struct AskBroker(pub Rc<dyn Fn() -> BrokerStatus>);

impl fmt::Debug for AskBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("AskBroker").field(&(self.0)()).finish()
    }
}

/// What the configuration says about an outbox and its uplinks.
#[derive(Clone, Debug)]
pub struct About {
    /// The outbox.
    pub outbox: Settings,
    /// Each uplink's name and broker.
    pub uplinks: Vec<(String, String)>,
    /// Asked how the embedded broker is, where there is one.
    pub broker: Option<AskBroker>,
    /// The archive's folder, and how many bytes it may take; `None`: nothing is archived.
    pub archive: Option<(PathBuf, u64)>,
}

impl About {
    /// Takes it from a configuration; `outbox` is what the agent opens it with.
    #[must_use]
    pub fn new(config: &Config, outbox: Settings) -> Self {
        let urls = |urls: &[BrokerUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let uplinks = config.uplinks.iter().map(|uplink| (uplink.name.clone(), urls(&uplink.urls))).collect();
        let archive = config.archive.as_ref().map(|archive| (archive.path.clone(), archive.max));
        Self { outbox, uplinks, broker: None, archive }
    }

    /// Names of the uplinks.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.uplinks.iter().map(|(name, _)| name.as_str())
    }

    /// The cursors of all uplinks, or of one.
    ///
    /// # Errors
    /// There is no such uplink, in words.
    pub fn cursors(&self, outbox: &mut Outbox, uplink: Option<&str>) -> Result<Vec<CursorId>, String> {
        let names: Vec<&str> = self.names().collect();
        match uplink {
            None => Ok(names.iter().map(|name| outbox.cursor(name)).collect()),
            Some(name) if names.contains(&name) => Ok(vec![outbox.cursor(name)]),
            Some(name) => Err(format!("there is no uplink `{name}`; there are: {}", names.join(", "))),
        }
    }
}

/// The state of an outbox. Counts are in values: each quantity of a reading is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The agent's run, or the last one's.
    pub run: u32,
    /// Folder of the log.
    pub path: PathBuf,
    /// Folder of the tail.
    pub tail: PathBuf,
    /// Values that the slowest uplink has still to acknowledge.
    pub waiting: u64,
    /// Bytes of segments on disk.
    pub disk_bytes: u64,
    /// How many there may be, by the configuration.
    pub max_bytes: u64,
    /// How many there may be now: others leave so much of the disk free that this is less.
    pub limit_bytes: u64,
    /// Bytes of the tail.
    pub tail_bytes: u64,
    /// The uplinks.
    pub uplinks: Vec<UplinkStatus>,
    /// The archive, where there is one.
    pub archive: Option<ArchiveStatus>,
    /// The embedded broker of a running agent.
    #[serde(default)]
    pub broker: Option<BrokerStatus>,
    /// What only a running agent knows.
    pub agent: Option<AgentStatus>,
}

/// The embedded broker; counts are since the agent's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerStatus {
    /// Where it listens.
    pub listens: Vec<String>,
    /// Of these, listeners whose address no interface has at the moment.
    pub away: Vec<String>,
    /// How often it was restarted, because it ended or did not answer.
    pub restarts: u64,
    /// What is wrong with it now, as its watch sees it; `None`: it answers.
    pub trouble: Option<String>,
    /// Clients that are connected, without the gateway itself.
    pub connected: u64,
    /// Clients that are connected, or have a session that is kept.
    pub sessions: u64,
    /// Messages that are retained.
    pub retained: u64,
    /// Messages that wait for clients with a session.
    pub waiting: u64,
    /// Messages that were published, also by the gateway.
    pub received: u64,
    /// Messages that were sent to clients.
    pub delivered: u64,
    /// Messages of LAN clients that the outbox has taken.
    pub ingested: u64,
    /// What was refused or dropped, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Damaged files that were put aside.
    pub put_aside: u64,
}

/// The archive.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArchiveStatus {
    /// Its folder.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
    /// How many there may be.
    pub max_bytes: u64,
    /// Values that are not in it yet, delivered or not.
    pub waiting: u64,
}

/// What waits for an uplink.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UplinkStatus {
    /// Its name.
    pub name: String,
    /// Its broker.
    pub broker: String,
    /// Values that it has still to acknowledge.
    pub waiting: u64,
    /// The oldest of them.
    pub oldest: Option<Mark>,
    /// The newest of them.
    pub newest: Option<Mark>,
    /// What only a running agent knows.
    pub link: Option<LinkStatus>,
}

/// One record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Run and position.
    pub id: String,
    /// When it was measured (RFC 3339), if that is known.
    pub time: Option<String>,
    /// Its sensor.
    pub sensor: Option<String>,
}

/// An uplink's connection, and counts since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Is there a connection?
    pub connected: bool,
    /// For how many seconds it has been so.
    pub seconds: u64,
    /// Why there is none.
    pub why: Option<String>,
    /// Messages sent for the first time.
    pub sent: u64,
    /// Messages that the broker acknowledged.
    pub acknowledged: u64,
    /// Messages sent again.
    pub replayed: u64,
    /// Messages that the broker may have twice.
    pub possible_duplicates: u64,
    /// Messages that cannot be sent to this broker.
    pub refused: u64,
    /// Commands that came.
    #[serde(default)]
    pub commands: u64,
    /// Of these, commands that were refused before they were handed to their sensor.
    #[serde(default)]
    pub commands_refused: u64,
    /// Messages for LAN clients that came and are in the outbox.
    #[serde(default)]
    pub to_lan: u64,
    /// Messages for LAN clients that were dropped.
    #[serde(default)]
    pub to_lan_dropped: u64,
    /// Messages for LAN clients whose acknowledgement was held back, because too many came.
    #[serde(default)]
    pub to_lan_held: u64,
    /// Connections that the broker accepted.
    pub connects: u64,
    /// Connections and attempts that failed.
    pub failures: u64,
}

/// What only a running agent knows; counts are since its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Bytes of records in memory.
    pub memory_bytes: u64,
    /// How many there may be.
    pub max_memory_bytes: u64,
    /// Does the tail take writes?
    pub tail_works: bool,
    /// Does the disk take writes?
    pub disk_works: bool,
    /// Values taken.
    pub taken: u64,
    /// Values acknowledged, summed over the uplinks.
    pub acknowledged: u64,
    /// Values dropped, by reason.
    pub dropped: BTreeMap<String, u64>,
    /// Values lost to damage.
    pub lost: u64,
    /// Places where stored bytes were not what was written.
    pub damage: u64,
    /// Flushes that wrote to disk.
    pub flushes: u64,
    /// Bytes that these wrote.
    pub flushed_bytes: u64,
    /// Writes or syncs that failed.
    pub write_errors: u64,
    /// Reads that failed.
    pub read_errors: u64,
}

/// What can be said without a running agent, from the files.
pub fn of_files(outbox: &mut Outbox, about: &About, dating: &Dating) -> Status {
    let stats = outbox.stats();
    let tail = Outbox::tail_folder(&about.outbox.tail_dir, &about.outbox.dir);
    let uplinks: Vec<UplinkStatus> = about
        .uplinks
        .iter()
        .map(|(name, broker)| {
            let cursor = outbox.cursor(name);
            let waiting = outbox.backlog(cursor).saturating_sub(outbox.passing_over(cursor));
            let newest = outbox.newest_waiting(cursor, 1);
            UplinkStatus {
                name: name.clone(),
                broker: broker.clone(),
                waiting,
                oldest: mark(outbox, cursor, 0, dating),
                newest: mark(outbox, cursor, newest, dating),
                link: None,
            }
        })
        .collect();
    Status {
        run: outbox.run(),
        path: about.outbox.dir.clone(),
        waiting: uplinks.iter().map(|uplink| uplink.waiting).max().unwrap_or(stats.waiting),
        disk_bytes: stats.disk_bytes,
        max_bytes: about.outbox.max_bytes,
        limit_bytes: outbox.limit(),
        tail_bytes: bytes_below(&tail),
        tail,
        uplinks,
        archive: about.archive.as_ref().map(|(path, max_bytes)| of_archive(outbox, path, *max_bytes)),
        broker: None,
        agent: None,
    }
}

fn of_archive(outbox: &mut Outbox, path: &Path, max_bytes: u64) -> ArchiveStatus {
    let cursor = outbox.cursor_soft(archive::CURSOR);
    ArchiveStatus {
        path: path.to_owned(),
        bytes: bytes_below(path),
        max_bytes,
        waiting: outbox.backlog(cursor).saturating_sub(outbox.passing_over(cursor)),
    }
}

/// All of it, in a running agent.
#[must_use]
pub fn of_agent(hub: &Hub, about: &About) -> Status {
    let now = hub.clock.boot();
    let outbox = &mut *hub.outbox.borrow_mut();
    let mut status = of_files(outbox, about, &hub.dating());
    let stats = outbox.stats();
    for uplink in &mut status.uplinks {
        uplink.link = Some(link(&hub.counters(&uplink.name), now));
    }
    let dropped = outbox.dropped_by_reason().iter().map(|(reason, count)| (reason.as_str().to_owned(), *count));
    status.tail_bytes = stats.tail_bytes;
    status.broker = about.broker.as_ref().map(|ask| (ask.0)());
    status.agent = Some(AgentStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        memory_bytes: stats.memory_bytes as u64,
        max_memory_bytes: about.outbox.memory_bytes as u64,
        tail_works: stats.tail_works,
        disk_works: stats.disk_works,
        taken: stats.taken,
        acknowledged: stats.acknowledged,
        dropped: dropped.collect(),
        lost: stats.lost,
        damage: stats.damage,
        flushes: stats.flushes,
        flushed_bytes: stats.flushed_bytes,
        write_errors: stats.write_errors,
        read_errors: stats.read_errors,
    });
    status
}

fn link(counters: &Counters, now: BootTime) -> LinkStatus {
    let presence = counters.presence.get();
    LinkStatus {
        connected: presence.connected,
        seconds: now.since(presence.since).as_secs(),
        why: presence.why,
        sent: counters.sent.get(),
        acknowledged: counters.acknowledged.get(),
        replayed: counters.replayed.get(),
        possible_duplicates: counters.possible_duplicates.get(),
        refused: counters.refused.get(),
        commands: counters.commands.get(),
        commands_refused: counters.commands_refused.get(),
        to_lan: counters.delivered.get(),
        to_lan_dropped: counters.delivery_refused.get(),
        to_lan_held: counters.delivery_held.get(),
        connects: counters.connects.get(),
        failures: counters.failures.get(),
    }
}

/// The first record from a position on that waits.
fn mark(outbox: &mut Outbox, cursor: CursorId, from: u64, dating: &Dating) -> Option<Mark> {
    let mut found = Vec::new();
    outbox.read(cursor, from, 1, &mut found);
    let entry = found.pop()?;
    let seq = entry.seqs().find(|seq| *seq >= from && !outbox.is_acked(cursor, *seq))?;
    let time = match dating.date(&entry) {
        Date::Wall(time) => Some(export::utc(time)),
        Date::Uptime(..) => None,
    };
    Some(Mark { id: format!("{}-{seq}", entry.run), time, sensor: entry.sensor().map(str::to_owned) })
}

/// Bytes of all files in a folder; 0 where there is none.
fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|it| it.len()).sum()
}
