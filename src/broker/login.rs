//! Who a connection is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::access::Access;
use super::store::record::Session;
use super::throttle::Throttle;
use super::token::{Time, TokenKeyError, Tokens, Until};
use super::users::Users;
use super::{BrokerError, Credentials};
use crate::clock::{SystemClock, Trust};
use crate::config::{BrokerConfig, BrokerJwt, BrokerListener, BrokerRules};

/// What the rules for anonymous clients are filed under.
pub(super) const ANONYMOUS: &str = "anonymous";
/// Client identifier of the broker's look at itself.
pub(super) const SELF_CHECK: &str = "vigie-self-check";

/// How often the clock is looked at while a token is about to expire.
const TIME_LOOKS: Duration = Duration::from_secs(60);

/// What a client says about itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Claim<'a> {
    pub(super) address: IpAddr,
    pub(super) client: &'a str,
    pub(super) username: Option<&'a str>,
    pub(super) password: &'a [u8],
    /// Common name of its certificate, which the listener has verified.
    pub(super) certificate: Option<&'a str>,
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Verdict {
    Welcome(Arc<Access>),
    /// For a while: until its token expires.
    WelcomeUntil(Arc<Access>, Until),
    /// Name or password are wrong; of a token, what about it.
    Wrong(Option<&'static str>),
    /// It is not looked at: its address must wait.
    Blocked,
    /// It may not come in whoever it is, and why.
    Refused(&'static str),
}

/// Logins of a broker.
#[derive(Debug)]
pub(super) struct Logins {
    gateway: Credentials,
    gateway_client: String,
    anonymous: bool,
    /// Can a client have a user at all?
    named: bool,
    users: Option<Mutex<Users>>,
    tokens: Option<(Mutex<Tokens>, SystemClock)>,
    rules: BTreeMap<String, Arc<BrokerRules>>,
    throttle: Mutex<Throttle>,
    /// One password is hashed at a time: each takes megabytes of memory.
    hashing: Arc<tokio::sync::Mutex<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they hold is whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn tokens(jwt: &BrokerJwt, trust: Trust) -> Result<(Mutex<Tokens>, SystemClock), TokenKeyError> {
    Ok((Mutex::new(Tokens::open(&jwt.key, jwt.audience.clone())?), SystemClock::new(trust)))
}

impl Logins {
    pub(super) fn new(config: &BrokerConfig) -> Result<Self, BrokerError> {
        let rules = config.rules.iter().map(|(name, rules)| (name.clone(), Arc::new(rules.clone()))).collect();
        Ok(Self {
            gateway: Credentials::new()?,
            gateway_client: config.client_id.clone(),
            anonymous: config.anonymous,
            named: config.users.is_some()
                || config.jwt.is_some()
                || config.listeners.iter().any(BrokerListener::asks_for_certificates),
            users: config.users.as_deref().map(Users::open).transpose()?.map(Mutex::new),
            tokens: config.jwt.as_ref().map(|jwt| tokens(jwt, config.trust)).transpose()?,
            rules,
            throttle: Mutex::default(),
            hashing: Arc::default(),
        })
    }

    /// What the gateway itself logs in with.
    pub(super) fn credentials(&self) -> &Credentials {
        &self.gateway
    }

    /// Could somebody still log in to whom a stored session belongs? The configuration may have changed.
    pub(super) fn may_return(&self, session: &Session) -> bool {
        session.gateway || if session.user.is_some() { self.named } else { self.anonymous }
    }

    /// Who has a session that was stored.
    pub(super) fn owner_of(&self, session: &Session) -> Arc<Access> {
        if session.gateway { Arc::new(Access::gateway()) } else { self.access_of(session.user.as_deref()) }
    }

    /// What the user of that name may do.
    fn access_of(&self, username: Option<&str>) -> Arc<Access> {
        let rules = self.rules.get(username.unwrap_or(ANONYMOUS));
        Arc::new(Access::of(username, rules))
    }

    /// Looks at a claim. A password that was not right before is hashed, on a thread that may wait.
    pub(super) async fn look(&self, claim: Claim<'_>) -> Verdict {
        if claim.username.is_some_and(|name| self.gateway.are(name, claim.password)) {
            return Verdict::Welcome(Arc::new(Access::gateway()));
        }
        if claim.client == self.gateway_client || claim.client == SELF_CHECK {
            return Verdict::Refused("this client identifier is the gateway's own");
        }
        if let Some(name) = claim.certificate {
            let user = self.rules.iter().find(|(_, rules)| rules.certificate.as_deref() == Some(name));
            return Verdict::Welcome(self.access_of(Some(user.map_or(name, |(user, _)| user))));
        }
        let mut why = None;
        if let Some((tokens, clock)) = self.tokens.as_ref().filter(|_| Tokens::could_be(claim.password)) {
            if lock(&self.throttle).blocks(claim.address, Instant::now()) {
                return Verdict::Blocked;
            }
            let looked = {
                let mut tokens = lock(tokens);
                tokens.refresh();
                tokens.user(claim.password, Time::of(clock))
            };
            match looked {
                Ok((user, until)) if claim.username.is_none_or(|name| name.is_empty() || name == user) => {
                    let access = self.access_of(Some(&user));
                    return match until {
                        Some(until) => Verdict::WelcomeUntil(access, until),
                        None => Verdict::Welcome(access),
                    };
                }
                Ok(_) => why = Some("its token is another user's"),
                Err(wrong) => why = Some(wrong),
            }
        }
        let (Some(users), Some(name)) = (&self.users, claim.username) else {
            // Where there are no users, a name means nothing.
            return if self.anonymous {
                Verdict::Welcome(self.access_of(None))
            } else {
                self.failed(claim.address, why)
            };
        };
        let check = match lock(users).look(name, claim.password) {
            Ok(()) => return Verdict::Welcome(self.access_of(Some(name))),
            Err(check) => Arc::new(check),
        };
        if lock(&self.throttle).blocks(claim.address, Instant::now()) {
            return Verdict::Blocked;
        }
        let one_at_a_time = Arc::clone(&self.hashing).lock_owned().await;
        let password = claim.password.to_owned();
        let checked = Arc::clone(&check);
        let passes = tokio::task::spawn_blocking(move || {
            let passes = checked.passes(&password);
            drop(one_at_a_time);
            passes
        });
        if !passes.await.unwrap_or(false) {
            return self.failed(claim.address, why);
        }
        lock(users).remember(&check, claim.password);
        lock(&self.throttle).succeeded(claim.address);
        Verdict::Welcome(self.access_of(Some(name)))
    }

    /// Waits until a token has expired. While nobody knows the time, none does.
    pub(super) async fn expires(&self, until: Until) {
        let Some((_, clock)) = &self.tokens else { return std::future::pending().await };
        loop {
            match until.left(Time::of(clock)) {
                Some(Duration::ZERO) => return,
                // The clock may be set meanwhile, or be corrected.
                left => tokio::time::sleep(left.map_or(TIME_LOOKS, |left| left.min(TIME_LOOKS))).await,
            }
        }
    }

    fn failed(&self, address: IpAddr, why: Option<&'static str>) -> Verdict {
        lock(&self.throttle).failed(address, Instant::now());
        Verdict::Wrong(why)
    }
}
