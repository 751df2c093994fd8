//! Topic filters (MQTT 3.1.1, 4.7).

/// Longest filter of the configuration, in bytes.
pub const MAX_BYTES: usize = 1024;

/// Does the filter match the topic (4.7.1 and 4.7.2)?
#[must_use]
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

/// Is there a topic that both filters match?
#[must_use]
pub fn overlap(one: &str, other: &str) -> bool {
    let hidden = |a: &str, b: &str| a.starts_with('$') && b.starts_with(['+', '#']);
    if hidden(one, other) || hidden(other, one) {
        return false;
    }
    let (mut a, mut b) = (one.split('/'), other.split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) | (Some("#"), _) | (_, Some("#")) => return true,
            (Some("+"), Some(_)) | (Some(_), Some("+")) => {}
            (Some(left), Some(right)) if left == right => {}
            _ => return false,
        }
    }
}

/// Is it a filter (4.7.1)?
///
/// # Errors
/// What is wrong with it.
pub fn check(filter: &str) -> Result<(), &'static str> {
    if filter.is_empty() || filter.len() > MAX_BYTES {
        return Err("is empty or too long");
    }
    if filter.chars().any(char::is_control) {
        return Err("contains a control character");
    }
    let levels: Vec<&str> = filter.split('/').collect();
    for (index, level) in levels.iter().enumerate() {
        if *level == "#" && index + 1 < levels.len() {
            return Err("has a `#` that is not its last level");
        }
        if level.contains(['+', '#']) && level.len() > 1 {
            return Err("has a wildcard that is not a level of its own");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_overlap_where_one_topic_would_match_both() {
        for (one, other, expected) in [
            ("esp/#", "esp/+/state", true),
            ("esp/#", "esp", true),
            ("esp/+", "esp/a/b", false),
            ("+/b", "a/+", true),
            ("lan/#", "esp/#", false),
            ("#", "$SYS/#", false),
            ("#", "a", true),
            ("$x/+", "$x/a", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn a_filter_has_its_wildcards_as_levels() {
        for good in ["#", "+", "a/+/b", "a/#", "$SYS/#", "/"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "a/#/b", "a+", "a/b#", "a\0"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_two_filters_makes_them_overlap(
            one in "(\\+|a|b|\\$x)(/(\\+|a|b))?(/(\\+|a|#))?",
            other in "(\\+|a|b|\\$x)(/(\\+|a|b))?(/(\\+|a|#))?",
            topic in "(a|b|\\$x)(/(a|b))?(/(a|b))?(/a)?",
        ) {
            if matches(&one, &topic) && matches(&other, &topic) {
                prop_assert!(overlap(&one, &other));
            }
        }
    }
}
