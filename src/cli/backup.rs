//! `vigie backup`, `vigie restore`

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, IsTerminal};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use jiff::Timestamp;

use super::outbox::{Failure, find_agent, finish};
use super::{WRONG, load_to_look, print, show};
use crate::agent::places;
use crate::backup::{self, Contents, Item, Part, Refusal, Restore, Sources};
use crate::clock::{BootId, Clock, SystemClock, Trust};
use crate::config::{self, Config};
use crate::control::Request;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to: a file that is not there yet, or `-` for standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
    /// Also passwords, keys and users: files below the configuration's folder that not everybody may read
    #[arg(long)]
    secrets: bool,
    /// Leave that out; may be given several times
    #[arg(long, value_name = "PART")]
    without: Vec<Piece>,
}

#[derive(Debug, clap::Args)]
pub(super) struct RestoreArgs {
    /// What `vigie backup` has made
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Where the configuration is put; its outbox, archive and broker's data go where it says
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
    /// Only look whether it is whole, and say what is in it
    #[arg(long)]
    check: bool,
    /// Set aside what is there, in folders `before-restore-…` beside it
    #[arg(long)]
    force: bool,
    /// This board takes the place of the one that the backup is of, which must not run any more: what waited there is
    /// sent from here. Otherwise it is set aside at the first start
    #[arg(long)]
    adopt: bool,
    /// Leave that as it is; may be given several times
    #[arg(long, value_name = "PART")]
    without: Vec<Piece>,
}

/// A part, as the command line calls it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Piece {
    Configuration,
    Outbox,
    Archive,
    Broker,
}

fn parts(without: &[Piece]) -> Vec<Part> {
    let left_out = |part: &Part| {
        without.iter().any(|piece| match piece {
            Piece::Configuration => *part == Part::Configuration,
            Piece::Outbox => *part == Part::Outbox,
            Piece::Archive => *part == Part::Archive,
            Piece::Broker => *part == Part::Broker,
        })
    };
    Part::ALL.into_iter().filter(|part| !left_out(part)).collect()
}

/// Where an agent of this configuration may have its tail.
fn tails(config: &Config) -> Vec<PathBuf> {
    places::possible(config.outbox.tail.as_deref(), &config.outbox.path)
}

pub(super) fn backup(args: &Args) -> u8 {
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    let result = make(args, &config);
    if result.is_ok() {
        note(&config, args.secrets);
    }
    finish(result)
}

/// Has an agent that runs note it for its auditors. One that is older does not know how, and the backup is there.
fn note(config: &Config, secrets: bool) {
    if let Ok(Some(mut agent)) = find_agent(config) {
        let _ = agent.ask(&Request::BackedUp { secrets }).and_then(|()| agent.answer());
    }
}

fn make(args: &Args, config: &Config) -> Result<(), Failure> {
    let parts = parts(&args.without);
    let tails = tails(config);
    let store = if parts.contains(&Part::Broker) { store(config, &tails)? } else { None };
    let made = Timestamp::now();
    let sources = Sources {
        config_path: &args.config,
        config,
        tails: &tails,
        store,
        parts: &parts,
        secrets: args.secrets,
        board: config::board_serial(),
        made: (made.as_second().try_into().unwrap_or(0), format!("{made:.0}")),
    };
    if args.file == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(Failure::wrong("a backup is not for a terminal: give a file, or a pipe"));
        }
        let taken = backup::take(&sources, io::stdout().lock()).map_err(|failure| no_rights(&failure))?.0;
        super::tell(&about(&taken, "the backup"));
        return Ok(());
    }
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&args.file);
    let file = written.map_err(|error| Failure::failed(format!("cannot make {}: {error}", args.file.display())))?;
    let result = backup::take(&sources, BufWriter::new(file)).map_err(|failure| no_rights(&failure)).and_then(
        |(taken, file)| {
            let file = file.into_inner().map_err(io::IntoInnerError::into_error);
            file.and_then(|file| file.sync_all()).map_err(|error| unwritable(&args.file, &error))?;
            Ok(taken)
        },
    );
    match result {
        Ok(taken) => {
            print(&about(&taken, &args.file.display().to_string()));
            Ok(())
        }
        Err(failure) => {
            // Half a backup is none.
            let _ = fs::remove_file(&args.file);
            Err(failure)
        }
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("{}: {error}", path.display()))
}

fn no_rights(failure: &backup::Failure) -> Failure {
    let help = match failure.error.kind() {
        io::ErrorKind::PermissionDenied => " (the outbox is for its owner alone: use sudo)",
        _ => "",
    };
    Failure::failed(format!("{failure}{help}"))
}

/// What was taken, for people.
fn about(taken: &backup::Taken, name: &str) -> String {
    let mut text = format!("{name} has:\n");
    for (part, files, bytes) in &taken.parts {
        let noun = if *files == 1 { "file" } else { "files" };
        text.push_str(&format!("  {:<14} {files} {noun}, {}\n", part.name(), super::table::bytes(*bytes)));
    }
    if taken.head.secrets {
        text.push_str("Passwords and keys are in it: keep it like one.\n");
    }
    text.push_str(&left_out(&taken.head.left_out));
    text
}

fn left_out(files: &[PathBuf]) -> String {
    if files.is_empty() {
        return String::new();
    }
    let mut text = "Not in it, although they belong to the gateway:\n".to_owned();
    for path in files {
        text.push_str(&format!("  {}\n", path.display()));
    }
    text
}

#[cfg(feature = "broker")]
fn store(config: &Config, tails: &[PathBuf]) -> Result<Option<Vec<u8>>, Failure> {
    let Some(broker) = &config.broker else { return Ok(None) };
    let taken = crate::broker::snapshot::take(&broker.path, tails);
    taken.map_err(|error| no_rights(&backup::Failure { path: broker.path.clone(), error }))
}

#[cfg(not(feature = "broker"))]
fn store(_: &Config, _: &[PathBuf]) -> Result<Option<Vec<u8>>, Failure> {
    Ok(None)
}

/// What the broker kept gets an identity of its own.
#[cfg(feature = "broker")]
fn renew(store: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    use std::hash::BuildHasher;
    // The standard library seeds its hashers from the system's random numbers.
    crate::broker::snapshot::renewed(store, std::hash::RandomState::new().hash_one(0))
}

#[cfg(not(feature = "broker"))]
fn renew(store: Vec<u8>) -> Result<Vec<u8>, &'static str> {
    Ok(store)
}

pub(super) fn restore(args: &RestoreArgs) -> u8 {
    let unusable = |why: String| Failure::failed(format!("{}: {why}", args.file.display()));
    let open = || File::open(&args.file).map(BufReader::new).map_err(|error| unusable(error.to_string()));
    let contents = open().and_then(|file| backup::check(file).map_err(|why| unusable(why.to_string())));
    let contents = match contents {
        Ok(contents) => contents,
        Err(failure) => return finish(Err(failure)),
    };
    let parts = parts(&args.without);
    let of_backup = parts.contains(&Part::Configuration) && contents.has(Part::Configuration);
    let config = if of_backup {
        match config::check_texts(texts(&contents, &args.config), folder(&args.config)) {
            Ok(config) => config,
            Err(report) => {
                show(&report);
                super::complain(
                    "the configuration in the backup is not one for this vigie: bring the rest back with \
                     --without configuration",
                );
                return WRONG;
            }
        }
    } else {
        let Some(config) = load_to_look(&args.config) else { return WRONG };
        config
    };
    if args.check {
        print(&holds(&contents, &args.file));
        return finish(Ok(()));
    }
    finish(open().and_then(|file| bring_back(args, &contents, &config, &parts, file)))
}

fn folder(config: &Path) -> &Path {
    config.parent().unwrap_or(Path::new(""))
}

/// The configuration's texts under the names that they will have.
fn texts(contents: &Contents, path: &Path) -> Vec<(String, String)> {
    let name = |item: &Item| match item {
        Item::Fragment(name) => path.with_extension("d").join(name).display().to_string(),
        _ => path.display().to_string(),
    };
    contents.configuration.iter().map(|(item, text)| (name(item), text.clone())).collect()
}

fn holds(contents: &Contents, file: &Path) -> String {
    let head = &contents.head;
    let board = head.board.as_ref().map_or_else(String::new, |board| format!(", board {board}"));
    let mut text = format!(
        "{} is whole.\n  of             {}{board}, by vigie {}, on {}\n",
        file.display(),
        head.gateway,
        head.vigie,
        head.made
    );
    for part in Part::ALL.into_iter().filter(|part| contents.has(*part)) {
        text.push_str(&format!("  {:<14} {}\n", part.name(), super::table::bytes(contents.bytes(part))));
    }
    text.push_str(&left_out(&head.left_out));
    text
}

fn bring_back(
    args: &RestoreArgs,
    contents: &Contents,
    config: &Config,
    parts: &[Part],
    file: BufReader<File>,
) -> Result<(), Failure> {
    // The one that runs now may have its outbox elsewhere than the one that is brought back.
    let present = config::load_to_look(&args.config).ok();
    for config in present.iter().chain([config]) {
        if find_agent(config)?.is_some() {
            return Err(running(&config.outbox.path));
        }
    }
    let boot = BootId::current().ok_or_else(|| Failure::failed("/proc is not mounted"))?;
    let tails = tails(config);
    let restore = Restore {
        config_path: &args.config,
        config,
        tails: &tails,
        parts,
        force: args.force,
        adopt: args.adopt,
        now: (boot, SystemClock::new(Trust::default()).boot()),
        renew,
    };
    let brought = restore.run(contents, file).map_err(|refusal| explain(&refusal, &args.file))?;
    let mut text = String::new();
    for (part, folder) in &brought.parts {
        text.push_str(&format!("{} is in {}\n", part.name(), folder.display()));
    }
    for aside in &brought.aside {
        text.push_str(&format!("what was there before is in {}\n", aside.display()));
    }
    if brought.parts.iter().any(|(part, _)| *part == Part::Outbox) {
        text.push_str(&waits(contents, brought.waiting, args.adopt));
    }
    text.push_str(&left_out(&contents.head.left_out));
    print(&text);
    Ok(())
}

/// What becomes of what waited.
fn waits(contents: &Contents, waiting: u64, adopt: bool) -> String {
    let here = config::board_serial();
    match (&contents.head.board, here) {
        (Some(there), Some(here)) if *there != here && !adopt => format!(
            "The backup is of another board ({there}): the {waiting} values that waited there are set aside at the first \
             start, as that board may still send them. If it is gone, restore again with --force --adopt\n"
        ),
        _ => format!(
            "{waiting} values wait for their brokers. Those that were sent after the backup are sent again, with the same \
             id\n"
        ),
    }
}

fn running(outbox: &Path) -> Failure {
    Failure::failed(format!(
        "an agent runs on the outbox in {}: stop it first (sudo systemctl stop vigie), and start it afterwards",
        outbox.display()
    ))
}

fn explain(refusal: &Refusal, file: &Path) -> Failure {
    let help = match refusal {
        Refusal::Running(outbox) => return running(outbox),
        Refusal::Exists(_) => ": --force sets it aside, and --without leaves a part as it is. Nothing was changed",
        Refusal::Io { error, .. } if error.kind() == io::ErrorKind::PermissionDenied => ": use sudo",
        Refusal::Unusable(_) | Refusal::Outbox(_) | Refusal::Archive(_) | Refusal::Broker(_) => ". Nothing was changed",
        Refusal::Io { .. } => "",
    };
    Failure::failed(format!("{} cannot be brought back: {refusal}{help}", file.display()))
}
