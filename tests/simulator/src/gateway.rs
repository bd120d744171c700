//! The payment gateway behind its wires: calls and their answers may be lost, late or repeated, and webhooks come in any
//! order, until they are taken.

use std::cell::RefCell;
use std::rc::Rc;

use eventicket_mock_gateway::simulation::{Answer, Fate, Gateway, Webhook};
use eventicket_payments::simulation::{Call, Observed, Request};

use crate::chaos::Kind;
use crate::executor::{On, Wait};
use crate::mind::Flag;
use crate::processes::ProcessId;
use crate::webhooks::Taken;
use crate::world::{Sim, World};

/// How long payments waits for an answer, ms.
const CALL_TIMEOUT: i64 = 10_000;
/// First and longest pause between two tries of a webhook, ms.
const AGAIN: (i64, i64) = (200, 60_000);
/// How long after its cause a webhook leaves, ms.
const WEBHOOK_DELAY: i64 = 200;

/// Starts it.
pub(crate) fn start(sim: &Sim, me: ProcessId) {
    sim.tasks.spawn_waiting(Some(me), "settle", settle(Rc::clone(sim), me));
}

/// Ends what takes time, when its time has come.
async fn settle(sim: Sim, me: ProcessId) {
    loop {
        sim.pause(Wait::on(On::Settlements)).await;
        let settled = sim.gateway.borrow_mut().settle_due(sim.now());
        if let Some(webhooks) = settled {
            sim.tell(Some(me), || format!("settles: {}", kinds(&webhooks)));
            sim.send_webhooks(webhooks);
        }
    }
}

fn kinds(webhooks: &[Webhook]) -> String {
    webhooks.iter().map(|webhook| webhook.kind.as_str()).collect::<Vec<_>>().join(", ")
}

type Line = Rc<(RefCell<Option<Answer>>, Rc<Flag>)>;

impl World {
    fn gateway_process(&self) -> ProcessId {
        let at = self.processes.borrow().iter().position(|process| process.part == "gateway");
        ProcessId(at.unwrap_or(0))
    }

    /// Makes a call, and waits for its answer.
    pub async fn call(self: &Rc<Self>, me: ProcessId, request: Request, call: Call) -> Observed {
        self.step().await;
        let line: Line = Rc::default();
        let copies = 1 + u32::from(self.befalls(Kind::Repeat));
        for copy in 0..copies {
            if self.befalls(Kind::Loss) {
                self.tell(Some(me), || format!("its {call:?} does not reach the gateway"));
                continue;
            }
            let late = if copy > 0 || self.befalls(Kind::Late) { self.lateness() } else { 0 };
            let (sim, to, request, line) = (Rc::clone(self), self.gateway_process(), request.clone(), line.clone());
            if self.processes.borrow()[to.0].is_up {
                let knows = self.mind.hash(&(&request, late, self.now()));
                self.mind.knowing(knows, || self.tasks.spawn(Some(to), "call", answer(sim, to, request, line, late)));
            }
        }
        self.pause(Wait { until: self.now() + CALL_TIMEOUT, on: On::Flag(line.1.clone()) }).await;
        match line.0.borrow_mut().take() {
            Some(answer) => Observed::answer(answer.status, answer.replayed, &answer.body, call),
            None => Observed::nothing("no answer came in time"),
        }
    }

    /// Sends webhooks, each until it is taken.
    pub fn send_webhooks(self: &Rc<Self>, webhooks: Vec<Webhook>) {
        for webhook in webhooks {
            // The gateway keeps what it has to send beyond its own end.
            self.mind.knowing(self.mind.hash(&webhook), || {
                self.tasks.spawn_waiting(None, "webhook", deliver(Rc::clone(self), webhook));
            });
        }
    }
}

/// The gateway takes a request, carries it out, and answers.
async fn answer(sim: Sim, me: ProcessId, request: Request, line: Line, late: i64) {
    if late > 0 {
        sim.sleep(late).await;
    } else {
        sim.step().await;
    }
    let Request { method, path, key, body } = &request;
    let taken = sim.gateway.borrow_mut().take(method, path, key.as_deref(), body);
    let told = match taken {
        Err(told) if sim.befalls(Kind::Gateway) && told.status == 200 => Gateway::unavailable(),
        Err(told) => told,
        Ok(change) => {
            sim.edge(me).await;
            if let Some(intent) = change.confirms() {
                sim.confirmed(me, intent);
            }
            let fates = [Fate::Unheard, Fate::Cut, Fate::Failed, Fate::FailedAfter, Fate::Unavailable];
            let fate = if sim.befalls(Kind::Gateway) { fates[sim.choose(5) as usize] } else { Fate::Made };
            let (told, webhooks) = sim.gateway.borrow_mut().carry_out(change, fate, sim.now());
            sim.tell(Some(me), || {
                let path: String = path.chars().take(40).collect();
                format!(
                    "{method} {path}: {}{} {}",
                    told.status,
                    if told.unheard { ", unheard" } else { "" },
                    kinds(&webhooks)
                )
            });
            sim.send_webhooks(webhooks);
            sim.money_moved();
            told
        }
    };
    sim.mind.learn(&told);
    sim.edge(me).await;
    if told.unheard || sim.befalls(Kind::Loss) {
        return;
    }
    if sim.befalls(Kind::LateAnswer) {
        sim.sleep(sim.lateness()).await;
    }
    line.1.raise(sim.mind.hash(&told));
    line.0.borrow_mut().get_or_insert(told);
}

/// Sends a webhook until it is taken.
async fn deliver(sim: Sim, webhook: Webhook) {
    sim.sleep(WEBHOOK_DELAY).await;
    if sim.befalls(Kind::Late) {
        sim.sleep(sim.lateness()).await;
    }
    let again = sim.befalls(Kind::Repeat);
    let mut pause = AGAIN.0;
    let mut taken_once = false;
    loop {
        let living = sim.living("payments");
        let arrives = !living.is_empty() && !sim.befalls(Kind::Loss);
        if arrives {
            let to = living[sim.choose(u32::try_from(living.len()).unwrap_or(1)) as usize];
            let answer = crate::webhooks::hand_over(&sim, to, webhook.body.clone());
            sim.pause(Wait { until: sim.now() + CALL_TIMEOUT, on: On::Flag(answer.1.clone()) }).await;
            let taken = answer.0.get();
            if taken == Some(Taken::Yes) {
                if !again || taken_once {
                    return;
                }
                taken_once = true;
            }
        }
        sim.sleep(pause).await;
        pause = (pause * 2).min(AGAIN.1);
    }
}
