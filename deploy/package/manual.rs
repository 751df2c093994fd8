//! Writes the manual pages and shell completions of the command line into a folder: `manual FOLDER`.
//!
//! They are made of the definition that the program parses its arguments with, so that they cannot say anything else.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::builder::Resettable;
use clap_complete::Shell;

/// What the page of the program itself says at its end, in roff: where the package has everything else.
const FILES: &str = r"
.SH FILES
.TP
/etc/vigie/vigie.toml, /etc/vigie/vigie.d/*.toml
The configuration. Every key: /usr/share/doc/vigie/configuration.md.gz
.TP
/var/lib/vigie, /run/vigie
The outbox: what waits for its brokers, and its tail
.TP
/usr/share/doc/vigie/guides
Guides, from a blank card to values on a screen: install.md (install.fr.md in French), access\-point.md, backup.md,
fleets.md, provisioning.md, other\-side.md
.TP
/usr/share/doc/vigie/examples
Configurations and programs to begin with, for Mosquitto, Home Assistant, Node\-RED, Telegraf and Grafana, too
";

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        return complain("usage: manual FOLDER");
    };
    match write(&folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{}: {error}", folder.display())),
    }
}

#[expect(clippy::print_stderr, reason = "a program of its own, which has no log")]
fn complain(what: &str) -> ExitCode {
    eprintln!("manual: {what}");
    ExitCode::FAILURE
}

fn write(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    // A page each command: vigie.1, vigie-run.1, vigie-outbox-status.1.
    // Without what this build is of: the pages go into the packages of all architectures.
    clap_mangen::generate_to(vigie::cli::definition().long_version(Resettable::Reset), folder)?;
    std::fs::OpenOptions::new().append(true).open(folder.join("vigie.1"))?.write_all(FILES.as_bytes())?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut vigie::cli::definition(), "vigie", folder)?;
    }
    Ok(())
}
