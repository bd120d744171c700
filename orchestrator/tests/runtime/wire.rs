//! A wire between the runtime and a server, which a test can cut or hold.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where a connection to PostgreSQL ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the server gets the commit.
    Before,
    /// When the server has committed, before it is told.
    After,
}

/// Which commit ends its connection, by its number.
type Plan = Arc<dyn Fn(usize) -> Option<Cut> + Send + Sync>;

pub struct Wire {
    pub address: SocketAddr,
    passage: Passage,
}

#[derive(Clone)]
struct Passage {
    server: SocketAddr,
    plan: Plan,
    commits: Arc<AtomicUsize>,
    cuts: Arc<Mutex<Vec<Cut>>>,
    held: watch::Sender<bool>,
}

impl Wire {
    /// A wire that cuts connections by this plan.
    pub async fn new((host, port): (&str, u16), plan: impl Fn(usize) -> Option<Cut> + Send + Sync + 'static) -> Self {
        let server = (host, port).to_socket_addrs().unwrap().next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (commits, cuts, held) = (Arc::default(), Arc::default(), watch::channel(false).0);
        let passage = Passage { server, plan: Arc::new(plan), commits, cuts, held };
        let each = passage.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let passage = each.clone();
                tokio::spawn(async move { passage.pass(client).await });
            }
        });
        Self { address, passage }
    }

    pub fn number(&self, cut: Cut) -> usize {
        self.passage.cuts.lock().unwrap().iter().filter(|made| **made == cut).count()
    }

    /// Whether what NATS says to a connection that publishes is kept back.
    pub fn hold(&self, held: bool) {
        self.passage.held.send_replace(held);
    }
}

impl Passage {
    /// Passes on what comes, until either end closes or the plan cuts. What is dropped is closed.
    async fn pass(&self, mut client: TcpStream) -> std::io::Result<()> {
        let mut server = TcpStream::connect(self.server).await?;
        let (mut up, mut down) = (vec![0; 1 << 16], vec![0; 1 << 16]);
        let (mut held, mut publishes, mut turn) = (self.held.subscribe(), false, None);
        loop {
            let open = !(publishes && *held.borrow_and_update());
            tokio::select! {
                _ = held.changed() => {}
                read = client.read(&mut up) => {
                    let sent = &up[..read?];
                    publishes |= contains(sent, b"-out\"");
                    let cut = self.cut(sent, &mut turn);
                    if sent.is_empty() || cut == Some(Cut::Before) {
                        return Ok(());
                    }
                    server.write_all(sent).await?;
                    if cut == Some(Cut::After) {
                        let _ = server.read(&mut down).await?; // the answer, which nobody hears
                        return Ok(());
                    }
                }
                read = server.read(&mut down), if open => {
                    let got = &down[..read?];
                    if got.is_empty() {
                        return Ok(());
                    }
                    client.write_all(got).await?;
                }
            }
        }
    }

    /// `turn` is the name under which the session has prepared the statement of a turn.
    fn cut(&self, sent: &[u8], turn: &mut Option<Vec<u8>>) -> Option<Cut> {
        let prepared = prepared(sent, TURN);
        // A turn is one statement and its own transaction; any other commit is a simple query of its own.
        let is_turn = prepared.is_none() && turn.as_ref().is_some_and(|name| contains(sent, name));
        *turn = prepared.or_else(|| turn.take());
        let commits = is_turn || contains(sent, b"COMMIT\0");
        let cut = commits.then(|| (self.plan)(self.commits.fetch_add(1, Ordering::SeqCst))).flatten();
        self.cuts.lock().unwrap().extend(cut);
        cut
    }
}

/// What only the statement of a turn says.
const TURN: &[u8] = b"counted AS (UPDATE replicas";

/// The name, with the zero behind it, of a statement with this text that is being prepared.
fn prepared(sent: &[u8], text: &[u8]) -> Option<Vec<u8>> {
    const NAME: &[u8] = b"sqlx_s_";
    let text = sent.windows(text.len()).position(|window| window == text)?;
    let name = sent[..text].windows(NAME.len()).rposition(|window| window == NAME)?;
    let end = sent[name..].iter().position(|byte| *byte == 0)?;
    Some(sent[name..=name + end].to_vec())
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}
