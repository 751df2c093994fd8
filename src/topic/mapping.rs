//! From one topic to another, or to a name: `lan/{topic}`, `{2}`.

use std::fmt;

/// What stands in braces is filled in: `{topic}` with the topic, `{2}` with its second level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Topic,
    /// Counted from 1.
    Level(usize),
}

impl Mapping {
    /// Reads a mapping.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (before, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if !before.is_empty() {
                super::check_text(before)?;
                parts.push(Part::Text(before.into()));
            }
            let Some(inner) = after.strip_prefix('{') else { break };
            let (name, after) = inner.split_once('}').ok_or("has a `{` without a `}`")?;
            parts.push(match name.parse() {
                _ if name == "topic" => Part::Topic,
                Ok(level @ 1..) => Part::Level(level),
                _ => {
                    return Err(format!("has the unknown placeholder `{{{name}}}`; there are {{topic}} {{1}} {{2}} …"));
                }
            });
            rest = after;
        }
        let whole = |index: usize| {
            let text = |index: usize| match parts.get(index) {
                None => "/",
                Some(Part::Text(text)) => text,
                Some(Part::Topic | Part::Level(_)) => "",
            };
            (index == 0 || text(index - 1).ends_with('/')) && text(index + 1).starts_with('/')
        };
        if parts.is_empty() {
            return Err("is empty".to_owned());
        }
        // Else no filter would say what becomes of the topics of another one.
        if (0..parts.len()).any(|index| parts[index] == Part::Topic && !whole(index)) {
            return Err("has {topic} without a slash between it and what stands beside it".to_owned());
        }
        Ok(Self(parts))
    }

    /// What a topic becomes; `None`: it has not so many levels.
    #[must_use]
    pub fn fill(&self, topic: &str) -> Option<String> {
        let mut filled = String::new();
        for part in &self.0 {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Topic => topic,
                Part::Level(level) => topic.split('/').nth(level - 1)?,
            });
        }
        Some(filled)
    }

    /// A filter that matches whatever becomes of the topics that `filter` matches.
    #[must_use]
    pub fn filter(&self, filter: &str) -> String {
        let mut filled = String::new();
        for part in &self.0 {
            filled.push_str(match part {
                Part::Text(text) => text,
                Part::Topic => filter,
                Part::Level(level) => filter.split('/').nth(level - 1).filter(|level| *level != "#").unwrap_or("+"),
            });
        }
        let mut levels = Vec::new();
        for level in filled.split('/') {
            if level.contains('#') {
                // What would follow may be anywhere below.
                levels.push("#");
                break;
            }
            levels.push(if level.contains('+') { "+" } else { level });
        }
        levels.join("/")
    }

    /// Does every topic become the same?
    #[must_use]
    pub fn is_fixed(&self) -> bool {
        self.0.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The levels that it is made of.
    pub fn levels(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|part| match part {
            Part::Level(level) => Some(*level),
            Part::Text(_) | Part::Topic => None,
        })
    }

    /// Does it name the whole topic?
    #[must_use]
    pub fn has_topic(&self) -> bool {
        self.0.contains(&Part::Topic)
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Topic => f.write_str("{topic}")?,
                Part::Level(level) => write!(f, "{{{level}}}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::filter;
    use super::*;

    #[test]
    fn topics_and_levels_are_filled_in() {
        for (mapping, topic, expected) in [
            ("{topic}", "esp/a", Some("esp/a")),
            ("lan/{topic}", "esp/a", Some("lan/esp/a")),
            ("esp-{2}", "esp/a", Some("esp-a")),
            ("{3}/{1}", "a/b/c", Some("c/a")),
            ("{3}", "a/b", None),
            ("fixed", "a", Some("fixed")),
        ] {
            let filled = Mapping::parse(mapping).expect("a mapping").fill(topic);
            assert_eq!(filled.as_deref(), expected, "{mapping} {topic}");
        }
        for bad in ["", "{", "{x}", "{0}", "{-1}", "a/#", "a}", "{topic}y", "x{topic}", "{1}{topic}"] {
            assert!(Mapping::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn the_filter_matches_whatever_a_topic_becomes(
            mapping in "(x/|x)?(\\{topic\\}|\\{1\\}|\\{2\\}/\\{1\\}|x-\\{2\\})(/y|y)?",
            from in "(\\+|a|b)(/(\\+|a|b))?(/(\\+|a|#))?",
            topic in "(a|b)(/(a|b))?(/(a|b))?(/a)?",
        ) {
            let Ok(mapping) = Mapping::parse(&mapping) else { return Ok(()) };
            if filter::matches(&from, &topic) && let Some(became) = mapping.fill(&topic) {
                let to = mapping.filter(&from);
                prop_assert!(filter::matches(&to, &became), "{} of {}: {} does not match {}", mapping, from, to, became);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in any::<String>(), topic in any::<String>()) {
            if let Ok(mapping) = Mapping::parse(&text) {
                let _ = mapping.fill(&topic);
                prop_assert_eq!(Mapping::parse(&mapping.to_string()), Ok(mapping));
            }
        }
    }
}
