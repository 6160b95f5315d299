//! The callers: a connection that sends requests, and the ways to use many of them at once: `closed` (each caller sends again as
//! soon as it has its answer), `http2` (the same with many callers on one connection), `open` (requests start at fixed instants,
//! whatever becomes of the earlier ones), `parked` (callers that send once and wait), and `saturate` (wrk where it is installed,
//! else the closed loop).

pub(crate) mod closed;
mod http2;
pub(crate) mod open;
pub(crate) mod parked;
pub(crate) mod saturate;

use std::io;
use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::http::{self, Head};

/// One caller; it connects when it must.
#[derive(Debug)]
pub(crate) struct Caller {
    addr: SocketAddr,
    connection: Option<Connection>,
}

impl Caller {
    /// Does not connect yet.
    pub(crate) fn new(addr: SocketAddr) -> Self {
        Self {
            addr,
            connection: None,
        }
    }

    /// Connects now, so that no request pays for it.
    pub(crate) async fn connect(&mut self) -> io::Result<()> {
        self.connection = Some(Connection::open(self.addr).await?);
        Ok(())
    }

    /// Sends one GET and reads its whole answer; the status. After an error the next request connects anew.
    pub(crate) async fn get(&mut self, number: u32) -> io::Result<u16> {
        self.send(&http::get(number)).await
    }

    /// Sends `request` and reads its whole answer; the status. After an error the next request connects anew.
    pub(crate) async fn send(&mut self, request: &[u8]) -> io::Result<u16> {
        let (head, _) = self.exchange(request).await?;
        Ok(head.status)
    }

    /// Sends one GET of `path`; status and body.
    pub(crate) async fn fetch(&mut self, path: &str) -> io::Result<(u16, Bytes)> {
        let (head, body) = self.exchange(&http::get_path(path)).await?;
        Ok((head.status, body))
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(Head, Bytes)> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.addr).await?,
        };
        let (head, body) = connection.exchange(request).await?;
        if !head.close && head.length.is_some() {
            self.connection = Some(connection);
        }
        Ok((head, body))
    }
}

/// Sends one GET on a connection of its own; status and body.
pub(crate) async fn fetch(addr: SocketAddr, path: &str) -> io::Result<(u16, Bytes)> {
    Caller::new(addr).fetch(path).await
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    input: BytesMut,
}

impl Connection {
    async fn open(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            input: BytesMut::with_capacity(1024),
        })
    }

    async fn exchange(&mut self, request: &[u8]) -> io::Result<(Head, Bytes)> {
        self.stream.write_all(request).await?;
        let head = loop {
            if let Some(head) = http::response(&self.input)? {
                break head;
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        self.input.advance(head.size);
        let length = head.length.unwrap_or(usize::MAX);
        while self.input.len() < length {
            if self.stream.read_buf(&mut self.input).await? == 0 {
                if head.length.is_some() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                break;
            }
        }
        let body = self.input.split_to(length.min(self.input.len()));
        Ok((head, body.freeze()))
    }
}
