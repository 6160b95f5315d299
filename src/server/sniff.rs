//! Which HTTP a caller speaks: its first bytes are HTTP/2's preface (RFC 9113,
//! section 3.4) or they are not.
//!
//! Ours and not hyper-util's, because that one has no bound on its time and may
//! serve HTTP/2 where it was told not to.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a caller speaks, and the bytes by which that is known.
#[derive(Debug)]
pub(super) struct Sniffed {
    bytes: Vec<u8>,
    is_first: bool,
}

impl Sniffed {
    pub(super) fn is_http2(&self) -> bool {
        self.is_first && self.bytes.starts_with(PREFACE)
    }

    /// What was read.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads on after `bytes` until it is clear what `stream` speaks: HTTP/1 if these
/// are not the first.
///
/// # Errors
///
/// The stream broke or ended first.
pub(super) async fn sniff<T>(
    stream: &mut T,
    mut bytes: Vec<u8>,
    is_first: bool,
) -> io::Result<Sniffed>
where
    T: AsyncRead + Unpin,
{
    while is_first && bytes.len() < PREFACE.len() && PREFACE.starts_with(&bytes) {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Sniffed { bytes, is_first })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn sniffed(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut caller, mut stream) = tokio::io::duplex(1024);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|piece| piece.to_vec()).collect();
        let writer = tokio::spawn(async move {
            for piece in pieces {
                caller.write_all(&piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let sniffed = sniff(&mut stream, Vec::new(), true).await.unwrap();
        writer.await.unwrap();
        let is_http2 = sniffed.is_http2();
        let mut all = sniffed.into_bytes();
        stream.read_to_end(&mut all).await.unwrap();
        (is_http2, all)
    }

    #[tokio::test]
    async fn the_preface_is_known_in_any_pieces_and_nothing_is_lost() {
        let (is_http2, all) = sniffed(&[b"PRI * HT", b"TP/2.0\r\n\r\nSM\r\n\r\n", b"rest"]).await;
        assert!(is_http2);
        assert_eq!(all, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nrest");
    }

    #[tokio::test]
    async fn methods_that_begin_like_the_preface_are_http_1() {
        for request in ["PROPFIND / HTTP/1.1\r\n\r\n", "P", "PRI * HTTP/1.1\r\n\r\n"] {
            let end: &[u8] = if request.len() == 1 {
                b"UT / HTTP/1.1"
            } else {
                b""
            };
            let (is_http2, all) = sniffed(&[request.as_bytes(), end]).await;
            assert!(!is_http2);
            assert!(all.starts_with(request.as_bytes()));
        }
    }
}
