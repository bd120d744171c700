//! Rates of requests: by customer where one is signed in, else by address.

use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use eventicket_contracts::CustomerId;
use eventicket_kit::{Problem, Rates};
use governor::clock::{Clock as _, DefaultClock};
use governor::middleware::StateInformationMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use tokio_util::sync::CancellationToken;

/// How often keys that are as good as new are forgotten.
const SHRINK: Duration = Duration::from_secs(10);

static LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
static REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
static RESET: HeaderName = HeaderName::from_static("ratelimit-reset");

/// The limits.
pub struct Limits {
    customers: Limit<CustomerId>,
    addresses: Limit<IpAddr>,
}

impl Limits {
    /// As configured; they are never off.
    pub fn new(rates: &Rates) -> Self {
        Self {
            customers: Limit::new(rates.signed_in_per_second, rates.signed_in_burst),
            addresses: Limit::new(rates.address_per_second, rates.address_burst),
        }
    }

    /// Counts a request of a customer.
    pub fn customer(&self, id: CustomerId) -> Result<Standing, Excess> {
        self.customers.count(&id)
    }

    /// Counts a request from an address. IPv6 hosts have a whole /64 to choose from, so that it counts as one.
    pub fn address(&self, address: IpAddr) -> Result<Standing, Excess> {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
            v4 => v4,
        };
        self.addresses.count(&address)
    }

    /// Forgets idle keys until shutdown.
    pub async fn keep_small(&self, shutdown: CancellationToken) {
        while shutdown.run_until_cancelled(tokio::time::sleep(SHRINK)).await.is_some() {
            self.customers.shrink();
            self.addresses.shrink();
        }
    }
}

type Limiter<K> = RateLimiter<K, DefaultKeyedStateStore<K>, DefaultClock, StateInformationMiddleware>;

struct Limit<K: Clone + Hash + Eq> {
    limiter: Limiter<K>,
    per_second: u32,
    burst: u32,
}

impl<K: Clone + Hash + Eq> Limit<K> {
    fn new(per_second: u32, burst: u32) -> Self {
        let (rate, most) = (at_least_one(per_second), at_least_one(burst));
        let limiter = RateLimiter::keyed(Quota::per_second(rate).allow_burst(most)).with_middleware();
        Self { limiter, per_second: rate.get(), burst: most.get() }
    }

    fn count(&self, key: &K) -> Result<Standing, Excess> {
        match self.limiter.check_key(key) {
            Ok(state) => {
                let remaining = state.remaining_burst_capacity().min(self.burst);
                Ok(self.standing(remaining))
            }
            Err(not_until) => {
                let after = not_until.wait_time_from(self.limiter.clock().now());
                Err(Excess { standing: self.standing(0), after })
            }
        }
    }

    /// A full burst is there again after `reset` seconds without requests.
    fn standing(&self, remaining: u32) -> Standing {
        Standing { limit: self.burst, remaining, reset: (self.burst - remaining).div_ceil(self.per_second) }
    }

    fn shrink(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

fn at_least_one(n: u32) -> NonZeroU32 {
    NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN)
}

/// Where a key stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    limit: u32,
    remaining: u32,
    reset: u32,
}

impl Standing {
    /// The headers `RateLimit-*`.
    pub fn tell(self, headers: &mut HeaderMap) {
        headers.insert(LIMIT.clone(), HeaderValue::from(self.limit));
        headers.insert(REMAINING.clone(), HeaderValue::from(self.remaining));
        headers.insert(RESET.clone(), HeaderValue::from(self.reset));
    }
}

/// A request beyond the limit.
#[derive(Debug)]
pub struct Excess {
    /// For the headers.
    pub standing: Standing,
    after: Duration,
}

impl Excess {
    /// 429.
    pub fn problem(&self) -> Problem {
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests").with_retry_after(self.after)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_what_is_beyond_waits() {
        let limit = Limit::new(10, 20);
        let first = limit.count(&1).unwrap();
        assert_eq!((first.limit, first.remaining, first.reset), (20, 19, 1));
        assert_eq!((1..20).filter(|_| limit.count(&1).is_ok()).count(), 19);
        let excess = limit.count(&1).unwrap_err();
        assert!(excess.after <= Duration::from_millis(100) && excess.standing.reset == 2, "{excess:?}");
        assert_eq!(excess.problem().status, 429);
        assert!(limit.count(&2).is_ok(), "others are not touched");
    }

    #[test]
    fn hosts_of_one_ipv6_network_count_as_one() {
        let limits = Limits::new(&Rates { address_burst: 1, address_per_second: 1, ..Rates::default() });
        assert!(limits.address("2001:db8::1".parse().unwrap()).is_ok());
        assert!(limits.address("2001:db8::2".parse().unwrap()).is_err());
        assert!(limits.address("2001:db8:0:1::1".parse().unwrap()).is_ok());
        assert!(limits.address("::ffff:192.0.2.1".parse().unwrap()).is_ok());
        assert!(limits.address("192.0.2.1".parse().unwrap()).is_err());
    }
}
