//! Patterns of rights, which are topic filters.

/// Does the pattern match every topic that the filter can match? `fill` says what stands in place of a level of the
/// pattern; `None`: nothing matches it.
pub(super) fn covers<'a>(pattern: &'a str, filter: &str, fill: impl Fn(&'a str) -> Option<&'a str>) -> bool {
    if filter.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let mut levels = filter.split('/');
    for allowed in pattern.split('/') {
        match (allowed, levels.next()) {
            // `a/#` matches `a` as well.
            ("#", _) => return true,
            (_, None | Some("#")) => return false,
            ("+", Some(_)) => {}
            (allowed, Some(level)) if level != "+" && fill(allowed) == Some(level) => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::topic::filter::matches;

    #[test]
    fn a_pattern_covers_a_filter() {
        let plain = |level| Some(level);
        for (pattern, filter, expected) in [
            ("#", "#", true),
            ("#", "a/+/b", true),
            ("#", "$SYS/#", false),
            ("$SYS/#", "$SYS/#", true),
            ("a/#", "a", true),
            ("a/#", "a/#", true),
            ("a/#", "a/b/#", true),
            ("a/#", "+/b", false),
            ("a/+", "a/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/+", "a", false),
            ("a/b", "a/+", false),
            ("+", "a/b", false),
        ] {
            assert_eq!(covers(pattern, filter, plain), expected, "{pattern} {filter}");
        }
    }

    #[test]
    fn what_is_filled_in_is_one_level_and_never_a_wildcard() {
        let client = |level| if level == "%c" { Some("+") } else { Some(level) };
        assert!(!covers("a/%c", "a/+", client), "a client called `+`");
        assert!(!covers("a/%c", "a/b", client));
        let slash = |level| if level == "%c" { Some("b/c") } else { Some(level) };
        assert!(!covers("a/%c", "a/b/c", slash), "a client called `b/c`");
        assert!(!covers("a/%c", "a/%c", |level| if level == "%c" { None } else { Some(level) }), "no client");
    }

    proptest! {
        #[test]
        fn covering_means_matching_whatever_the_filter_matches(
            pattern in "(\\+|a|b|\\$x)(/(\\+|a|b))?(/(\\+|a|#))?",
            filter in "(\\+|a|b|\\$x)(/(\\+|a|b))?(/(\\+|a|#))?",
            topic in "(a|b|\\$x)(/(a|b))?(/(a|b))?(/a)?",
        ) {
            if covers(&pattern, &filter, Some) && matches(&filter, &topic) {
                prop_assert!(matches(&pattern, &topic));
            }
        }
    }
}
