//! What the processes of a real platform tell at `/metrics`.

use std::collections::{BTreeMap, BTreeSet};

use eventicket_contracts::metrics::{self as names, ALL, Kind, Metric};

use crate::platform::{Platform, text};

/// What is told only once something goes wrong, or while something is under way.
const RARE: [&str; 6] = [
    names::HTTP_RATE_LIMITED,
    names::DEAD_LETTERS,
    names::NATS_DROPPED,
    names::MAILS_FAILED,
    names::MAILS_RETRIED,
    names::SAGAS,
];

/// Names of the metrics of a page, each with the labels of its series.
fn told(page: &str) -> BTreeMap<String, BTreeSet<Vec<String>>> {
    let mut told = BTreeMap::<_, BTreeSet<_>>::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, _value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.trim_end_matches('}').split("\",").filter_map(|label| label.split_once('='));
        let mut labels: Vec<String> = labels.map(|(label, _)| label.to_owned()).collect();
        labels.retain(|label| label != "le");
        labels.sort();
        let parts = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let of_histogram = |name: &&str| ALL.iter().any(|m| m.name == *name && m.kind == Kind::Histogram);
        told.entry(parts.filter(of_histogram).unwrap_or(name).to_owned()).or_default().insert(labels);
    }
    told
}

impl Platform {
    /// The metrics of each process.
    async fn pages(&self) -> BTreeMap<String, String> {
        let about = self.about();
        let mut addresses: BTreeMap<String, String> =
            about["metrics"].as_object().unwrap().iter().map(|(name, url)| (name.clone(), text(url))).collect();
        addresses.insert("mock-gateway".to_owned(), format!("{}/metrics", text(&about["payment_gateway_url"])));
        addresses.insert("gateway, where its API is".to_owned(), format!("{}/metrics", self.url));
        let mut pages = BTreeMap::new();
        for (name, url) in addresses {
            let page = self.http.get(&url).send().await.unwrap().error_for_status().unwrap();
            pages.insert(name, page.text().await.unwrap());
        }
        pages
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_list_is_told_and_none_that_is_not_listed() {
    let mut platform = Platform::start(&["--processes"]).await;
    let customer = platform.login("customer@demo.test").await;
    let event = platform.event(10, 4_200, None).await;
    let booking = platform.book(&customer, "measured", &event, Some("pm_card_visa")).await;
    assert_eq!(booking["status"], "confirmed", "{booking}");

    let missing = async || {
        let pages = platform.pages().await;
        let told: BTreeSet<String> = pages.values().flat_map(|page| told(page).into_keys()).collect();
        let expected = ALL.iter().map(|metric| metric.name).filter(|name| !RARE.contains(name));
        expected.filter(|name| !told.contains(*name)).collect::<Vec<_>>()
    };
    platform.until("all are told", async || missing().await.is_empty()).await;

    for (process, page) in platform.pages().await {
        assert!(page.contains(names::BUILD_INFO), "{process} tells nothing");
        for (name, series) in told(&page) {
            let Some(Metric { labels, kind, help, .. }) = ALL.iter().find(|metric| metric.name == name) else {
                panic!("{process} tells {name}, which is not listed");
            };
            let mut labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            labels.sort();
            assert_eq!(series, BTreeSet::from([labels]), "{process}: labels of {name}");
            assert!(page.contains(&format!("# HELP {name} {help}")), "{process}: help of {name}");
            let kind = format!("{kind:?}").to_lowercase();
            assert!(page.contains(&format!("# TYPE {name} {kind}")), "{process}: {name} is a {kind}");
        }
    }
    platform.stop().await;
}
