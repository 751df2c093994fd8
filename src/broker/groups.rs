//! Shared subscriptions (MQTT 5, 4.8.2): `$share/GROUP/FILTER`. Of a group's members one gets each message, in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::subscribe::SharedSubscription;
use rmqtt::types::{
    ClientId, Id, IsOnline, NodeId, SharedGroup, SubscriptionIdentifier, SubscriptionOptions, TopicName,
};

/// What a filter of a group begins with.
const SHARE: &str = "$share/";

type Member = (NodeId, ClientId, SubscriptionOptions, Option<Vec<SubscriptionIdentifier>>, Option<IsOnline>);

/// Chooses the member that gets a message.
#[derive(Debug, Default)]
pub(super) struct Groups(AtomicUsize);

impl Groups {
    /// The next in turn of those that are connected; of all, where none is.
    fn next(&self, online: &[bool]) -> Option<usize> {
        let turn = self.0.fetch_add(1, Ordering::Relaxed);
        let count = online.iter().filter(|online| **online).count();
        if count == 0 {
            return (!online.is_empty()).then(|| turn % online.len());
        }
        online.iter().enumerate().filter(|(_, online)| **online).nth(turn % count).map(|(index, _)| index)
    }
}

#[async_trait]
impl SharedSubscription for Groups {
    fn is_supported(&self) -> bool {
        true
    }

    async fn choice(
        &self,
        _: &ServerContext,
        _: &SharedGroup,
        _: &Id,
        _: &TopicName,
        members: &[Member],
    ) -> Option<(usize, IsOnline)> {
        let online: Vec<bool> = members.iter().map(|member| member.4.unwrap_or_default()).collect();
        self.next(&online).map(|index| (index, online[index]))
    }
}

/// A filter with its group, as the client said it.
pub(super) fn joined(group: Option<&str>, filter: &str) -> String {
    group.map_or_else(|| filter.to_owned(), |group| format!("{SHARE}{group}/{filter}"))
}

/// The group and the filter of what [`joined`] has made.
pub(super) fn split(joined: &str) -> (Option<&str>, &str) {
    match joined.strip_prefix(SHARE).and_then(|rest| rest.split_once('/')) {
        Some((group, filter)) => (Some(group), filter),
        None => (None, joined),
    }
}

/// Can it be a group's name (4.8.2)? It is one level.
pub(super) fn is_name(group: &str) -> bool {
    !group.is_empty() && !group.contains(['+', '#', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_take_turns_and_those_who_are_there_go_first() {
        let groups = Groups::default();
        let turns = |online: &[bool]| -> Vec<Option<usize>> { (0..4).map(|_| groups.next(online)).collect() };
        assert_eq!(turns(&[true, false, true]), [Some(0), Some(2), Some(0), Some(2)]);
        assert_eq!(turns(&[false, false]), [Some(0), Some(1), Some(0), Some(1)]);
        assert_eq!(turns(&[]), [None; 4]);
    }

    #[test]
    fn a_filter_keeps_its_group_on_the_way_through_the_store() {
        for (group, filter) in [(None, "a/#"), (Some("g"), "a/#"), (Some("g"), "/a"), (None, "$SYS/#")] {
            assert_eq!(split(&joined(group, filter)), (group, filter));
        }
        assert!(is_name("g 1") && !is_name("") && !is_name("a+") && !is_name("#"));
    }
}
