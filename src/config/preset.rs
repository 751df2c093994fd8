//! `preset`: keys that an uplink has from its target where the user does not give them.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::read::Surroundings;
use super::{BrokerUrl, Gateway, Pseudonyms, uplink};
use crate::options::Options;
use crate::targets::{self, Default, Given, TARGETS, Target};

/// What a preset has set.
#[derive(Clone, Debug)]
pub struct Preset {
    /// The target.
    pub target: &'static Target,
    /// What of its keys the user does not give.
    pub set: Vec<Default>,
}

impl PartialEq for Preset {
    fn eq(&self, other: &Self) -> bool {
        self.target.name == other.target.name && self.set == other.set
    }
}

/// The text of the keys that the preset of an uplink's table adds; empty where it has none, or an unknown one.
pub(super) fn added(
    table: &DeTable<'_>,
    gateway: &Gateway,
    around: &Surroundings<'_>,
    pseudonyms: Option<&Pseudonyms>,
) -> Vec<Default> {
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    let Some(target) = text("preset").and_then(targets::by_name) else { return Vec::new() };
    let mut set = (target.defaults)(&given(table, target, gateway, around, pseudonyms));
    set.retain(|default| find(table, default.key).is_none());
    set
}

fn given(
    table: &DeTable<'_>,
    target: &Target,
    gateway: &Gateway,
    around: &Surroundings<'_>,
    pseudonyms: Option<&Pseudonyms>,
) -> Given {
    let first = table.get("url").and_then(|value| match value.get_ref() {
        DeValue::Array(list) => list.iter().next()?.get_ref().as_str(),
        value => value.as_str(),
    });
    let url = first.and_then(|url| BrokerUrl::parse(url).ok());
    let text = |key: &str| table.get(key).and_then(|value| value.get_ref().as_str());
    let client_id = text("client_id");
    let client_id = client_id.or(target.client_id).unwrap_or(uplink::DEFAULT_CLIENT_ID);
    Given {
        // What is missing or wrong here is reported where it is read.
        host: url.as_ref().map(|url| url.host.clone()).unwrap_or_default(),
        port: url.map(|url| url.port).unwrap_or_default(),
        client_id: uplink::fill(client_id, gateway, around, pseudonyms).unwrap_or_default(),
        format: text("format").unwrap_or_default().to_owned(),
    }
}

/// The value behind a key such as `qos` or `tls.alpn`.
fn find<'t, 'a>(table: &'t DeTable<'a>, key: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    match key.split_once('.') {
        None => table.get(key),
        Some((outer, inner)) => find(table.get(outer)?.get_ref().as_table()?, inner),
    }
}

/// As TOML.
pub(super) fn text(added: &[Default]) -> String {
    added.iter().map(|default| format!("{} = {}\n", default.key, default.value)).collect()
}

/// The table with what is added. All of that stands where `preset` does, so that a problem with it is shown there.
pub(super) fn filled<'t>(table: &'t DeTable<'t>, added: &'t str) -> DeTable<'t> {
    let at = table.get("preset").map_or(0..0, Spanned::span);
    let mut filled = table.clone();
    if let Ok(added) = DeTable::parse(added) {
        add(&mut filled, added.into_inner(), &at);
    }
    filled
}

fn add<'t>(table: &mut DeTable<'t>, added: DeTable<'t>, at: &Range<usize>) {
    for (key, value) in added {
        match (table.get_mut(key.get_ref().as_ref()), value.into_inner()) {
            (None, value) => {
                table.insert(Spanned::new(at.clone(), key.into_inner()), placed(value, at));
            }
            (Some(known), DeValue::Table(inner)) => {
                if let DeValue::Table(known) = known.get_mut() {
                    add(known, inner, at);
                }
            }
            (Some(_), _) => {}
        }
    }
}

fn placed<'t>(value: DeValue<'t>, at: &Range<usize>) -> Spanned<DeValue<'t>> {
    let value = match value {
        DeValue::Array(list) => DeValue::Array(list.into_iter().map(|item| placed(item.into_inner(), at)).collect()),
        DeValue::Table(inner) => {
            let mut table = DeTable::new();
            add(&mut table, inner, at);
            DeValue::Table(table)
        }
        value => value,
    };
    Spanned::new(at.clone(), value)
}

/// `preset`
pub(super) fn target(options: &Options<'_>) -> Option<&'static Target> {
    let words: Vec<(&str, &'static Target)> = TARGETS.iter().map(|target| (target.name, *target)).collect();
    options.optional_word("preset", &words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_user_writes_wins_also_inside_of_a_table() {
        let table = DeTable::parse("preset = \"x\"\nqos = 0\ntls = { ca = \"a\" }\n").expect("TOML");
        let added = "qos = 1\nretain = false\ntls.ca = \"b\"\ntls.alpn = [\"c\"]\nnew.one = 1\n";
        let table = table.into_inner();
        let filled = filled(&table, added);
        let text = |key| find(&filled, key).map(|value| (value.span(), format!("{:?}", value.get_ref())));
        let at = |key| text(key).expect("a value").0;
        assert!(text("qos").is_some_and(|(_, value)| value.contains('0')));
        assert!(text("tls.ca").is_some_and(|(_, value)| value.contains("\"a\"")));
        assert_eq!((at("retain"), at("tls.alpn"), at("new.one")), (9..12, 9..12, 9..12));
        assert_eq!(filled.len(), 5);
    }
}
