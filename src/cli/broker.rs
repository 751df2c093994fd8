//! `vigie broker cert | passwd`: what the embedded broker needs before it can be opened to a network.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Subcommand;
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::zeroize::Zeroizing;

use super::{FAILED, FINE, WRONG, complain, load_to_look, print};
use crate::broker::authority;
use crate::broker::authority::Subject;
use crate::broker::users;

/// Where users are kept unless a configuration or the command line says otherwise.
const USERS: &str = "/etc/vigie/users";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a certificate for the broker, and an authority that signs it; nothing is overwritten
    Cert {
        /// Folder of the files
        #[arg(long, value_name = "DIR", default_value = "/etc/vigie/tls")]
        dir: PathBuf,
        /// A name or an address by which clients call this machine; may be given several times [default: its host name,
        /// that with `.local`, and its present addresses]
        #[arg(long = "name", value_name = "NAME", conflicts_with = "client")]
        names: Vec<String>,
        /// Make a certificate for a client instead, with this user's name
        #[arg(long, value_name = "USER")]
        client: Option<String>,
    },
    /// Give a user a password, read from the terminal or from the first line of standard input
    Passwd {
        /// The user
        user: String,
        /// File of the users [default: `users` of the configuration, else /etc/vigie/users]
        #[arg(long, value_name = "FILE")]
        users: Option<PathBuf>,
        /// Configuration
        #[arg(long, value_name = "FILE", conflicts_with = "users")]
        config: Option<PathBuf>,
        /// Take the user away
        #[arg(long)]
        delete: bool,
    },
}

pub(super) fn broker(args: Args) -> u8 {
    match args.what {
        What::Cert { dir, names, client } => cert(&dir, names, client.as_deref()),
        What::Passwd { user, users, config, delete } => {
            let configured = match config.as_deref().map(load_to_look) {
                Some(None) => return WRONG,
                Some(Some(config)) => config.broker.and_then(|broker| broker.users),
                None => None,
            };
            passwd(&user, &users.or(configured).unwrap_or_else(|| USERS.into()), delete)
        }
    }
}

fn cert(dir: &Path, given: Vec<String>, client: Option<&str>) -> u8 {
    if let Some(name) = client
        && let Err(why) = users::check_name(name)
    {
        complain(&why.to_string());
        return WRONG;
    }
    let (mut names, mut addresses): (Vec<String>, Vec<IpAddr>) = (Vec::new(), Vec::new());
    if given.is_empty() {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        if !host.contains('.') {
            names.extend([host.clone(), format!("{host}.local")]);
        } else {
            names.push(host);
        }
        names.push("localhost".to_owned());
        addresses = own_addresses();
    }
    for name in given {
        match name.parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(name),
        }
    }
    if names.is_empty() {
        // A certificate wants a common name.
        names.extend(addresses.first().map(ToString::to_string));
    }
    let subject = client.map_or(Subject::Server { names: &names, addresses: &addresses }, Subject::Client);
    let year = i32::from(jiff::Zoned::now().year());
    let issued = match authority::issue(dir, subject, year) {
        Ok(issued) => issued,
        Err(why) => {
            complain(&why.to_string());
            return FAILED;
        }
    };
    let (certificate, key, ca) = (issued.certificate.display(), issued.key.display(), issued.authority.display());
    let made = if issued.new_authority {
        format!(
            "A new authority: {ca}. Its key, {}, signs further certificates: keep it to yourself.\n",
            dir.join("ca.key").display()
        )
    } else {
        String::new()
    };
    print(&match client {
        None => {
            let all: Vec<String> = names.into_iter().chain(addresses.iter().map(ToString::to_string)).collect();
            format!(
                "{made}A certificate for {}.\n\n\
                 In the configuration:\n\
                 \n    [[broker.listener]]\n    listen = \"0.0.0.0:8883\"\n    \
                 tls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n\n\
                 Clients need {ca} (mosquitto_sub: --cafile), and nothing else of that folder. \
                 The key can be read by its owner alone: if the agent runs as another user, chown it.\n",
                all.join(", ")
            )
        }
        Some(name) => format!(
            "{made}A certificate for the user {name}: copy {certificate}, {key} and {ca} to the client \
             (mosquitto_sub: --cert, --key, --cafile), and then take the key away from here.\n\n\
             The listener must ask for it: tls = {{ …, client_ca = \"{ca}\" }}\n"
        ),
    });
    FINE
}

/// The addresses of this machine (proc_pid_net(5)); none where /proc does not tell.
fn own_addresses() -> Vec<IpAddr> {
    let four = std::fs::read_to_string("/proc/net/fib_trie").unwrap_or_default();
    let six = std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    let mut addresses: Vec<IpAddr> = local_in_trie(&four).chain(global_in(&six)).collect();
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The addresses that stand before a line `/32 host LOCAL`.
fn local_in_trie(table: &str) -> impl Iterator<Item = IpAddr> {
    let pairs = table.lines().zip(table.lines().skip(1));
    pairs
        .filter(|(_, next)| next.trim() == "/32 host LOCAL")
        .filter_map(|(line, _)| line.trim().strip_prefix("|-- ")?.parse::<std::net::Ipv4Addr>().ok())
        .map(IpAddr::V4)
}

/// The addresses of the table but those of one link alone (scope 20).
fn global_in(table: &str) -> impl Iterator<Item = IpAddr> {
    table.lines().filter_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let [address, _, _, scope, ..] = columns[..] else { return None };
        let bits = u128::from_str_radix(address, 16).ok()?;
        (scope != "20").then(|| IpAddr::V6(bits.into()))
    })
}

fn passwd(user: &str, path: &Path, delete: bool) -> u8 {
    if delete {
        return match users::remove(path, user) {
            Ok(true) => {
                print(&format!("{user} is taken away from {}.\n", path.display()));
                FINE
            }
            Ok(false) => {
                complain(&format!("{} has no user {user}", path.display()));
                FAILED
            }
            Err(why) => {
                complain(&why.to_string());
                FAILED
            }
        };
    }
    if let Err(why) = users::check_name(user) {
        complain(&why.to_string());
        return WRONG;
    }
    let password = match ask(user) {
        Ok(password) => password,
        Err(why) => {
            complain(&format!("no password: {why}"));
            return FAILED;
        }
    };
    match users::set_password(path, user, password.as_bytes()) {
        Ok(()) => {
            print(&format!(
                "{user} has a password in {}. A running broker takes it at the next login. If the agent runs as another \
                 user, its group needs the file: chgrp and chmod 640.\n",
                path.display()
            ));
            FINE
        }
        Err(why) => {
            complain(&why.to_string());
            FAILED
        }
    }
}

/// Asks twice on a terminal, without showing it; takes the first line otherwise.
fn ask(user: &str) -> std::io::Result<Zeroizing<String>> {
    let input = std::io::stdin();
    if !input.is_terminal() {
        return line(&mut input.lock());
    }
    let before = tcgetattr(&input)?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&input, OptionalActions::Flush, &hidden)?;
    let prompt = |text: &str| {
        let mut out = std::io::stderr().lock();
        // Whoever closed standard error does without the question.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    };
    prompt(&format!("Password of {user}: "));
    let first = line(&mut input.lock());
    prompt("\nAgain: ");
    let second = line(&mut input.lock());
    prompt("\n");
    tcsetattr(&input, OptionalActions::Flush, &before)?;
    let (first, second) = (first?, second?);
    if *first != *second {
        return Err(std::io::Error::other("the two are not the same"));
    }
    Ok(first)
}

fn line(input: &mut impl BufRead) -> std::io::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::with_capacity(users::MAX_PASSWORD_BYTES + 2));
    let most = u64::try_from(users::MAX_PASSWORD_BYTES + 2).unwrap_or(u64::MAX);
    input.take(most).read_line(&mut text)?;
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 192.0.2.0\n        /24 link UNICAST\n     |-- 192.0.2.7\n        /32 host LOCAL\n";
        assert_eq!(local_in_trie(trie).collect::<Vec<_>>(), ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let six = "00000000000000000000000000000001 01 80 10 80       lo\n\
                   fe800000000000000000000000000001 02 40 20 80     eth0\n\
                   nonsense\n";
        assert_eq!(global_in(six).collect::<Vec<_>>(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(own_addresses().contains(&"127.0.0.1".parse().unwrap()), "this machine has one");
    }

    #[test]
    fn the_first_line_is_the_password() {
        for (input, expected) in [("secret\nmore", "secret"), ("secret\r\n", "secret"), ("a b ", "a b "), ("", "")] {
            assert_eq!(*line(&mut input.as_bytes()).unwrap(), expected);
        }
    }
}
