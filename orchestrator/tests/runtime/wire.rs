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
        let (mut held, mut publishes) = (self.held.subscribe(), false);
        loop {
            let open = !(publishes && *held.borrow_and_update());
            tokio::select! {
                _ = held.changed() => {}
                read = client.read(&mut up) => {
                    let sent = &up[..read?];
                    publishes |= contains(sent, b"-out\"");
                    let cut = self.cut(sent);
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

    fn cut(&self, sent: &[u8]) -> Option<Cut> {
        // A commit is a simple query of its own.
        let cut = contains(sent, b"COMMIT\0").then(|| (self.plan)(self.commits.fetch_add(1, Ordering::SeqCst)));
        let cut = cut.flatten();
        self.cuts.lock().unwrap().extend(cut);
        cut
    }
}

fn contains(text: &[u8], what: &[u8]) -> bool {
    text.windows(what.len()).any(|window| window == what)
}
