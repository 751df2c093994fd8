//! Writes the manual pages and shell completions of the command line into a folder: `manual FOLDER`.
//!
//! They are made of the definition that the program parses its arguments with, so that they cannot say anything else.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap_complete::Shell;

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
    clap_mangen::generate_to(vigie::cli::definition(), folder)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut vigie::cli::definition(), "vigie", folder)?;
    }
    Ok(())
}
