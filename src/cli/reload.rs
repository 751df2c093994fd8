//! `vigie reload`: the agent takes over what has changed in its configuration.

use std::io::Write as _;
use std::path::PathBuf;

use super::outbox::{Failure, ask, find_agent, finish, unexpected};
use super::{WRONG, load_to_look, print};
use crate::control::reload::{Reloaded, needs_restart};
use crate::control::{Answer, Request};

const LONG: &str = "\
Have the agent read its configuration anew, and take over what has changed.

The new configuration is checked whole first. If it is wrong, or changes something that holds until a restart, nothing \
changes, and the exit status says so (2: wrong, 1: not possible). Otherwise only what differs is touched: other sensors \
keep their schedules, totals and open devices, other uplinks their connections, and what waits in the outbox stays there. \
SIGHUP and `systemctl reload vigie` do the same.";

#[derive(Debug, clap::Args)]
#[command(long_about = LONG)]
pub(super) struct Args {
    /// Configuration of the agent
    #[arg(long, value_name = "FILE", default_value = "/etc/vigie/vigie.toml")]
    config: PathBuf,
}

pub(super) fn reload(args: &Args) -> u8 {
    // What is wrong here is wrong there; and where its outbox is says how the agent is reached.
    let Some(config) = load_to_look(&args.config) else { return WRONG };
    let asked = find_agent(&config).and_then(|client| {
        let mut client = client.ok_or_else(|| {
            Failure::failed(
                "no agent runs with this configuration: start it, or restart it where `path` or `tail` of [outbox] has \
                 changed",
            )
        })?;
        match ask(&mut client, &Request::Reload {})? {
            Answer::Reloaded(reloaded) => Ok(reloaded),
            other => Err(unexpected(&other)),
        }
    });
    match asked {
        Ok(Reloaded::Done(changes)) => {
            if let Some(warnings) = &changes.warnings {
                report(warnings);
            }
            print(&format!("Reloaded. {changes}.\n"));
            finish(Ok(()))
        }
        Ok(Reloaded::Wrong(text)) => {
            report(&text);
            WRONG
        }
        Ok(Reloaded::NeedsRestart(keys)) => finish(Err(Failure::failed(needs_restart(&keys)))),
        Ok(Reloaded::Failed(why)) => finish(Err(Failure::failed(format!("{why}: nothing has changed")))),
        Err(failure) => finish(Err(failure)),
    }
}

/// As `vigie check` shows it.
fn report(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
