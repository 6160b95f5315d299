//! Sockets to accept on: TCP with one listener per core, Unix, or inherited.

use std::error::Error;
use std::fmt;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::Listen;

/// Connections the kernel holds for us before we accept them.
const BACKLOG: i32 = 4096;

/// A socket that listens and does not block.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The path of a Unix socket, removed when dropped.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// The bound sockets: for each core the same addresses.
#[derive(Debug, Default)]
pub(crate) struct Bound {
    /// One list of listeners per core.
    pub(crate) cores: Vec<Vec<Listener>>,
    /// The TCP addresses, with the ports that the system chose.
    pub(crate) addresses: Vec<SocketAddr>,
    /// Unix sockets' files, there until dropped.
    pub(crate) files: Vec<SocketFile>,
}

/// A socket that cannot be had.
#[derive(Debug)]
pub struct ListenError {
    what: String,
    error: io::Error,
}

impl Bound {
    /// Binds every address for `cores` cores.
    ///
    /// # Errors
    ///
    /// The first address that cannot be had.
    pub(crate) fn new(listen: &[Listen], cores: usize) -> Result<Self, ListenError> {
        let mut bound = Self {
            cores: (0..cores).map(|_| Vec::new()).collect(),
            ..Self::default()
        };
        for address in listen {
            let added = match address {
                Listen::Tcp(address) => bound.add_tcp(*address),
                Listen::Unix(path) => bound.add_unix(path),
                Listen::Systemd => bound.add_inherited(),
            };
            added.map_err(|error| ListenError {
                what: address.to_string(),
                error,
            })?;
        }
        Ok(bound)
    }

    fn add_tcp(&mut self, address: SocketAddr) -> io::Result<()> {
        if address.port() != 0 {
            // SO_REUSEPORT would let a second daemon join in silently.
            tcp(address, false)?;
        }
        let mut address = address;
        for listeners in &mut self.cores {
            let listener = tcp(address, true)?;
            address = listener.local_addr()?;
            listeners.push(Listener::Tcp(listener));
        }
        self.addresses.push(address);
        Ok(())
    }

    fn add_unix(&mut self, path: &Path) -> io::Result<()> {
        let is_socket = fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
        if is_socket && UnixStream::connect(path).is_err() {
            // Left behind by a process that is no longer there.
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        self.files.push(SocketFile(path.to_owned()));
        self.share(&Listener::Unix(listener))
    }

    fn add_inherited(&mut self) -> io::Result<()> {
        let mut inherited = ListenFd::from_env();
        if inherited.len() == 0 {
            let text = "no socket was inherited (LISTEN_FDS is not set)";
            return Err(io::Error::new(io::ErrorKind::NotFound, text));
        }
        for index in 0..inherited.len() {
            let listener = match inherited.take_tcp_listener(index) {
                Ok(Some(listener)) => {
                    self.addresses.push(listener.local_addr()?);
                    Listener::Tcp(listener)
                }
                _ => match inherited.take_unix_listener(index)? {
                    Some(listener) => Listener::Unix(listener),
                    None => continue,
                },
            };
            self.share(&listener)?;
        }
        Ok(())
    }

    /// One socket that all cores accept on.
    fn share(&mut self, listener: &Listener) -> io::Result<()> {
        for listeners in &mut self.cores {
            let copy = match listener {
                Listener::Tcp(listener) => Listener::Tcp(listener.try_clone()?),
                Listener::Unix(listener) => Listener::Unix(listener.try_clone()?),
            };
            // An inherited socket blocks until told otherwise.
            match &copy {
                Listener::Tcp(listener) => listener.set_nonblocking(true)?,
                Listener::Unix(listener) => listener.set_nonblocking(true)?,
            }
            listeners.push(copy);
        }
        Ok(())
    }
}

fn tcp(address: SocketAddr, reuse_port: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    if reuse_port {
        socket.listen(BACKLOG)?;
    }
    Ok(socket.into())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = fs::remove_file(&self.0);
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd => f.write_str("systemd"),
        }
    }
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on `{}`", self.what)
    }
}

impl Error for ListenError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_core_listens_on_the_same_port_and_a_second_daemon_is_refused() {
        let any = Listen::Tcp("127.0.0.1:0".parse().unwrap());
        let bound = Bound::new(&[any], 2).unwrap();
        let taken = Listen::Tcp(bound.addresses[0]);
        let error = Bound::new(&[taken], 2).unwrap_err();
        assert_eq!(error.error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_socket_file_left_behind_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        let listen = [Listen::Unix(path.clone())];
        let bound = Bound::new(&listen, 1).unwrap();
        assert!(Bound::new(&listen, 1).is_err());
        drop(bound);
        assert!(!path.exists());
    }
}
