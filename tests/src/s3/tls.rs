//! Certificates for a server, made when they are needed: nothing that could expire lies in the repository.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivatePkcs8KeyDer;

/// Each has a name of its own.
static AUTHORITIES: AtomicU32 = AtomicU32::new(0);

/// Somebody who signs certificates, and is trusted by nobody who was not told to.
pub struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a server shows, and how it speaks TLS.
#[derive(Clone)]
pub struct ServerTls(pub(super) Arc<ServerConfig>);

impl Authority {
    /// A new one, with a key of its own.
    ///
    /// # Panics
    /// If there is no randomness.
    #[must_use]
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("make a key");
        let mut params = CertificateParams::default();
        let number = AUTHORITIES.fetch_add(1, Ordering::Relaxed);
        params.distinguished_name.push(DnType::CommonName, format!("authority {number} of a test"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("sign a certificate").pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// Its certificate, for those who shall trust it.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A server whose certificate is for `name`, which is a host's or an IP address.
    ///
    /// # Panics
    /// If that is no name.
    #[must_use]
    pub fn serve_as(&self, name: &str) -> ServerTls {
        let key = KeyPair::generate().expect("make a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("sign a certificate");
        let secret = PrivatePkcs8KeyDer::from(key.serialize_der());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the usual versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], secret.into());
        let mut config = config.expect("a certificate and its key");
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        ServerTls(Arc::new(config))
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}
