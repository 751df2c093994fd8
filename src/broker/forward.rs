//! The way from a publisher to its subscribers: what waits for each of them is bounded here, and what a session must
//! not lose is in the store before the publisher has its acknowledgement.
//!
//! The broker crate asks its `Shared` part to forward each message; this one does so in its place, and leaves
//! everything else to the crate's own.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use rmqtt::context::ServerContext;
use rmqtt::session::Session;
use rmqtt::shared::{DefaultShared, Entry, RetainLoadCallback, Shared as CratesShared};
use rmqtt::types::{
    ForwardedCount, ForwardedRecipients, From, Id, MsgID, NodeId, Publish, QoS, Reason, SessionStatus, SubRelations,
    SubRelationsMap, SubsSearchParams, SubsSearchResult, To, TopicFilter,
};
use tokio::task::unconstrained;

use super::convert;
use super::refusals::Refusal;
use super::shared::Shared;

type NotForwarded = Vec<(To, From, Publish, Reason)>;

/// Marks a message that is counted in its client's queue and that the store does not have. The store's numbers begin
/// with 1.
pub(super) const NOT_STORED: u32 = 0;

/// The crate's own forwarding, with our bounds and our store.
pub(super) struct Forwarder {
    inner: DefaultShared,
    context: ServerContext,
    shared: Arc<Shared>,
}

impl Forwarder {
    pub(super) fn new(context: ServerContext, shared: Arc<Shared>) -> Self {
        Self { inner: DefaultShared::new(Some(context.clone())), context, shared }
    }

    /// Leaves out the clients that have too much waiting, and stores the message for the sessions among the others.
    fn admit(&self, from: &From, publish: &mut Publish, mut relations: SubRelations) -> SubRelations {
        let size = publish.topic.len() + publish.payload.len();
        let is_bridge = self.shared.clients().is_bridge(&from.id.client_id);
        relations.retain(|(_, client, ..)| {
            // A bridge would take its own messages back to where they come from; one of 3.1.1 cannot ask for less.
            if is_bridge && *client == from.id.client_id {
                return false;
            }
            let fits = self.shared.clients().enqueue(client, size);
            if !fits {
                self.shared.refusals.note(Refusal::Queue, &client);
            }
            fits
        });
        let mut number = NOT_STORED;
        if publish.qos != QoS::AtMostOnce {
            let mut store = self.shared.store();
            let waiting: Vec<_> = relations
                .iter()
                .filter(|(_, client, options, ..)| options.qos() != QoS::AtMostOnce && store.has_session(client))
                .map(|(_, client, options, ids, _)| {
                    convert::waiting(client, publish, options, ids.as_deref().unwrap_or_default())
                })
                .collect();
            if !waiting.is_empty() {
                number = store.enqueue(convert::message(publish, &from.client_id), waiting, Instant::now());
                self.shared.wake_flusher();
            }
        }
        // Nothing else uses this field: it is for delayed messages, a feature of the crate that is off.
        publish.delay_interval = Some(number);
        relations
    }
}

#[async_trait]
impl CratesShared for Forwarder {
    async fn forwards(
        &self,
        message: Option<MsgID>,
        from: From,
        mut publish: Publish,
    ) -> Result<ForwardedCount, (ForwardedCount, NotForwarded)> {
        // A message for one client alone, which nobody of ours sends: see `hooks.rs`.
        if publish.target_clientid.is_some() {
            return self.inner.forwards(message, from, publish).await;
        }
        convert::own(&mut publish);
        let router = self.context.extends.router().await;
        // For a shared subscription the crate holds locks of its maps, which block the thread, over what it awaits: of this
        // one thread it must not be put off for having done much, or another task that wants them ends everything.
        let matched = unconstrained(router.matches(from.id.clone(), &publish.topic)).await;
        drop(router);
        let mut by_node = matched.unwrap_or_else(|error| {
            tracing::warn!(topic = &*publish.topic, %error, "broker: no subscriber can be found");
            SubRelationsMap::default()
        });
        let relations = by_node.remove(&self.context.node.id()).unwrap_or_default();
        let relations = self.admit(&from, &mut publish, relations);
        match self.inner.forwards_to(from, &publish, relations, message).await {
            Ok(recipients) => Ok(recipients.len()),
            Err((recipients, failed)) => Err((recipients.len(), failed)),
        }
    }

    fn entry(&self, id: Id) -> Box<dyn Entry> {
        self.inner.entry(id)
    }

    fn exist(&self, client: &str) -> bool {
        self.inner.exist(client)
    }

    async fn forwards_and_get_shareds(
        &self,
        from: From,
        publish: Publish,
    ) -> Result<(SubRelationsMap, ForwardedRecipients), (ForwardedRecipients, NotForwarded)> {
        self.inner.forwards_and_get_shareds(from, publish).await
    }

    async fn forwards_to(
        &self,
        from: From,
        publish: &Publish,
        relations: SubRelations,
        message: Option<MsgID>,
    ) -> Result<ForwardedRecipients, (ForwardedRecipients, NotForwarded)> {
        self.inner.forwards_to(from, publish, relations, message).await
    }

    fn iter(&self) -> Box<dyn Iterator<Item = Box<dyn Entry>> + Sync + Send + '_> {
        self.inner.iter()
    }

    fn random_session(&self) -> Option<Session> {
        self.inner.random_session()
    }

    async fn session_status(&self, client: &str) -> Option<SessionStatus> {
        self.inner.session_status(client).await
    }

    async fn client_states_count(&self) -> usize {
        self.inner.client_states_count().await
    }

    fn sessions_count(&self) -> usize {
        self.inner.sessions_count()
    }

    async fn query_subscriptions(&self, query: &SubsSearchParams) -> Vec<SubsSearchResult> {
        self.inner.query_subscriptions(query).await
    }

    async fn subscriptions_count(&self) -> usize {
        // The crate's own holds locks of its maps over what it awaits: see above.
        let sessions: Vec<Session> = self.inner.iter().filter_map(|entry| entry.session()).collect();
        let mut count = 0;
        for session in sessions {
            if let Ok(subscriptions) = session.subscriptions().await {
                count += subscriptions.len().await;
            }
        }
        count
    }

    async fn retain_load_with(
        &self,
        filter: &TopicFilter,
        callback: Arc<dyn RetainLoadCallback>,
    ) -> rmqtt::Result<Vec<(NodeId, MsgID)>> {
        self.inner.retain_load_with(filter, callback).await
    }
}
