//! Sessions that were stored come back, with what waits for them, before anybody can connect.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rmqtt::context::ServerContext;
use rmqtt::session::{Session, SessionState};
use rmqtt::types::{
    ClientId, DisconnectInfo, Id, ListenerConfig, Message, SessionSubMap, SessionSubs, SubscriptionOptions, TopicFilter,
};
use rmqtt::utils::timestamp_millis;

use super::convert;
use super::groups;
use super::shared::Shared;
use super::store::record;

/// Brings them all back. One that cannot be is forgotten, with a line in the log.
pub(super) async fn sessions(context: &ServerContext, settings: &ListenerConfig, shared: &Arc<Shared>) {
    let stored: Vec<(Arc<str>, record::Session)> =
        shared.store().sessions().map(|(client, session)| (Arc::clone(client), session.clone())).collect();
    for (client, session) in stored {
        if !shared.logins.may_return(&session) {
            tracing::info!(client = &*client, "broker: a session ends, because its user cannot log in any more");
            shared.store().end_session(&client, Instant::now());
            continue;
        }
        if let Err(error) = one(context, settings, shared, &client, session).await {
            tracing::warn!(client = &*client, "broker: a stored session cannot be restored: {error:#}");
            shared.store().end_session(&client, Instant::now());
        }
    }
}

/// A subscription that was kept, with its group.
fn subscription(joined: &str, kept: record::Subscription) -> (TopicFilter, SubscriptionOptions) {
    let (group, filter) = groups::split(joined);
    (TopicFilter::from(filter.to_owned()), convert::options(kept, group))
}

async fn one(
    context: &ServerContext,
    settings: &ListenerConfig,
    shared: &Arc<Shared>,
    client: &str,
    stored: record::Session,
) -> rmqtt::Result<()> {
    let now = Instant::now();
    let access = shared.logins.owner_of(&stored);
    // The rules may have changed meanwhile.
    let (allowed, refused): (Vec<_>, Vec<_>) =
        stored.subscriptions.iter().partition(|(filter, _)| access.may_read(client, groups::split(filter).1));
    for (filter, _) in refused {
        shared.store().unsubscribe(client, filter, now);
    }
    let client_id = ClientId::from(client.to_owned());
    let username = stored.user.as_deref().map(|user| user.to_owned().into());
    let id = Id::new(context.node.id(), super::server::LISTENER, Some(settings.laddr), None, client_id, username);
    let connect = Arc::new(convert::connect(&id, &stored));
    let fitter = context.extends.fitter_mgr().await.create(Arc::clone(&connect), id.clone(), Arc::clone(settings));
    let subscriptions: SessionSubMap = allowed.iter().map(|(joined, kept)| subscription(joined, *kept)).collect();
    let left = DisconnectInfo::new(timestamp_millis());
    let session = Session::new(
        id.clone(),
        context.clone(),
        fitter.max_mqueue_len(),
        Arc::clone(settings),
        Arc::clone(&fitter),
        None,
        fitter.max_inflight(),
        stored.created_at,
        connect,
        false,
        false,
        false,
        stored.created_at,
        SessionSubs::from(subscriptions.clone()),
        Some(left),
        None,
    )
    .await?;
    let sender = SessionState::offline_restart(session.clone(), Duration::from_secs(stored.expiry.into())).await?;
    let mut entry = context.extends.shared().await.entry(id.clone()).try_lock().await?;
    entry.set(session, sender.clone()).await?;
    for (filter, options) in subscriptions {
        context.extends.router().await.add(&filter, id.clone(), options).await?;
    }
    shared.clients().restored(&id, access, now);
    let waiting: Vec<_> = shared
        .store()
        .waiting_for(client)
        .map(|(number, message, how)| {
            let mut publish = convert::publish(message, how.qos, how.retain, &how.subscriptions);
            publish.delay_interval = Some(number);
            (convert::sender(message), publish)
        })
        .collect();
    for (from, publish) in waiting {
        // It was admitted before; the count must know of it.
        shared.clients().enqueue(client, publish.topic.len() + publish.payload.len());
        if sender.unbounded_send(Message::Forward(from, publish)).is_err() {
            anyhow::bail!("it ended at once");
        }
    }
    Ok(())
}
