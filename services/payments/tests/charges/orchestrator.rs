//! What stands in for the orchestrator where sagas are opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use eventicket_contracts::envelope::Envelope;
use eventicket_contracts::sagas::{AnsweredStart, FAILED_REFUND, StartAnswer, StartSaga};
use eventicket_contracts::{Json, subjects};
use futures::StreamExt;
use tokio::sync::mpsc;

use crate::messages::json;
use crate::world::{PATIENCE, World};

/// Answers starts.
pub struct Orchestrator {
    starts: mpsc::Receiver<StartSaga>,
    answers: Arc<AtomicBool>,
}

impl Orchestrator {
    pub async fn new(w: &World) -> Self {
        let (tell, starts) = mpsc::channel(64);
        let answers = Arc::new(AtomicBool::new(true));
        let (nats, answering) = (w.ctx.nats.subscriber().clone(), Arc::clone(&answers));
        let mut asked = nats.subscribe(subjects::START).await.unwrap();
        nats.flush().await.unwrap();
        tokio::spawn(async move {
            while let Some(message) = asked.next().await {
                let mut asked: Envelope<StartSaga> = serde_json::from_slice(&message.payload).unwrap();
                let start = asked.items.pop().unwrap();
                assert_eq!(start.definition, FAILED_REFUND);
                let started = StartAnswer::Started { id: start.id, created: true, view: Json::NULL };
                let busy = StartAnswer::Busy { retry_after_ms: 1 };
                let answer = if answering.load(Ordering::SeqCst) { started } else { busy };
                let answer = Envelope::new(vec![AnsweredStart { id: start.id, answer }]);
                let _ = tell.send(start).await;
                nats.publish(message.reply.unwrap(), json(&answer)).await.unwrap();
            }
        });
        Self { starts, answers }
    }

    /// Whether sagas are accepted from now on.
    pub fn answers(&self, yes: bool) {
        self.answers.store(yes, Ordering::SeqCst);
    }

    /// The next start that is asked for.
    pub async fn start(&mut self) -> StartSaga {
        tokio::time::timeout(PATIENCE, self.starts.recv()).await.expect("no saga is started").unwrap()
    }
}
