//! One kept-alive connection, never waited for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// What reading brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// Bytes, of which nothing is left to read for now.
    Bytes(usize),
    /// Nothing yet.
    Nothing,
    /// The other side closed it.
    Closed,
}

/// A connection with what it could not send yet, and the part of an answer that came.
pub struct Connection {
    stream: TcpStream,
    unsent: Vec<u8>,
    /// The beginning of an answer whose end has not come.
    pub partial: Vec<u8>,
}

impl Connection {
    /// Begins to connect.
    ///
    /// # Errors
    /// There are no more open files or ports.
    pub fn open(address: SocketAddr, registry: &Registry, token: Token) -> io::Result<Self> {
        let mut stream = TcpStream::connect(address)?;
        let _ = stream.set_nodelay(true);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { stream, unsent: Vec::new(), partial: Vec::new() })
    }

    /// Sends what can be sent now and keeps the rest for [`Self::flush`].
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = if self.unsent.is_empty() { write(&mut self.stream, bytes)? } else { 0 };
        self.unsent.extend_from_slice(&bytes[sent..]);
        Ok(())
    }

    /// Sends what was kept.
    ///
    /// # Errors
    /// The connection is broken, or could not be made.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.unsent.is_empty() {
            let sent = write(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
        }
        Ok(())
    }

    /// Reads once: less than fits is all that is there, and more is told by the next event.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self, into: &mut [u8]) -> io::Result<Received> {
        match self.stream.read(into) {
            Ok(0) => Ok(Received::Closed),
            Ok(read) => Ok(Received::Bytes(read)),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Ok(Received::Nothing)
            }
            Err(error) => Err(error),
        }
    }

    /// Ends it.
    pub fn close(mut self, registry: &Registry) {
        let _ = registry.deregister(&mut self.stream);
    }
}

fn write(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    match stream.write(bytes) {
        // While it is being made, it is not connected yet.
        Err(error)
            if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::NotConnected) =>
        {
            Ok(0)
        }
        written => written,
    }
}
