//! The command line: what can be said, and what each command exits with.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::config;
use crate::guard;

mod backup;
#[cfg(feature = "broker")]
mod broker;
mod check;
mod clock;
mod demo;
mod drivers;
mod explain;
mod export;
mod once;
mod outbox;
mod pause;
mod reload;
mod replay;
mod run;
mod scan;
mod support;
mod table;

/// All is well.
pub const FINE: u8 = 0;
/// It was tried, and failed.
pub const FAILED: u8 = 1;
/// The command line or the configuration is wrong: nothing was tried.
pub const WRONG: u8 = 2;

const AFTER_HELP: &str =
    "Without a command, vigie runs a demonstration: simulated sensors under the real drivers, this \
machine's own readings, and a broker on the loopback interface.

Exit status: 0 fine, 1 failed, 2 wrong usage or configuration.";

/// What `vigie --version` says; `-V` says the first line.
const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("VIGIE_BUILD_COMMIT"),
    "\ntarget: ",
    env!("VIGIE_BUILD_TARGET"),
    "\nfeatures: ",
    env!("VIGIE_BUILD_FEATURES"),
);

/// Sensor gateway agent: readings reach the MQTT broker whatever happens to network, power, clock or wiring.
#[derive(Debug, Parser)]
#[command(name = "vigie", version, long_version = LONG_VERSION, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// What to log: error, warn, info, debug or trace, or a filter such as `vigie=debug` [default: info]
    #[arg(long, global = true, value_name = "FILTER")]
    log: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the gateway
    Run {
        /// Configuration; the fragments in the folder of the same name with `.d` are read as well
        #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
        config: PathBuf,
    },
    /// Check configurations without touching hardware; report everything that is wrong
    Check {
        /// Configurations, each with its `.d` folder
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// Check what holds on the host of that name, without the secrets that only it has
        #[arg(long, value_name = "NAME")]
        host: Option<String>,
    },
    /// Show the filters of each quantity, in their order, and where it is published
    Explain(explain::Args),
    /// Run recorded readings through the filters and print what would be published, and why the others would not
    Replay(replay::Args),
    /// Read every sensor once and print what it gives
    Once {
        /// Configuration
        #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
        config: PathBuf,
    },
    /// Look at what waits for its broker, export it, drop it; beside a running agent or without one
    Outbox(outbox::Args),
    /// Print what the archive keeps, as a table or as JSON
    Export(export::Args),
    /// Put configuration, outbox, archive and the embedded broker's data into one file; beside a running agent or without one
    Backup(backup::Args),
    /// Bring back what `vigie backup` has put into a file, while no agent runs
    Restore(backup::RestoreArgs),
    /// Make passwords and certificates for the embedded broker
    #[cfg(feature = "broker")]
    Broker(broker::Args),
    /// Have a sensor let go of its device for a while, or list which have
    Pause(pause::Args),
    /// Have a paused sensor take its device back
    Resume(pause::Resume),
    /// Have the agent take over what has changed in its configuration, and touch nothing else
    Reload(reload::Args),
    /// Whether the time is known, and telling it where nothing else does
    Clock(clock::Args),
    /// Look for sensors: on I2C, 1-Wire, serial ports and GPIO, and what the kernel measures
    Scan(scan::Args),
    /// Gather what somebody needs to know who is to help: state, configuration, log, without passwords
    Support(support::Args),
    /// Runs a sensor's program; the agent calls it
    #[command(hide = true)]
    Guard {
        /// Process id of the agent
        parent: u32,
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// List the drivers, or show one with its options and a sample
    Drivers {
        /// A driver
        name: Option<String>,
    },
}

/// The command line's definition: manual pages and shell completions are made of it.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command that the arguments ask for.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too. A closed pipe is the reader's choice.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { WRONG } else { FINE });
        }
    };
    if let Some(Command::Guard { parent, command }) = &cli.command {
        return ExitCode::from(guard::run(*parent, command));
    }
    let quiet = !matches!(cli.command, Some(Command::Run { .. }));
    let filter = cli.log.as_deref().or((quiet && std::env::var_os("RUST_LOG").is_none()).then_some("warn"));
    if let Err(error) = crate::logging::init(filter) {
        complain(&error.to_string());
        return ExitCode::from(WRONG);
    }
    let status = match cli.command {
        None => demo::demo(),
        Some(Command::Run { config }) => run::run(&config),
        Some(Command::Check { files, host }) => check::check(&files, host.as_deref()),
        Some(Command::Explain(args)) => explain::explain(&args),
        Some(Command::Replay(args)) => replay::replay(&args),
        Some(Command::Once { config }) => once::once(&config),
        Some(Command::Outbox(args)) => outbox::outbox(args),
        Some(Command::Export(args)) => export::export(args),
        Some(Command::Backup(args)) => backup::backup(&args),
        Some(Command::Restore(args)) => backup::restore(&args),
        #[cfg(feature = "broker")]
        Some(Command::Broker(args)) => broker::broker(args),
        Some(Command::Pause(args)) => pause::pause(args),
        Some(Command::Resume(args)) => pause::resume(args),
        Some(Command::Reload(args)) => reload::reload(&args),
        Some(Command::Clock(args)) => clock::clock(&args),
        Some(Command::Scan(args)) => scan::scan(&args),
        Some(Command::Support(args)) => support::support(&args),
        Some(Command::Guard { .. }) => unreachable!("done above, before there is a log"),
        Some(Command::Drivers { name }) => drivers::drivers(name.as_deref()),
    };
    ExitCode::from(status)
}

/// Prints to standard output. Nobody reads any more (`vigie drivers | head`): that is not an error.
fn print(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The same to standard error, where standard output has something else.
fn tell(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// One sentence about what went wrong, to standard error.
fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "vigie: {text}");
}

/// Reads a configuration; its problems go to standard error.
fn load(path: &std::path::Path) -> Option<config::Config> {
    or_complain(config::load(path))
}

/// As [`load`], as another host would, without its secrets.
fn load_of(path: &std::path::Path, host: &str) -> Option<config::Config> {
    let machine = config::Machine { hostname: host.to_owned(), ..config::Machine::looking_at(path) };
    or_complain(config::load_on(path, &machine, crate::drivers::DRIVERS))
}

/// As [`load`], without secrets, which only the service's user can read.
fn load_to_look(path: &std::path::Path) -> Option<config::Config> {
    or_complain(config::load_to_look(path))
}

fn or_complain(loaded: Result<config::Config, config::Report>) -> Option<config::Config> {
    match loaded {
        Ok(config) => Some(config),
        Err(report) => {
            show(&report);
            None
        }
    }
}

/// Shows problems of a configuration on standard error.
fn show(report: &config::Report) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let _ = std::io::stderr().lock().write_all(config::render(report, colour).as_bytes());
}
