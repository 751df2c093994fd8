//! A card that was copied to another board: two gateways would be one to their brokers, and both would send what waits.
//!
//! The outbox remembers the serial number of its board. On another one, its content is set aside in a folder of its own,
//! and the client identifiers that nobody has chosen get the new board's number. The gateway's `id` is that number by
//! itself. What the embedded broker keeps (retained messages, sessions) is set aside as well: the clients that it is for
//! are those of the other board. A machine without a serial number (a PC, a container) is left alone.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use tracing::warn;

use crate::config::{Config, Named, board_serial};
use crate::logging::AUDIT;
use crate::uplink::veil::Veil;

/// In the outbox's folder: the serial number, and in a second line that of the board that it was copied from, if any.
const FILE: &str = "board";

/// Folders of what was set aside begin so.
const ASIDE: &str = "copied-from-";

/// Digits of the serial number that a client identifier gets; the last ones differ most.
const DIGITS: usize = 8;

/// What was found out about the board.
#[derive(Debug, PartialEq, Eq)]
enum Board {
    /// It is the one that the outbox was made on, or the first one that asks.
    Own,
    /// It is not, but that was found out before.
    Copy,
    /// It is not, and what the outbox held is in this folder now.
    JustCopied { from: String, aside: PathBuf },
}

/// To be called before the outbox is opened. A disk that cannot be read or written is no reason not to start: that the
/// outbox can do without one is its promise.
pub(super) fn look(config: &mut Config) {
    let Some(serial) = board_serial() else { return };
    let broker = config.broker.as_ref().map(|broker| broker.path.as_path());
    let board = match compare(&config.outbox.path, broker, &serial) {
        Ok(Board::Own) => return,
        Ok(board) => board,
        Err(error) => {
            let outbox = config.outbox.path.display();
            warn!(%outbox, "it cannot be noted whose card this is, so that a copy will not be noticed: {error}");
            return;
        }
    };
    let chosen = rename_clients(config, &serial);
    if let Board::JustCopied { from, aside } = board {
        warn!(
            target: AUDIT,
            audit = "board",
            from,
            "this card was copied from another board: what waited there is set aside in {} and is not sent. Where the \
             board itself was exchanged, stop vigie and move the content back to send it",
            aside.display()
        );
    }
    for client in chosen {
        warn!(client, "the board that this card was copied from may have the same client_id: put {{id}} into it");
    }
}

/// Gives each client identifier that nobody has chosen the board's number; gives the chosen ones that lack it.
fn rename_clients(config: &mut Config, serial: &str) -> Vec<String> {
    let digits = serial.get(serial.len().saturating_sub(DIGITS)..).unwrap_or(serial);
    let mut chosen = Vec::new();
    for uplink in &mut config.uplinks {
        let veil = Veil::new(&uplink.privacy);
        let default = format!("vigie-{}", veil.name(Named::Gateway, &config.gateway.name));
        if uplink.client_id == default {
            let board = veil.name(Named::Id, digits);
            uplink.client_id = format!("{default}-{board}");
        } else if !uplink.client_id.contains(&*veil.name(Named::Id, &config.gateway.id)) {
            chosen.push(uplink.client_id.clone());
        }
    }
    chosen
}

fn compare(outbox: &Path, broker: Option<&Path>, serial: &str) -> io::Result<Board> {
    let file = outbox.join(FILE);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        // Not text: damaged, as a file that is being written when the power goes may be.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => String::new(),
        Err(error) => return Err(error),
    };
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match lines.next() {
        Some(known) if known == serial => Ok(if lines.next().is_some() { Board::Copy } else { Board::Own }),
        None => {
            remember(&file, serial, None)?;
            Ok(Board::Own)
        }
        Some(known) => {
            if let Some(broker) = broker.filter(|broker| broker.is_dir()) {
                set_aside(broker, known)?;
            }
            let aside = set_aside(outbox, known)?;
            // Last: where this is interrupted, the next start goes on with it.
            remember(&file, serial, Some(known))?;
            Ok(Board::JustCopied { from: known.to_owned(), aside })
        }
    }
}

/// Moves everything into a folder within, as the folder's own may be where a partition is mounted.
fn set_aside(folder: &Path, from: &str) -> io::Result<PathBuf> {
    let name: String = from.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).take(64).collect();
    let aside = folder.join(format!("{ASIDE}{name}"));
    fs::create_dir_all(&aside)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let stays = [FILE, "lost+found"].iter().any(|stays| name == *stays);
        let set_aside = [ASIDE, "before-restore-"].iter().any(|begin| name.to_string_lossy().starts_with(begin));
        if !stays && !set_aside {
            fs::rename(entry.path(), aside.join(&name))?;
        }
    }
    File::open(&aside)?.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(aside)
}

fn remember(file: &Path, serial: &str, from: Option<&str>) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("/"));
    // As the outbox itself would make it.
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    writeln!(written, "{serial}")?;
    if let Some(from) = from {
        writeln!(written, "{from}")?;
    }
    written.sync_all()?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outbox() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let outbox = folder.path().join("outbox");
        (folder, outbox)
    }

    #[test]
    fn a_board_keeps_its_outbox() {
        let (_folder, outbox) = outbox();
        assert_eq!(compare(&outbox, None, "10000000aa").expect("a new outbox"), Board::Own);
        fs::write(outbox.join("segment"), "records").expect("a file");
        assert_eq!(compare(&outbox, None, "10000000aa").expect("an outbox"), Board::Own);
        assert_eq!(fs::read_to_string(outbox.join("segment")).expect("a file"), "records");
    }

    #[test]
    fn an_outbox_without_a_note_is_taken_over() {
        let (_folder, outbox) = outbox();
        fs::create_dir(&outbox).expect("a folder");
        fs::write(outbox.join("segment"), "records").expect("a file");
        fs::write(outbox.join(FILE), [0xff, 0xfe]).expect("a file");
        assert_eq!(compare(&outbox, None, "10000000aa").expect("an outbox"), Board::Own);
        assert!(outbox.join("segment").exists());
        assert_eq!(compare(&outbox, None, "10000000aa").expect("an outbox"), Board::Own);
    }

    #[test]
    fn a_copy_is_set_aside_once_and_stays_a_copy() {
        let (_folder, outbox) = outbox();
        compare(&outbox, None, "10000000aa").expect("a new outbox");
        fs::create_dir(outbox.join("refused")).expect("a folder");
        fs::write(outbox.join("refused/one"), "a message").expect("a file");
        fs::write(outbox.join("segment"), "records").expect("a file");
        let aside = outbox.join("copied-from-10000000aa");
        assert_eq!(
            compare(&outbox, None, "10000000bb").expect("an outbox"),
            Board::JustCopied { from: "10000000aa".to_owned(), aside: aside.clone() }
        );
        assert_eq!(fs::read_to_string(aside.join("segment")).expect("a file"), "records");
        assert_eq!(fs::read_to_string(aside.join("refused/one")).expect("a file"), "a message");
        assert!(!outbox.join("segment").exists());
        fs::write(outbox.join("segment"), "new").expect("a file");
        assert_eq!(compare(&outbox, None, "10000000bb").expect("an outbox"), Board::Copy);
        assert_eq!(fs::read_to_string(outbox.join("segment")).expect("a file"), "new");
        // The copy is copied again: what was set aside before stays where it is.
        assert!(matches!(compare(&outbox, None, "10000000cc").expect("an outbox"), Board::JustCopied { .. }));
        assert!(aside.exists() && outbox.join("copied-from-10000000bb/segment").exists());
    }

    #[test]
    fn what_the_broker_of_a_copy_keeps_is_set_aside_as_well() {
        let (folder, outbox) = outbox();
        let broker = folder.path().join("broker");
        // A gateway may have no broker, and its folder is made by the broker itself.
        compare(&outbox, Some(&broker), "aa").expect("a new outbox");
        fs::create_dir(&broker).expect("a folder");
        fs::write(broker.join("store"), "sessions").expect("a file");
        assert_eq!(compare(&outbox, Some(&broker), "aa").expect("an outbox"), Board::Own);
        assert!(broker.join("store").exists());
        assert!(matches!(compare(&outbox, Some(&broker), "bb").expect("an outbox"), Board::JustCopied { .. }));
        assert!(!broker.join("store").exists());
        assert_eq!(fs::read_to_string(broker.join("copied-from-aa/store")).expect("a file"), "sessions");
        fs::write(broker.join("store"), "new").expect("a file");
        assert_eq!(compare(&outbox, Some(&broker), "bb").expect("an outbox"), Board::Copy);
        assert!(broker.join("store").exists());
    }

    #[test]
    fn an_interrupted_move_is_finished() {
        let (_folder, outbox) = outbox();
        compare(&outbox, None, "aa").expect("a new outbox");
        fs::create_dir(outbox.join("copied-from-aa")).expect("a folder");
        fs::write(outbox.join("copied-from-aa/first"), "moved").expect("a file");
        fs::write(outbox.join("second"), "to be moved").expect("a file");
        assert!(matches!(compare(&outbox, None, "bb").expect("an outbox"), Board::JustCopied { .. }));
        assert!(["first", "second"].iter().all(|name| outbox.join("copied-from-aa").join(name).exists()));
    }

    #[test]
    fn a_copy_gets_a_client_id_of_its_own_unless_somebody_chose_one() {
        let text = "[gateway]\nname = \"atelier\"\n[uplink.a]\nurl = \"mqtt://a\"\n[uplink.b]\nurl = \"mqtt://b\"\n\
                    client_id = \"mine\"\n[uplink.c]\nurl = \"mqtt://c\"\nclient_id = \"gw-{id}\"\n";
        let machine = crate::config::Machine::this();
        let mut config = crate::config::from_text("vigie.toml", text, &machine, crate::drivers::DRIVERS)
            .map_err(|report| report.to_string())
            .expect("a configuration");
        assert_eq!(rename_clients(&mut config, "1000000012345678"), ["mine"]);
        let clients: Vec<&str> = config.uplinks.iter().map(|uplink| uplink.client_id.as_str()).collect();
        assert_eq!(clients[..2], ["vigie-atelier-12345678", "mine"]);
        assert!(clients[2].starts_with("gw-"), "{}", clients[2]);
    }
}
