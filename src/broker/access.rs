//! What a client may read and write.

use std::sync::Arc;

use crate::config::BrokerRules;

use super::topics::covers;

/// What a broker says about itself, and no client (MQTT 3.1.1, 4.7.2).
const BROKERS_OWN: &str = "$SYS/";

/// Who a client is, and what follows from it. By default it is nobody and may do nothing.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// Its user; `None`: anonymous.
    user: Option<Arc<str>>,
    rights: Rights,
}

#[derive(Debug, Default)]
enum Rights {
    #[default]
    None,
    /// Those of the gateway itself.
    Gateway,
    /// Everything but what is the gateway's alone.
    All,
    /// What these patterns say, again without what is the gateway's alone.
    Only(Arc<BrokerRules>),
}

impl Access {
    /// The gateway itself.
    pub(super) fn gateway() -> Self {
        Self { user: None, rights: Rights::Gateway }
    }

    /// A client that has shown who it is, or an anonymous one where that is allowed; without rules it may do
    /// everything that is not the gateway's.
    pub(super) fn of(user: Option<&str>, rules: Option<&Arc<BrokerRules>>) -> Self {
        let rights = rules.map_or(Rights::All, |rules| Rights::Only(Arc::clone(rules)));
        Self { user: user.map(Arc::from), rights }
    }

    /// Its user.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Is it the gateway?
    pub(super) fn is_gateway(&self) -> bool {
        matches!(self.rights, Rights::Gateway)
    }

    /// Is it a client at all?
    pub(super) fn is_someone(&self) -> bool {
        !matches!(self.rights, Rights::None)
    }

    /// May the client of that name subscribe to the filter?
    pub(super) fn may_read(&self, client: &str, filter: &str) -> bool {
        match &self.rights {
            Rights::None => false,
            Rights::Gateway | Rights::All => true,
            Rights::Only(rules) => self.any(&rules.read, client, filter),
        }
    }

    /// May the client of that name publish on the topic? `own`: it is one of the gateway's.
    pub(super) fn may_write(&self, client: &str, topic: &str, own: bool) -> bool {
        match &self.rights {
            Rights::None => false,
            Rights::Gateway => true,
            Rights::All => !own && !topic.starts_with(BROKERS_OWN),
            Rights::Only(rules) => !own && !topic.starts_with(BROKERS_OWN) && self.any(&rules.write, client, topic),
        }
    }

    fn any(&self, patterns: &[String], client: &str, filter: &str) -> bool {
        patterns.iter().any(|pattern| {
            covers(pattern, filter, |level| match level {
                "%c" => Some(client).filter(|name| is_level(name)),
                "%u" => self.user.as_deref().filter(|name| is_level(name)),
                level => Some(level),
            })
        })
    }
}

/// Can a name stand in place of one level?
fn is_level(name: &str) -> bool {
    !name.is_empty() && !name.contains(['/', '+', '#'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(read: &[&str], write: &[&str]) -> Access {
        let owned = |patterns: &[&str]| patterns.iter().map(|&pattern| pattern.to_owned()).collect();
        let rules = BrokerRules { read: owned(read), write: owned(write), certificate: None };
        Access::of(Some("eve"), Some(&Arc::new(rules)))
    }

    #[test]
    fn rules_say_what_may_be_read_and_written() {
        let eve = only(&["home/#", "for/%u/%c"], &["from/%u/+"]);
        assert!(eve.may_read("esp", "home/#"));
        assert!(eve.may_read("esp", "home/+/x"));
        assert!(!eve.may_read("esp", "#"));
        assert!(eve.may_read("esp", "for/eve/esp"));
        assert!(!eve.may_read("esp", "for/bob/esp"));
        assert!(!eve.may_read("e/p", "for/eve/e/p"), "a client identifier is one level");
        assert!(eve.may_write("esp", "from/eve/x", false));
        assert!(!eve.may_write("esp", "from/eve/x", true), "the gateway's own");
        assert!(!eve.may_write("esp", "from/eve", false));
        assert!(!eve.may_write("esp", "home/x", false), "only for reading");
    }

    #[test]
    fn without_rules_everything_but_the_gateways_is_allowed() {
        let all = Access::of(None, None);
        assert!(all.may_read("c", "#") && all.may_write("c", "a/b", false));
        assert!(!all.may_write("c", "a/b", true) && !all.may_write("c", "$SYS/x", false));
        let gateway = Access::gateway();
        assert!(gateway.may_write("g", "a/b", true) && gateway.may_read("g", "#"));
        let nobody = Access::default();
        assert!(!nobody.may_read("c", "a") && !nobody.may_write("c", "a", false) && !nobody.is_someone());
    }
}
