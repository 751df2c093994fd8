//! Names of quantities from what a device calls them: one level of a topic each.
//!
//! The rule here must give only what the topics take; a test holds it to that.

/// Appends a device's word to a name; what a topic's level cannot hold becomes `_`.
pub(crate) fn push_safe(name: &mut String, word: &str) {
    if word.is_empty() {
        name.push('_');
        return;
    }
    // 0xc2 may begin one of the control characters U+0080 to U+009F.
    let plain = |byte: u8| !matches!(byte, 0..=0x1f | b'/' | b'+' | b'#' | b'{' | b'}' | b'$' | 0x7f | 0xc2);
    if word.bytes().all(plain) {
        name.push_str(word);
        return;
    }
    for character in word.chars() {
        let unsafe_here = matches!(character, '/' | '+' | '#' | '{' | '}')
            || character.is_control()
            || (character == '$' && name.is_empty());
        name.push(if unsafe_here { '_' } else { character });
    }
}

/// The name as a quantity's: those that stand for vigie's own topics get a `_` behind them.
pub(crate) fn quantity(name: &str) -> String {
    let mut owned = String::with_capacity(name.len() + 1);
    owned.push_str(name);
    if crate::topic::RESERVED.contains(&name) {
        owned.push('_');
    }
    owned
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name_of(word: &str) -> String {
        let mut name = String::new();
        push_safe(&mut name, word);
        quantity(&name)
    }

    #[test]
    fn what_people_write_is_kept_and_what_topics_mean_otherwise_is_not() {
        assert_eq!(name_of("lumière du jour"), "lumière du jour");
        assert_eq!(name_of("km/h"), "km_h");
        assert_eq!(name_of("$SYS"), "_SYS");
        assert_eq!(name_of("US$"), "US$");
        assert_eq!(name_of("+\u{85}#"), "___");
        assert_eq!(name_of(""), "_");
    }

    #[test]
    fn reserved_levels_are_not_taken() {
        for reserved in crate::topic::RESERVED {
            assert!(!crate::topic::RESERVED.contains(&name_of(reserved).as_str()), "{reserved}");
        }
    }

    proptest! {
        #[test]
        fn every_name_is_one_level_of_a_topic(word in any::<String>()) {
            let name = name_of(&word);
            prop_assert_eq!(crate::topic::check_name(&name), Ok(()));
            prop_assert!(crate::topic::check(&name).is_ok() || name.len() > crate::topic::MAX_BYTES);
        }
    }
}
