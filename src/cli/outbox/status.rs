//! `vigie outbox status`

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::print;
use super::super::table::{bytes, table};
use super::Failure;
use super::source::Source;
use crate::control::status::{AgentStatus, ArchiveStatus, BrokerStatus, Mark, Status, UplinkStatus};

pub(super) fn status(source: &mut Source, json: bool) -> Result<(), Failure> {
    let status = source.status()?;
    if json {
        let text = serde_json::to_string(&status).map_err(Failure::failed)?;
        print(&format!("{text}\n"));
    } else {
        print(&for_people(&status));
    }
    Ok(())
}

pub(super) fn for_people(status: &Status) -> String {
    let mut rows: Vec<Vec<String>> = Vec::new();
    let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
    match &status.agent {
        Some(agent) => {
            row("agent", format!("running, version {}, process {}, run {}", agent.version, agent.pid, status.run));
        }
        None => row("agent", format!("not running; the last run was {}", status.run)),
    }
    row("outbox", status.path.display().to_string());
    row(
        "on disk",
        format!("{} of {}{}", bytes(status.disk_bytes), limit(status), trouble(status, |agent| agent.disk_works)),
    );
    row(
        "tail",
        format!(
            "{} in {}{}",
            bytes(status.tail_bytes),
            status.tail.display(),
            trouble(status, |agent| agent.tail_works)
        ),
    );
    if let Some(agent) = &status.agent {
        row("in memory", format!("{} of {}", bytes(agent.memory_bytes), bytes(agent.max_memory_bytes)));
        row("since start", format!("{} values taken, {} acknowledged", agent.taken, agent.acknowledged));
        row("written", format!("{} in {} flushes", bytes(agent.flushed_bytes), agent.flushes));
        row("dropped", by_reason(&agent.dropped));
        if agent.lost + agent.damage + agent.write_errors + agent.read_errors > 0 {
            row(
                "damage",
                format!(
                    "{} values lost, {} damaged places, {} failed writes, {} failed reads",
                    agent.lost, agent.damage, agent.write_errors, agent.read_errors
                ),
            );
        }
    }
    if let Some(archive) = &status.archive {
        let ArchiveStatus { path, bytes: size, max_bytes, waiting } = archive;
        let (size, most, path) = (bytes(*size), bytes(*max_bytes), path.display());
        rows.push(vec![
            "archive".to_owned(),
            format!("{size} of {most} in {path}; {waiting} values are not in it yet"),
        ]);
    }
    let mut text = table(&rows);
    for uplink in &status.uplinks {
        text.push_str(&of_uplink(uplink));
    }
    if let Some(broker) = &status.broker {
        text.push_str(&of_broker(broker));
    }
    if status.agent.is_none() {
        text.push_str("\nConnections, memory and counts are known only to a running agent.\n");
    }
    text
}

fn of_uplink(uplink: &UplinkStatus) -> String {
    let mut rows = vec![vec![format!("uplink {}", uplink.name), uplink.broker.clone()]];
    let mut row = |name: &str, value: String| rows.push(vec![format!("  {name}"), value]);
    if let Some(link) = &uplink.link {
        let since = humantime::format_duration(Duration::from_secs(link.seconds));
        row(
            "connection",
            match (&link.why, link.connected) {
                (_, true) => format!("connected for {since}"),
                (Some(why), false) => format!("none for {since}: {why}"),
                (None, false) => format!("connecting for {since}"),
            },
        );
        row(
            "messages",
            format!(
                "{} sent, {} acknowledged, {} sent again, {} perhaps twice, {} refused",
                link.sent, link.acknowledged, link.replayed, link.possible_duplicates, link.refused
            ),
        );
    }
    if let Some(link) = uplink.link.as_ref().filter(|link| link.commands > 0) {
        row("commands", format!("{} came, {} refused", link.commands, link.commands_refused));
    }
    if let Some(link) = uplink.link.as_ref().filter(|link| link.to_lan + link.to_lan_dropped > 0) {
        row(
            "to the LAN",
            format!("{} came, {} held back, {} dropped", link.to_lan, link.to_lan_held, link.to_lan_dropped),
        );
    }
    row("waiting", format!("{} values", uplink.waiting));
    for (name, mark) in [("oldest", &uplink.oldest), ("newest", &uplink.newest)] {
        if let Some(mark) = mark {
            row(name, of_mark(mark));
        }
    }
    format!("\n{}", table(&rows))
}

fn of_broker(broker: &BrokerStatus) -> String {
    let listens = broker.listens.iter().map(|address| {
        let away = if broker.away.contains(address) { " (no interface has that address now)" } else { "" };
        format!("{address}{away}")
    });
    let mut rows = vec![vec!["embedded broker".to_owned(), listens.collect::<Vec<_>>().join(", ")]];
    let mut row = |name: &str, value: String| rows.push(vec![format!("  {name}"), value]);
    let works = broker.trouble.as_ref().map_or("answers".to_owned(), |why| format!("DOES NOT ANSWER: {why}"));
    row("watch", format!("{works}; restarted {} times", broker.restarts));
    row("clients", format!("{} connected, {} with a session", broker.connected, broker.sessions));
    row(
        "messages",
        format!(
            "{} published, {} delivered, {} to the outbox, {} retained, {} waiting",
            broker.received, broker.delivered, broker.ingested, broker.retained, broker.waiting
        ),
    );
    row("refused", by_reason(&broker.refused));
    if broker.put_aside > 0 {
        row("damage", format!("{} files put aside", broker.put_aside));
    }
    format!("\n{}", table(&rows))
}

fn of_mark(mark: &Mark) -> String {
    let time = mark.time.as_deref().unwrap_or("without a date");
    let sensor = mark.sensor.as_deref().unwrap_or("a LAN client");
    format!("{time}, {sensor} ({})", mark.id)
}

/// How much the log may take, and why, if that is less than was configured.
fn limit(status: &Status) -> String {
    let Status { max_bytes, limit_bytes, .. } = *status;
    if limit_bytes < max_bytes {
        let (limit, most) = (bytes(limit_bytes), bytes(max_bytes));
        return format!("{limit}, its share of the disk's free space (`max_bytes` is {most})");
    }
    bytes(max_bytes)
}

fn trouble(status: &Status, works: fn(&AgentStatus) -> bool) -> &'static str {
    if status.agent.as_ref().is_none_or(works) { "" } else { ", CANNOT BE WRITTEN: see the log" }
}

fn by_reason(counts: &BTreeMap<String, u64>) -> String {
    if counts.is_empty() {
        return "none".to_owned();
    }
    counts.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_limits_the_outbox_is_said_and_what_is_archived() {
        let archive = ArchiveStatus { path: "/archive".into(), bytes: 2048, max_bytes: 1 << 30, waiting: 7 };
        let mut status = Status {
            run: 3,
            path: "/outbox".into(),
            tail: "/run/vigie/outbox-1".into(),
            waiting: 0,
            disk_bytes: 1 << 20,
            max_bytes: 256 << 20,
            limit_bytes: 256 << 20,
            tail_bytes: 0,
            uplinks: Vec::new(),
            archive: None,
            broker: None,
            agent: None,
        };
        let text = for_people(&status);
        assert!(text.contains(" 1 MiB of 256 MiB\n") && !text.contains("archive"), "{text}");
        status.limit_bytes = 10 << 20;
        status.archive = Some(archive);
        let text = for_people(&status);
        assert!(
            text.contains(" 1 MiB of 10 MiB, its share of the disk's free space (`max_bytes` is 256 MiB)\n"),
            "{text}"
        );
        assert!(text.contains(" 2 KiB of 1 GiB in /archive; 7 values are not in it yet\n"), "{text}");
        status.broker = Some(BrokerStatus {
            listens: vec!["127.0.0.1:1883".to_owned(), "192.0.2.7:1883".to_owned()],
            away: vec!["192.0.2.7:1883".to_owned()],
            restarts: 2,
            connected: 3,
            sessions: 5,
            refused: BTreeMap::from([("login".to_owned(), 7)]),
            ..BrokerStatus::default()
        });
        let text = for_people(&status);
        assert!(text.contains("192.0.2.7:1883 (no interface has that address now)\n"), "{text}");
        assert!(text.contains("answers; restarted 2 times\n") && text.contains(" 7 login\n"), "{text}");
        status.broker.as_mut().expect("it is there").trouble = Some("no answer".to_owned());
        assert!(for_people(&status).contains("DOES NOT ANSWER: no answer;"));
    }
}
