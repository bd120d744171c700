//! The broker may lose everything: streams deleted, purged, and the whole store wiped, in the middle of bookings.

use std::time::Duration;

use futures::future::join_all;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::expiry::async_nats_client;
use crate::platform::{Platform, text};

const STREAMS: [&str; 7] =
    ["CMD_BOOKINGS", "CMD_PAYMENTS", "CMD_NOTIFICATIONS", "CMD_EVENTS", "REPLIES", "EVENTS", "DEADLETTERS"];

#[tokio::test(flavor = "multi_thread")]
async fn rule_11_lost_streams_lose_no_booking() {
    let platform = Platform::start(&["--replicas", "2"]).await;
    let customers = platform.customers(100).await;
    let event = platform.event(10_000, 2_500, None).await;
    let nats = async_nats_client(&text(&platform.about()["nats_url"])).await;
    let jetstream = async_nats::jetstream::new(nats);

    let rush = async |round: &str| {
        let booked = customers.iter().enumerate().map(|(n, token)| {
            let (platform, event) = (&platform, &event);
            let key = format!("{round}-{n}");
            async move {
                let booking = platform.book(token, &key, event, Some("pm_card_visa")).await;
                platform.ended(token, &booking).await
            }
        });
        join_all(booked).await
    };
    let delete = async {
        for stream in STREAMS {
            let _ = jetstream.delete_stream(stream).await;
            tokio::time::sleep(Duration::from_millis(150)).await; // while the next bookings come
        }
    };
    let purge = async {
        for stream in STREAMS {
            if let Ok(stream) = jetstream.get_stream(stream).await {
                let _ = stream.purge().await;
            }
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    };
    let wipe = async {
        tokio::time::sleep(Duration::from_millis(150)).await;
        wipe_store(&platform);
    };
    let (deleted, ()) = tokio::join!(rush("delete"), delete);
    let (purged, ()) = tokio::join!(rush("purge"), purge);
    let (wiped, ()) = tokio::join!(rush("wipe"), wipe);
    for booking in deleted.iter().chain(&purged).chain(&wiped) {
        assert_eq!(booking["status"], "confirmed", "{booking}");
    }
    assert_eq!(platform.available(&event.0).await, 10_000 - 300);
    platform
        .until("the streams are back", async || {
            let mut there = 0;
            for stream in STREAMS {
                there += usize::from(jetstream.get_stream(stream).await.is_ok());
            }
            there == STREAMS.len()
        })
        .await;
    platform.audit().await;
}

/// Kills the server and removes its store; the platform starts it again.
fn wipe_store(platform: &Platform) {
    let folder = platform.nats_folder();
    let pid: i32 = std::fs::read_to_string(folder.join("pid")).unwrap().trim().parse().unwrap();
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    let _ = std::fs::remove_dir_all(folder.join("store"));
}
