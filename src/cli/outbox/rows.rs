//! `vigie outbox show` and `export`

use std::io::{self, Write};

use super::super::complain;
use super::Failure;
use super::source::Source;
use crate::control::Which;
use crate::export::{Filter, Format, Row, Writer, utc};

pub(super) fn show(
    source: &mut Source,
    uplink: Option<String>,
    sensor: Option<String>,
    limit: usize,
) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let which = Which { uplink, filter: Filter { sensor, ..Filter::default() } };
    let unreadable = source.show(which, limit, &mut |row| {
        rows.push(line(&row));
        Ok(true)
    })?;
    if rows.is_empty() {
        complain("nothing waits");
    }
    super::super::print(&super::super::table::table(&rows));
    warn(unreadable);
    Ok(())
}

/// When, where, what.
fn line(row: &Row) -> Vec<String> {
    let time = row.time.map_or_else(|| format!("{} s after a start", row.uptime.unwrap_or_default()), utc);
    let from = match (&row.room, &row.sensor) {
        (Some(room), Some(sensor)) => format!("{room}/{sensor}"),
        (None, Some(sensor)) => sensor.clone(),
        _ => row.topic.clone().unwrap_or_default(),
    };
    let value = format!("{} {}", row.value, row.unit.as_deref().unwrap_or_default());
    let value: String = value.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    vec![time, from, row.quantity.clone().unwrap_or_default(), value, row.id.clone()]
}

pub(super) fn export(
    source: &mut Source,
    uplink: Option<String>,
    filter: Filter,
    format: Format,
) -> Result<(), Failure> {
    let which = Which { uplink, filter };
    let mut unreadable = false;
    write(format, |take| {
        unreadable = source.export(which, take)?;
        Ok(())
    })?;
    warn(unreadable);
    Ok(())
}

/// Writes rows to standard output as they come. Nobody reads any more (`| head`): that is not an error.
pub(in super::super) fn write(
    format: Format,
    rows: impl FnOnce(&mut super::source::Take<'_>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let out = io::stdout().lock();
    let mut open = true;
    let mut written = |result: io::Result<()>| match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            open = false;
            Ok(false)
        }
        Err(error) => Err(Failure::failed(format!("cannot write: {error}"))),
    };
    let mut writer = match Writer::new(format, out) {
        Ok(writer) => writer,
        Err(error) => return written(Err(error)).map(drop),
    };
    rows(&mut |row| written(writer.row(&row)))?;
    let flushed = writer.flush();
    if open {
        let ended = flushed.and_then(|()| io::stdout().flush());
        if let Err(error) = ended
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            return Err(Failure::failed(format!("cannot write: {error}")));
        }
    }
    Ok(())
}

fn warn(unreadable: bool) {
    if unreadable {
        complain("some of the records on disk cannot be read at the moment and are missing here: see the agent's log");
    }
}
