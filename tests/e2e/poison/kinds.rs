//! What cannot be handled, of each kind.

use async_nats::HeaderMap;
use eventicket_contracts::envelope::{MAX_BYTES, MAX_ITEMS};
use eventicket_contracts::subjects::{self, Service};
use eventicket_nats::Letter;
use serde_json::{Value, json};

/// Nesting that no reader follows.
pub const DEEP: usize = 10_000;
/// Most bytes of a message that a stream of commands or of replies takes, but for its headers.
pub const LARGEST: usize = (1 << 20) - (16 << 10) - 256;

/// A message that cannot be handled.
pub struct Poison {
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Vec<u8>,
    /// What its dead letter says, and whose it is.
    pub reason: String,
    service: String,
    action: String,
}

impl Poison {
    pub fn of_command(service: Service, action: &str, payload: Vec<u8>, reason: &str) -> Self {
        Self {
            subject: subjects::command(service, action, 0),
            headers: HeaderMap::new(),
            payload,
            reason: reason.to_owned(),
            service: service.name().to_owned(),
            action: action.to_owned(),
        }
    }

    pub fn of_reply(payload: Vec<u8>, reason: &str) -> Self {
        let (subject, headers) = (subjects::reply(0), HeaderMap::new());
        let (service, action) = ("orchestrator".to_owned(), "reply".to_owned());
        Self { subject, headers, payload, reason: reason.to_owned(), service, action }
    }

    pub fn is_in(&self, letter: &Letter) -> bool {
        let places = (&letter.subject, &letter.service, &letter.action);
        places == (&self.subject, &self.service, &self.action)
            && letter.payload == self.payload
            && letter.reason.contains(&self.reason)
    }
}

pub fn nested() -> String {
    "[".repeat(DEEP) + &"]".repeat(DEEP)
}

/// Envelopes that nobody takes, and why; `item` is one as it should be, of the named kind.
pub fn envelopes(what: &str, item: &Value) -> Vec<(Vec<u8>, String)> {
    let envelope = |v: u32, items: &[Value]| json!({"v": v, "items": items}).to_string().into_bytes();
    let mut large = item.clone();
    large["more"] = "x".repeat(MAX_BYTES / 2 + 1024).into();
    let none = format!("not an envelope of {what}");
    let with = |bytes: &[u8]| [br#"{"v": 1, "items": ["#, bytes, b"]}"].concat();
    vec![
        (Vec::new(), none.clone()),
        (b"not json".to_vec(), none.clone()),
        (vec![0xff, 0xfe, 0x00], none.clone()),
        (b"null".to_vec(), none.clone()),
        (with(br#""\u0000\xff""#), none.clone()),
        (with(b"\"\xc3\x28\""), none.clone()),
        (with(nested().as_bytes()), none.clone()),
        (envelope(1, &[json!({"key": "no key"})]), none.clone()),
        (vec![b'x'; LARGEST], none),
        (envelope(1, &vec![item.clone(); MAX_ITEMS + 1]), format!("an envelope of {} items", MAX_ITEMS + 1)),
        (envelope(1, &[large.clone(), large]), "bytes is too large".to_owned()),
        (envelope(2, std::slice::from_ref(item)), "envelope version 2 is not known".to_owned()),
        (br#"{"v": 900, "commands": {}}"#.to_vec(), "envelope version 900 is not known".to_owned()),
    ]
}

fn command(key: &str, body: Value) -> Value {
    json!({"key": key, "half": "do", "attempt": 1, "body": body})
}

/// All that is wrong with what comes to services and to the orchestrator. `key` is of a round that was answered, so that
/// being told of poison changes nothing about it.
pub fn poisons(key: &str) -> Vec<Poison> {
    let mut all = Vec::new();
    for service in Service::ALL {
        for action in service.actions() {
            let flawed = envelopes("commands", &command(key, json!({}))).into_iter();
            all.extend(flawed.map(|(payload, reason)| Poison::of_command(service, action, payload, &reason)));
        }
        all.extend(astray(service, key));
    }
    let reply = json!({"key": key, "half": "do", "attempt": 1, "answer": "expired"});
    let mut deep = json!({"v": 1, "items": [reply]}).to_string();
    deep = deep.replace(r#""expired""#, &format!(r#"{{"done": {}}}"#, nested()));
    all.extend(envelopes("replies", &reply).into_iter().map(|(payload, reason)| Poison::of_reply(payload, &reason)));
    all.push(Poison::of_reply(deep.into_bytes(), "recursion limit exceeded"));
    all
}

/// Commands that are well, on subjects or with answers that the service does not know.
fn astray(service: Service, key: &str) -> Vec<Poison> {
    let (name, known) = (service.name(), service.actions()[0]);
    let good = json!({"v": 1, "items": [command(key, json!({}))]}).to_string().into_bytes();
    let on = |rest: &str, action: &str| {
        let subject = format!("cmd.{name}.{rest}");
        let takes = if action == "unknown" && rest.contains("zürich") { "zürich" } else { action };
        let reason = format!("{name} takes no {takes} on {subject}");
        Poison { subject, action: action.to_owned(), ..Poison::of_command(service, known, good.clone(), &reason) }
    };
    let mut nowhere = Poison::of_command(service, known, good.clone(), "no answer goes to nobody.listens");
    nowhere.headers.insert(subjects::HEADER_REPLY, "nobody.listens");
    vec![
        on("upgrade.0", "upgrade"),
        on("zürich.0", "unknown"),
        on(&format!("{known}.7"), known),
        on(&format!("{known}.first"), "unknown"),
        on(known, "unknown"),
        on(&format!("{known}.0.0"), "unknown"),
        nowhere,
    ]
}

/// Whatever is asked in another form than it should be.
pub fn questions() -> Vec<Vec<u8>> {
    let large = format!("{}\"poison\"", " ".repeat(900 << 10));
    vec![
        Vec::new(),
        b"not json".to_vec(),
        b"\"poison\"".to_vec(),
        b"\"\xff\xfe\"".to_vec(),
        b"{\"v\": 99".to_vec(),
        nested().into_bytes(),
        large.into_bytes(),
    ]
}
