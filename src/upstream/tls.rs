//! TLS towards the upstream. The only file that names rustls.
//!
//! The upstream's certificate is always verified: against the system's
//! authorities, or against the ones of a file alone. Nothing switches that off.

use std::error::Error;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use rustls_platform_verifier::Verifier;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{self, Http2};

/// The protocol name of HTTP/2 in ALPN (RFC 9113, section 3.1).
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Shakes hands with one upstream.
#[derive(Clone)]
pub(super) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
}

/// Why TLS cannot be set up.
#[derive(Debug)]
pub(crate) enum TlsError {
    /// A PEM file cannot be read, or holds nothing of use.
    File(PathBuf, Box<dyn Error + Send + Sync>),
    /// A setting is refused.
    Setting(&'static str, Box<dyn Error + Send + Sync>),
}

impl Client {
    pub(super) fn new(upstream: &config::Upstream) -> Result<Self, TlsError> {
        let settings = &upstream.tls;
        let name = settings.server_name.as_ref().unwrap_or(&upstream.url.host);
        let name = ServerName::try_from(name.clone())
            .map_err(|error| TlsError::Setting("server name", error.into()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsError::Setting("protocol versions", error.into()))?;
        let builder = match &settings.ca {
            Some(file) => builder.with_root_certificates(authorities(file)?),
            None => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(system_verifier(provider)?)),
        };
        let config = match &settings.identity {
            Some(identity) => {
                let chain = certificates(&identity.certificate)?;
                let key = PrivateKeyDer::from_pem_file(&identity.key)
                    .map_err(|error| TlsError::File(identity.key.clone(), error.into()))?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(|error| TlsError::File(identity.certificate.clone(), error.into()))?
            }
            None => builder.with_no_client_auth(),
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// The encrypted stream, and whether HTTP/2 was agreed on, or is known.
    pub(super) async fn handshake(
        &self,
        tcp: TcpStream,
        version: Http2,
    ) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let offered: &[&[u8]] = match version {
            Http2::Off => &[HTTP1],
            Http2::Offered => &[HTTP2, HTTP1],
            Http2::PriorKnowledge => &[HTTP2],
        };
        let offered = offered.iter().map(|protocol| protocol.to_vec()).collect();
        let connector = self.connector.with_alpn(offered);
        let stream = connector.connect(self.name.clone(), tcp).await?;
        let agreed = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        Ok((stream, agreed || version == Http2::PriorKnowledge))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The system's authorities. rustls calls any verifier but its own "dangerous";
/// this one is by the same authors and verifies in full.
fn system_verifier(provider: Arc<CryptoProvider>) -> Result<Verifier, TlsError> {
    Verifier::new(provider).map_err(|error| TlsError::Setting("system authorities", error.into()))
}

fn authorities(file: &Path) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(file)? {
        store
            .add(certificate)
            .map_err(|error| TlsError::File(file.to_owned(), error.into()))?;
    }
    Ok(store)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error| TlsError::File(file.to_owned(), error);
    let all: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(error.into()))?
        .collect();
    match all {
        Ok(all) if all.is_empty() => Err(wrong("no certificate in it".into())),
        Ok(all) => Ok(all),
        Err(error) => Err(wrong(error.into())),
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, _) => write!(f, "`{}` cannot be used for TLS", file.display()),
            Self::Setting(what, _) => write!(f, "TLS {what} cannot be used"),
        }
    }
}

impl Error for TlsError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::File(_, error) | Self::Setting(_, error) => Some(error.as_ref()),
        }
    }
}

#[cfg(test)]
mod tests;
