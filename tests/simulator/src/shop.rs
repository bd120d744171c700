//! What all runs of a simulator share, since it is slow to make: the definitions, the keys of sealed payment methods, the
//! maker of requests to the payment gateway.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use eventicket_contracts::CustomerId;
use eventicket_kit::Settings;
use eventicket_kit::seal::SealKeys;
use eventicket_kit::settings::Rates;
use eventicket_orchestrator::sagas::{Catalogue, catalogue};
use eventicket_payments::simulation::Requests;
use uuid::Uuid;

/// What runs share.
pub(crate) struct Shop {
    pub catalogue: Arc<Catalogue>,
    pub seal: SealKeys,
    pub requests: Requests,
    sealed: Mutex<BTreeMap<(CustomerId, &'static str), String>>,
}

impl Shop {
    /// Makes it.
    pub fn open() -> Arc<Self> {
        let keys = SealKeys::generate();
        let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = Settings {
            database_url: String::new(),
            database_prefix: String::new(),
            database_connections: 0,
            nats_url: String::new(),
            gateway_listen: nowhere,
            metrics_listen: None,
            public_url: "http://platform".to_owned(),
            rates: Rates::default(),
            access_token_seconds: 0,
            idempotency_key: String::new(),
            seal_keys: keys.clone(),
            payment_gateway_url: "http://gateway".to_owned(),
            payment_gateway_key: "key".to_owned(),
            payment_webhook_secret: String::new(),
            payment_webhook_listen: None,
            payment_call_seconds: 10,
            smtp_url: String::new(),
            mail_from: String::new(),
            mail_give_up_hours: 0,
            mail_per_second: 0,
        };
        let seal = SealKeys::parse(&keys).expect("keys that were just made can be read");
        let requests = Requests::new(&settings).expect("the settings are complete");
        let catalogue = Arc::new(catalogue().expect("the platform's definitions are sound"));
        Arc::new(Self { catalogue, seal, requests, sealed: Mutex::default() })
    }

    /// A customer.
    pub fn customer(number: u32) -> CustomerId {
        CustomerId(Uuid::from_u64_pair(0xc057, u64::from(number)))
    }

    /// A payment method as the API's gateway seals it.
    pub fn sealed(&self, customer: CustomerId, token: &'static str) -> String {
        let mut sealed = self.sealed.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.entry((customer, token)).or_insert_with(|| self.seal.seal(customer, token)).clone()
    }
}
