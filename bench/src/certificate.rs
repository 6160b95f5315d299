//! The certificate of an origin that speaks TLS: self-signed for 127.0.0.1, made anew by each run that needs one, in a
//! temporary directory. Peers that verify trust this very certificate.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;

use crate::Result;

const CERTIFICATE_FILE: &str = "origin.pem";
const KEY_FILE: &str = "origin.key";

/// Certificate and key as PEM files, removed when dropped.
#[derive(Debug)]
pub(crate) struct Certificate {
    dir: TempDir,
}

impl Certificate {
    /// Makes one.
    pub(crate) fn new() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("pacegate-bench-")
            .tempdir()?;
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        fs::write(dir.path().join(CERTIFICATE_FILE), made.cert.pem())?;
        fs::write(dir.path().join(KEY_FILE), made.signing_key.serialize_pem())?;
        Ok(Self { dir })
    }

    /// Where both files are: what `server` takes.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The certificate, for those who verify it.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join(CERTIFICATE_FILE)
    }
}

/// How a server speaks TLS with the certificate in `dir`: HTTP/1.1 only, whatever the other side offers.
pub(crate) fn server(dir: &Path) -> Result<Arc<ServerConfig>> {
    let certificate = CertificateDer::from_pem_file(dir.join(CERTIFICATE_FILE))?;
    let key = PrivateKeyDer::from_pem_file(dir.join(KEY_FILE))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_use_what_was_made() {
        let certificate = Certificate::new().unwrap();
        assert!(certificate.file().is_file());
        assert!(server(certificate.dir()).is_ok());
    }
}
