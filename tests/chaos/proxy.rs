//! A TCP proxy before a server: connections through it can be cut, slowed and stalled.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Bytes that are passed on at once.
const CHUNK: usize = 32 << 10;

/// How what is sent comes through.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Weather {
    /// At once.
    Fair,
    /// Each chunk so much later.
    Slow(Duration),
    /// Not at all, until it changes.
    Still,
}

/// Passes connections on to a server until it is dropped.
pub struct Proxy {
    /// Where it listens, on this machine.
    pub port: u16,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

struct Shared {
    server: u16,
    weather: watch::Sender<Weather>,
    connections: Mutex<Connections>,
    stop: CancellationToken,
}

/// Those that are open, each with the token that cuts it, in the order in which they came.
#[derive(Default)]
struct Connections {
    next: u64,
    open: BTreeMap<u64, CancellationToken>,
}

impl Proxy {
    /// Listens at a free port before the server at another one.
    pub async fn before(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (port, stop) = (listener.local_addr()?.port(), CancellationToken::new());
        let weather = watch::Sender::new(Weather::Fair);
        let shared = Arc::new(Shared { server, weather, connections: Mutex::default(), stop: stop.clone() });
        tokio::spawn(shared.clone().accept(listener));
        Ok(Self { port, shared, _stop: stop.drop_guard() })
    }

    /// From now on.
    pub fn set(&self, weather: Weather) {
        self.shared.weather.send_replace(weather);
    }

    /// Ends all connections, or every second one, beginning with the first or the second; tells how many.
    pub fn cut(&self, which: u64) -> usize {
        let open = self.shared.open();
        let (step, skip) = if which.is_multiple_of(3) { (1, 0) } else { (2, which as usize % 2) };
        open.values().skip(skip).step_by(step).map(CancellationToken::cancel).count()
    }
}

impl Shared {
    fn open(&self) -> BTreeMap<u64, CancellationToken> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).open.clone()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener) {
        while let Some(accepted) = self.stop.run_until_cancelled(listener.accept()).await {
            if let Ok((client, _)) = accepted {
                tokio::spawn(self.clone().pass(client));
            }
        }
    }

    async fn pass(self: Arc<Self>, client: TcpStream) {
        // Where the server is down, the client sees its connection end.
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server)).await else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let cut = self.stop.child_token();
        let number = {
            let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
            connections.next += 1;
            let number = connections.next;
            connections.open.insert(number, cut.clone());
            number
        };
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = carry(from_client, to_server, self.weather.subscribe()) => {}
            () = carry(from_server, to_client, self.weather.subscribe()) => {}
            () = cut.cancelled() => {}
        }
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).open.remove(&number);
    }
}

/// One direction, until either side ends it.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut weather: watch::Receiver<Weather>) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut chunk).await {
        let now = *weather.borrow();
        match now {
            Weather::Fair => {}
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Still => {
                let _ = weather.wait_for(|weather| *weather != Weather::Still).await;
            }
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_millis(200);

    /// A server that says everything again, and a proxy before it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        Proxy::before(port).await.unwrap()
    }

    async fn said_again(stream: &mut TcpStream) -> std::io::Result<u8> {
        stream.write_u8(7).await?;
        stream.read_u8().await
    }

    #[tokio::test]
    async fn what_is_sent_comes_through_late_or_not_at_all() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).await.unwrap();
        assert_eq!(said_again(&mut stream).await.unwrap(), 7);
        proxy.set(Weather::Slow(SOON));
        let start = Instant::now();
        assert_eq!(said_again(&mut stream).await.unwrap(), 7);
        assert!(start.elapsed() >= 2 * SOON, "both ways");
        proxy.set(Weather::Still);
        assert!(timeout(SOON, said_again(&mut stream)).await.is_err());
        proxy.set(Weather::Fair);
        assert_eq!(stream.read_u8().await.unwrap(), 7, "what was held back");
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_open_and_nothing_else() {
        let proxy = echo().await;
        let mut streams = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).await.unwrap();
            said_again(&mut stream).await.unwrap();
            streams.push(stream);
        }
        assert_eq!(proxy.cut(2), 2, "every second one, from the first on");
        let mut left = 0;
        for stream in &mut streams {
            left += usize::from(said_again(stream).await.is_ok());
        }
        assert_eq!((left, proxy.cut(3)), (2, 2));
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port)).await.unwrap();
        assert_eq!(said_again(&mut stream).await.unwrap(), 7);
    }
}
