//! Prevents: a guide that leads nowhere. Links between the pages must lead to files and headings that are there, the guide
//! in French must have its reader type what the one in English does, and configurations that are handed out must be read
//! by what they are for. That the lines of the guides do what they say is shown by `tests/guides/run`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every page of the repository that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from("README.md"), "ARCHITECTURE.md".into(), "CHANGELOG.md".into()];
    let mut folders = vec![PathBuf::from("docs"), "deploy".into()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the repository").flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    assert!(pages.len() > 20, "the pages were found");
    pages
}

/// The lines outside of fenced blocks, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// Where the links of a line lead: `[text](here)`, but not in code.
fn links(line: &str) -> impl Iterator<Item = &str> {
    // Between two backticks is code.
    line.split('`')
        .step_by(2)
        .flat_map(|prose| prose.split("](").skip(1))
        .filter_map(|rest| Some(rest.split_once(')')?.0))
}

/// The anchors of a page: those that its headings make, as GitHub does, and those that it sets itself.
fn anchors(text: &str) -> BTreeSet<String> {
    let lines = prose(text).map(|(_, line)| line).filter(|line| line.starts_with('#'));
    let headings = lines.filter_map(|line| line.trim_start_matches('#').strip_prefix(' ')).map(anchor);
    let set = text.split("<a id=\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()));
    headings.chain(set).collect()
}

fn anchor(heading: &str) -> String {
    let kept = |character: &char| character.is_alphanumeric() || matches!(character, ' ' | '-' | '_');
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(kept)
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let mut wrong = Vec::new();
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        let folder = page.parent().unwrap_or(Path::new(""));
        for (number, line) in prose(&text) {
            // A link whose text is code has backticks around that text alone.
            let line = line.replace("[`", "[").replace("`]", "]");
            for link in links(&line) {
                if link.contains("://") || link.starts_with("mailto:") {
                    continue;
                }
                seen += 1;
                let (path, heading) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { page.clone() } else { folder.join(path) };
                if !target.exists() {
                    wrong.push(format!("{}:{number}: there is no {}", page.display(), target.display()));
                } else if !heading.is_empty() && target.extension().is_some_and(|extension| extension == "md") {
                    let there = anchors(&fs::read_to_string(&target).expect("a page"));
                    if !there.contains(heading) {
                        wrong.push(format!(
                            "{}:{number}: {} has no heading `{heading}`",
                            page.display(),
                            target.display()
                        ));
                    }
                }
            }
        }
    }
    assert!(seen > 100, "links were found: {seen}");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// The fenced blocks, comments and empty lines left out, each with the marker that stands before it.
fn blocks(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let (mut inside, mut marker) = (false, "");
    for line in text.lines().map(str::trim) {
        if line.starts_with("```") {
            if !inside {
                found.push(format!("{marker}{line}\n"));
            }
            (inside, marker) = (!inside, "");
        } else if inside {
            let code = if line.starts_with('#') { "" } else { line };
            if !code.is_empty() {
                let block = found.last_mut().expect("a block was begun");
                block.push_str(code);
                block.push('\n');
            }
        } else if line.starts_with("<!--") {
            marker = line;
        }
    }
    found
}

#[test]
fn the_guide_in_french_has_the_lines_of_the_one_in_english() {
    let read = |name: &str| blocks(&fs::read_to_string(name).expect("a guide"));
    let (english, french) = (read("docs/guides/install.md"), read("docs/guides/install.fr.md"));
    assert!(english.len() > 15, "blocks were found");
    for (one, other) in english.iter().zip(&french) {
        assert_eq!(one, other);
    }
    assert_eq!(english.len(), french.len());
}

#[test]
fn what_is_handed_out_for_the_other_side_can_be_read() {
    let read = |name: &str| fs::read_to_string(Path::new("deploy/otherside").join(name)).expect("a file");
    let flows: serde_json::Value = serde_json::from_str(&read("node-red/flows.json")).expect("JSON");
    let nodes = flows.as_array().expect("a list of nodes");
    let ids: BTreeSet<&str> = nodes.iter().filter_map(|node| node["id"].as_str()).collect();
    assert_eq!(ids.len(), nodes.len(), "each node has an id of its own");
    for node in nodes {
        let wires =
            node["wires"].as_array().into_iter().flatten().flat_map(|outlet| outlet.as_array().into_iter().flatten());
        for to in wires
            .chain([&node["broker"]].into_iter().filter(|_| node["type"] != "mqtt-broker"))
            .filter_map(|id| id.as_str())
        {
            assert!(ids.contains(to), "{node} is wired to {to}");
        }
    }
    let _: serde_json::Value = serde_json::from_str(&read("grafana/dashboard.json")).expect("JSON");
    let telegraf: toml::Table = read("telegraf/vigie.conf").parse().expect("TOML");
    assert!(telegraf["inputs"]["mqtt_consumer"].is_array() && telegraf["outputs"]["influxdb_v2"].is_array());
}

/// Runs `deploy/provision/provision` over that table in a folder of its own.
fn provision(folder: &Path, table: &str, template: &str) -> (bool, String) {
    for (name, text) in
        [("table.csv", table), ("template.toml", template), ("key.pub", "ssh-ed25519 AAAA me\n"), ("vigie_1.deb", "")]
    {
        fs::write(folder.join(name), text).expect("a file");
    }
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/provision/provision");
    let output = Command::new("python3")
        .arg(program)
        .args(["table.csv", "--template", "template.toml", "--package", "vigie_1.deb", "--user", "pi"])
        .args(["--key", "key.pub", "--out", "cards"])
        .current_dir(folder)
        .output()
        .expect("python3 is there");
    (output.status.success(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

#[test]
fn a_wrong_table_is_refused_with_its_line_and_makes_nothing() {
    let template = "[gateway]\nname = \"@host@\"\nsite = \"@site@\"\n";
    for (table, words) in [
        ("name,site\na,b\n", "table.csv:1: there is no column `host`"),
        ("host,site,site\na,b,c\n", "table.csv:1: two columns are called `site`"),
        ("host,my site\na,b\n", "table.csv:1: `my site` is no name for a column"),
        ("host,site\n", "there is no gateway in it"),
        ("host,site\na\n", "table.csv:2: this line has not as many fields as the first"),
        ("host,site\na,b,c\n", "table.csv:2: this line has not as many fields as the first"),
        ("host,site\nSalle 12,b\n", "table.csv:2: `Salle 12` is no host name"),
        ("host,site\n../../etc,b\n", "table.csv:2: `../../etc` is no host name"),
        ("host,site\nbroker,b\n", "table.csv:2: the host `broker` is taken"),
        ("host,site\na,b\na,c\n", "table.csv:3: the host `a` is taken by table.csv:2"),
        ("host,site\na,\"b\"\"c\"\n", "table.csv:2: `site` has a quotation mark"),
        ("host,room\na,b\n", "template.toml: @site@ is no column of the table"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        let (fine, said) = provision(folder.path(), table, template);
        assert!(!fine && said.contains(words), "{table:?}: {said}");
        assert!(!said.contains("Traceback"), "{said}");
        assert!(!folder.path().join("cards").exists(), "{table:?}: something was made");
    }
}

#[test]
fn provisioning_again_keeps_passwords_and_forgets_who_has_left() {
    use std::os::unix::fs::PermissionsExt;

    let folder = tempfile::tempdir().expect("a folder");
    let template = "[gateway]\nname = \"@host@\"\nlabel = \"@label@\"\n\n[[sensor]]\nname = \"pi\"\ndriver = \"host\"\n\n[broker]\n";
    let of =
        |host: &str| fs::read_to_string(folder.path().join(format!("cards/{host}/vigie/mqtt"))).expect("a password");
    // As a French Excel writes it.
    let (fine, said) = provision(folder.path(), "\u{feff}host;label\na;Salle é\nb;B\n", template);
    assert!(fine && said.contains("2 cards in cards (2 with a new password); 0 users are gone"), "{said}");
    let (a, b) = (of("a"), of("b"));
    assert!(a != b && a.trim().len() >= 32, "random, and one for each");
    let (fine, said) = provision(folder.path(), "host,label\na,Salle é\nc,C\n", template);
    assert!(fine && said.contains("2 cards in cards (1 with a new password); 1 users are gone"), "{said}");
    assert_eq!(of("a"), a);

    let secret = folder.path().join("cards/broker/passwords.csv");
    assert_eq!(fs::metadata(&secret).expect("a file").permissions().mode() & 0o777, 0o600);
    let users = fs::read_to_string(&secret).expect("a file");
    assert!(users.contains(a.trim()) && !users.contains(b.trim()), "who has left has no password any more");
    let hashed = fs::read_to_string(folder.path().join("cards/broker/mosquitto.passwords")).expect("a file");
    assert!(hashed.starts_with("a:$7$") && !hashed.contains(a.trim()), "{hashed}");

    let user_data = fs::read_to_string(folder.path().join("cards/a/user-data")).expect("a file");
    let json = user_data.strip_prefix("#cloud-config\n").expect("what cloud-init looks for");
    let user_data: serde_json::Value = serde_json::from_str(json).expect("JSON, which is YAML");
    assert_eq!(user_data["hostname"], "a");
    let configuration = folder.path().join("cards/a/vigie/vigie.toml");
    assert!(fs::read_to_string(&configuration).expect("a file").contains("label = \"Salle é\""));
    let checked =
        Command::new(env!("CARGO_BIN_EXE_vigie")).arg("check").arg(&configuration).output().expect("it starts");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
