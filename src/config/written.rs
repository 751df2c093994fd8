//! What tables say, whatever their order and layout: to tell whether two configurations say the same of something whose
//! meaning is not ours to compare.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use toml::de::DeValue;

use crate::options::Options;

/// The keys of a table with their values. Two that are equal mean the same; `Debug` shows only the keys, as a value may be
/// what somebody should not have written there.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Written(BTreeMap<String, String>);

impl Written {
    /// The keys of a table that `wanted` holds for.
    pub(super) fn of(table: &Options<'_>, wanted: impl Fn(&str) -> bool) -> Self {
        let keys = table.entries().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref()));
        let wanted = keys.filter(|(key, _)| wanted(key));
        Self(wanted.map(|(key, value)| (key.to_owned(), text(value))).collect())
    }

    /// The keys that do not say the same here and there, sorted.
    #[must_use]
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let mut keys: Vec<&str> = self.0.keys().chain(other.0.keys()).map(String::as_str).collect();
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| self.0.get(*key) != other.0.get(*key));
        keys
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

fn text(value: &DeValue<'_>) -> String {
    let mut out = String::new();
    put(value, &mut out);
    out
}

/// Writing to a `String` cannot fail.
fn put(value: &DeValue<'_>, out: &mut String) {
    let _ = match value {
        DeValue::String(text) => write!(out, "{text:?}"),
        // A number is the same with and without underscores; another base is another text, and at worst seems changed.
        DeValue::Integer(number) => write!(out, "i{}:{}", number.radix(), number.as_str()),
        DeValue::Float(number) => write!(out, "f{}", number.as_str()),
        DeValue::Boolean(on) => write!(out, "{on}"),
        DeValue::Datetime(time) => write!(out, "t{time}"),
        DeValue::Array(list) => {
            out.push('[');
            for item in list.iter() {
                put(item.get_ref(), out);
                out.push(',');
            }
            out.push(']');
            Ok(())
        }
        DeValue::Table(table) => {
            let mut keys: Vec<(&str, &DeValue<'_>)> =
                table.iter().map(|(key, value)| (key.get_ref().as_ref(), value.get_ref())).collect();
            keys.sort_unstable_by_key(|(key, _)| *key);
            out.push('{');
            for (key, value) in keys {
                let _ = write!(out, "{key:?}=");
                put(value, out);
                out.push(',');
            }
            out.push('}');
            Ok(())
        }
    };
}

#[cfg(test)]
mod tests {
    use toml::de::DeTable;

    use super::*;
    use crate::options::Problems;

    fn written(text: &str) -> Written {
        let (table, problems) = (DeTable::parse(text).expect("TOML"), Problems::new());
        Written::of(&Options::new(table.get_ref(), 0..0, "a table", &problems), |key| key != "left_out")
    }

    #[test]
    fn order_and_layout_do_not_matter_and_values_do() {
        let one = written("a = 1_000\nb = { x = \"y\", z = [1, 2] }\nleft_out = 1\n");
        let same = written("# a comment\nleft_out = 2\n[b]\nz = [\n1,\n2 ]\nx = 'y'\n");
        assert_eq!(one.differing(&same), ["a"]);
        for (text, keys) in [
            ("a = 1000\nb = { x = \"y\", z = [1, 2] }", &[][..]),
            ("a = 1001\nb = { x = \"y\", z = [1, 2] }", &["a"]),
            ("a = \"1000\"\nb = { x = \"y\", z = [2, 1] }\nc = true", &["a", "b", "c"]),
        ] {
            assert_eq!(one.differing(&written(text)), keys, "{text}");
            assert_eq!(one == written(text), keys.is_empty(), "{text}");
        }
    }

    #[test]
    fn what_stands_in_it_is_not_shown() {
        assert_eq!(format!("{:?}", written("password = \"geheim\"")), "{\"password\"}");
    }
}
