//! Callers that wait: each has a connection of its own, has sent one GET of about 110 bytes and reads nothing. Dropping them
//! hangs up.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};

use crate::http;

/// Connections per source address: well below the ephemeral ports that one address has.
const PER_SOURCE: u32 = 4000;

/// Waiting callers.
#[derive(Debug)]
pub(crate) struct Parked {
    addr: SocketAddr,
    callers: Vec<TcpStream>,
    batch: u8,
}

impl Parked {
    /// Lets `count` callers send and wait. Each `batch` comes from addresses of its own, since the ports of an
    /// earlier crowd stay taken for a minute after it has hung up.
    pub(crate) async fn open(addr: SocketAddr, count: usize, batch: u8) -> io::Result<Self> {
        let mut parked = Self {
            addr,
            callers: Vec::with_capacity(count),
            batch,
        };
        for _ in 0..count {
            parked.add().await?;
        }
        Ok(parked)
    }

    /// Adds one more caller: connects and sends.
    pub(crate) async fn add(&mut self) -> io::Result<()> {
        let number = u32::try_from(self.callers.len()).unwrap_or(u32::MAX);
        let host = u8::try_from(number / PER_SOURCE % 250).unwrap_or(0) + 1;
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::new(127, self.batch.max(1), 0, host), 0).into())?;
        let mut stream = socket.connect(self.addr).await?;
        stream.write_all(&http::get(number)).await?;
        self.callers.push(stream);
        Ok(())
    }

    /// Callers that have been answered or cut off, and so wait no longer.
    pub(crate) fn gone(&self) -> usize {
        let gone = |caller: &&TcpStream| match caller.try_read(&mut [0; 1]) {
            Ok(_) => true,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
        self.callers.iter().filter(gone).count()
    }
}
