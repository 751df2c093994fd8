//! `vigie export`: what the archive keeps.

use std::path::PathBuf;

use super::outbox::{Failure, Form, Wanted, finish, write};
use super::{WRONG, complain, load_to_look};
use crate::archive::{Piece, Reader};
use crate::config::Config;
use crate::export::{Filter, Format, rows};
use crate::uplink::dating::Date;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
    #[command(flatten)]
    wanted: Wanted,
    #[command(flatten)]
    form: Form,
}

pub(super) fn export(args: Args) -> u8 {
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    finish(export_from(&config, &args.wanted.filter(), args.form.format()))
}

fn export_from(config: &Config, filter: &Filter, format: Format) -> Result<(), Failure> {
    let Some(archive) = &config.archive else {
        return Err(Failure::wrong(
            "this configuration keeps no archive: add [archive] (what still waits for a broker is shown by `vigie outbox \
             export`)",
        ));
    };
    if !archive.path.exists() {
        return Err(Failure::failed(format!(
            "there is no archive in {} yet: it is written every {}",
            archive.path.display(),
            humantime::format_duration(archive.batch)
        )));
    }
    let mut reader = Reader::open(&archive.path, filter.from, filter.to).map_err(Failure::failed)?;
    write(format, |take| {
        let mut found = Vec::new();
        while let Some(piece) = reader.step().map_err(Failure::failed)? {
            let records = match piece {
                Piece::Records(records) => records,
                Piece::Damage(path) => {
                    complain(&format!("{} is damaged: some of its readings are missing here", path.display()));
                    continue;
                }
            };
            for entry in records {
                let date = entry.time.map_or(Date::Uptime(entry.boot, entry.at), Date::Wall);
                if filter.wants(&entry, date) {
                    rows(&entry, date, |_| true, &mut found);
                }
                for row in found.drain(..) {
                    if !take(row)? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    })
}
