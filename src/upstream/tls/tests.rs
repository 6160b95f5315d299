//! Handshakes with a real TLS server: who is trusted, and whom we are to it.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::super::connect::{ConnectError, Dialer};
use super::*;
use crate::config::Config;

/// A certificate authority with a server for `api.test` that asks callers for a
/// certificate of the same authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = Issuer::new(params, key);
        let authority = Self { issuer, folder };
        let (certificate, key) = authority.issue("client.test");
        std::fs::write(authority.folder.path().join("client.pem"), certificate).unwrap();
        std::fs::write(authority.folder.path().join("client.key"), key).unwrap();
        authority
    }

    fn issue(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Accepts one caller; its port, and whether the handshake came to an end.
    async fn serve(&self) -> (u16, tokio::task::JoinHandle<bool>) {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.file("ca.pem")).unwrap();
        roots.add(ca).unwrap();
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (certificate, key) = self.issue("api.test");
        let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, key)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            TlsAcceptor::from(Arc::new(config))
                .accept(stream)
                .await
                .is_ok()
        });
        (port, served)
    }
}

fn dialer(port: u16, bound: &str, tls: &str) -> Dialer {
    let text = format!(
        "listen = \"127.0.0.1:1\"\n[upstream.a]\nurl = \"https://127.0.0.1:{port}\"\n\
         timeouts.tls = \"{bound}\"\n[upstream.a.tls]\n{tls}"
    );
    let config = Config::parse("test", &text).unwrap();
    Dialer::new(&config.upstreams[0]).unwrap()
}

#[tokio::test]
async fn our_certificate_is_shown_and_the_name_can_be_another_than_the_hosts() {
    let ours = Authority::new();
    let (port, served) = ours.serve().await;
    let tls = format!(
        "ca = \"{}\"\ncertificate = \"{}\"\nkey = \"{}\"\nserver_name = \"api.test\"\n",
        ours.file("ca.pem"),
        ours.file("client.pem"),
        ours.file("client.key")
    );
    assert!(dialer(port, "10s", &tls).connect().await.is_ok());
    assert!(served.await.unwrap());
}

#[tokio::test]
async fn a_certificate_for_another_name_or_of_another_authority_is_refused() {
    let (ours, other) = (Authority::new(), Authority::new());
    let name = "server_name = \"api.test\"\n";
    for tls in [
        format!("ca = \"{}\"\n", ours.file("ca.pem")),
        format!("ca = \"{}\"\n{name}", other.file("ca.pem")),
    ] {
        let (port, served) = ours.serve().await;
        let refused = dialer(port, "10s", &tls).connect().await;
        assert!(matches!(refused, Err(ConnectError::Tls(_))), "{tls}");
        assert!(!served.await.unwrap());
    }
}

#[tokio::test]
async fn a_handshake_that_is_not_answered_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let ours = Authority::new();
    let tls = format!("ca = \"{}\"\n", ours.file("ca.pem"));
    let given_up = dialer(port, "200ms", &tls).connect().await;
    assert!(matches!(
        given_up,
        Err(ConnectError::TimedOut("TLS handshake"))
    ));
}
