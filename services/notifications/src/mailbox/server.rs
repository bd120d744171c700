//! The SMTP server.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use eventicket_kit::http::bind_reuseport;
use mailin::{Action, Handler, Response, SessionBuilder, response};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::folder;

/// Connections that are served at once; further ones wait to be accepted.
const CONNECTIONS: usize = 64;
/// Bytes of one message.
const MAX_MESSAGE: usize = 4 * 1024 * 1024;
/// Bytes of one line; RFC 5321 promises 1000.
const MAX_LINE: u64 = 16 * 1024;
/// A client that sends nothing for so long is cut off; longer than mail clients keep idle connections.
const IDLE: Duration = Duration::from_secs(120);
/// A client that takes no answer for so long is cut off.
const WRITE: Duration = Duration::from_secs(10);
/// At shutdown, how long a message under way may take to arrive.
const GRACE: Duration = Duration::from_secs(5);
/// Before the next try, where no connection can be accepted, as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The name in the greeting.
const NAME: &str = "mailbox.localhost";
const CLOSING: &[u8] = b"421 closing\r\n";
const LINE_TOO_LONG: &[u8] = b"500 line too long\r\n";

/// The server, bound to its port.
pub struct Mailbox {
    listener: TcpListener,
    folder: Arc<Path>,
}

impl Mailbox {
    /// Binds the port (0 takes a free one) and makes the folder.
    ///
    /// # Errors
    /// The port is taken, or the folder cannot be made.
    pub fn bind(listen: SocketAddr, folder: impl Into<PathBuf>) -> io::Result<Self> {
        let folder: Arc<Path> = folder.into().into();
        std::fs::create_dir_all(&folder)?;
        Ok(Self { listener: bind_reuseport(listen)?, folder })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket has none.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes mail until shutdown; a message that is arriving then is still kept.
    pub async fn run(self, shutdown: CancellationToken) {
        let (slots, sessions) = (Arc::new(Semaphore::new(CONNECTIONS)), TaskTracker::new());
        let next = async || {
            let slot = slots.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = self.listener.accept().await?;
            io::Result::Ok((slot, stream, peer))
        };
        while let Some(accepted) = shutdown.run_until_cancelled(next()).await {
            let (slot, stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "the mailbox cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (folder, shutdown) = (self.folder.clone(), shutdown.clone());
            sessions.spawn(async move {
                let _slot = slot;
                if let Err(error) = serve(stream, peer, folder, shutdown).await {
                    tracing::debug!(%error, "a mail session ended");
                }
            });
        }
        sessions.close();
        let _ = timeout(GRACE, sessions.wait()).await;
    }
}

async fn serve(
    mut stream: TcpStream,
    peer: SocketAddr,
    folder: Arc<Path>,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    let receiver = Receiver { folder, message: Vec::new(), too_big: false };
    let mut session = SessionBuilder::new(NAME).build(peer.ip(), receiver);
    reply(&mut write, &session.greeting()).await?;
    let (mut line, mut in_message) = (Vec::new(), false);
    loop {
        line.clear();
        tokio::select! {
            biased;
            read = timeout(IDLE, read_line(&mut read, &mut line)) => read.map_err(io::Error::other)??,
            () = shutdown.cancelled(), if !in_message => return send(&mut write, CLOSING).await,
        }
        match line.last() {
            None => return Ok(()),
            Some(b'\n') => {}
            Some(_) => return send(&mut write, LINE_TOO_LONG).await,
        }
        let answer = session.process(&line);
        if answer.action == Action::NoReply {
            continue;
        }
        reply(&mut write, &answer).await?;
        // After a message that was refused the session would go on to take commands for its text.
        if answer.action == Action::Close || (in_message && answer.is_error) {
            return Ok(());
        }
        in_message = answer.code == response::START_DATA.code;
    }
}

async fn read_line(read: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> io::Result<()> {
    read.take(MAX_LINE).read_until(b'\n', line).await.map(drop)
}

async fn reply(write: &mut (impl AsyncWrite + Unpin), response: &Response) -> io::Result<()> {
    let mut text = Vec::new();
    response.write_to(&mut text)?;
    send(write, &text).await
}

async fn send(write: &mut (impl AsyncWrite + Unpin), text: &[u8]) -> io::Result<()> {
    timeout(WRITE, write.write_all(text)).await.map_err(io::Error::other)?
}

/// Collects a message and keeps it.
struct Receiver {
    folder: Arc<Path>,
    message: Vec<u8>,
    too_big: bool,
}

impl Handler for Receiver {
    fn data_start(&mut self, _domain: &str, _from: &str, _is8bit: bool, _to: &[String]) -> Response {
        self.message.clear();
        self.too_big = false;
        response::OK
    }

    fn data(&mut self, part: &[u8]) -> io::Result<()> {
        self.too_big |= self.message.len() + part.len() > MAX_MESSAGE;
        if !self.too_big {
            self.message.extend_from_slice(part);
        }
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        if self.too_big {
            return response::NO_STORAGE;
        }
        // A few kilobytes into the page cache: not worth another thread.
        match folder::keep(&self.folder, &self.message) {
            Ok(()) => response::OK,
            Err(error) => {
                tracing::warn!(%error, "a mail cannot be kept");
                response::INTERNAL_ERROR
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mailbox::list;
    use eventicket_kit::http::ANY_PORT;

    async fn talk(address: SocketAddr, lines: &[&str]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        for line in lines {
            stream.write_all(line.as_bytes()).await.unwrap();
            stream.write_all(b"\r\n").await.unwrap();
        }
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    fn message<'a>(id: &'a str, text: &'a str) -> [&'a str; 11] {
        let to = "To: Ada <ada@example.org>";
        let head = ["EHLO me", "MAIL FROM:<t@eventicket.test>", "RCPT TO:<ada@example.org>", "DATA", id, to];
        let [a, b, c, d, e, f] = head;
        [a, b, c, d, e, f, "Subject: Hi", "", text, ".", "QUIT"]
    }

    fn mailbox() -> (SocketAddr, tempfile::TempDir, CancellationToken, tokio::task::JoinHandle<()>) {
        let (folder, shutdown) = (tempfile::tempdir().unwrap(), CancellationToken::new());
        let mailbox = Mailbox::bind(ANY_PORT, folder.path()).unwrap();
        let address = mailbox.local_addr().unwrap();
        (address, folder, shutdown.clone(), tokio::spawn(mailbox.run(shutdown)))
    }

    #[tokio::test]
    async fn keeps_one_of_each_message_id() {
        let (address, folder, shutdown, running) = mailbox();
        for (id, text) in [("Message-ID: <1@x>", "first"), ("Message-ID: <1@x>", "again"), ("Message-ID: <2@x>", "2")] {
            let answer = talk(address, &message(id, text)).await;
            assert!(answer.contains("354") && answer.contains("221"), "{answer}");
        }
        let kept = list(folder.path()).unwrap();
        assert_eq!(kept.len(), 2);
        assert!(kept.iter().all(|m| m.to == "ada@example.org" && m.subject == "Hi"));
        shutdown.cancel();
        running.await.unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "no temporary file is left");
    }

    #[tokio::test]
    async fn bounds_lines_and_messages() {
        let (address, folder, shutdown, running) = mailbox();
        let long = "x".repeat(MAX_LINE as usize + 1);
        assert!(talk(address, &message("Message-ID: <1@x>", &long)).await.contains("500 line too long"));
        let line = "y".repeat(MAX_LINE as usize - 2);
        let big = vec![line.as_str(); MAX_MESSAGE / (MAX_LINE as usize) + 1].join("\r\n");
        let answer = talk(address, &message("Message-ID: <2@x>", &big)).await;
        assert!(answer.contains("552") && !answer.contains("221"), "{answer}");
        assert!(list(folder.path()).unwrap().is_empty());
        shutdown.cancel();
        running.await.unwrap();
    }

    #[tokio::test]
    async fn shutdown_closes_who_is_idle_and_keeps_what_arrives() {
        let (address, folder, shutdown, running) = mailbox();
        let mut stream = BufReader::new(TcpStream::connect(address).await.unwrap());
        let all = message("Message-ID: <1@x>", "late");
        let (before, after) = all.split_at(4);
        stream.write_all(format!("{}\r\n", before.join("\r\n")).as_bytes()).await.unwrap();
        let mut line = String::new();
        while !line.starts_with("354") {
            line.clear();
            stream.read_line(&mut line).await.unwrap();
        }
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.read_exact(&mut [0; 3]).await.unwrap();
        shutdown.cancel();
        let mut rest = String::new();
        idle.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("421"), "{rest}");
        stream.write_all(format!("{}\r\n", after[..6].join("\r\n")).as_bytes()).await.unwrap();
        let mut rest = String::new();
        let _ = stream.read_to_string(&mut rest).await;
        assert!(rest.contains("250"), "{rest}");
        running.await.unwrap();
        assert_eq!(list(folder.path()).unwrap().len(), 1);
    }
}
