//! TLS to the endpoint, for VMDSes and for the probe; the SDK has its own. The same certificates are trusted by both.
//!
//! No certificate of this side is ever shown: what a VMDS says through a connection is said in nobody's name but by
//! the signature it was given.

use std::io;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::trust::Trust;
use super::{Endpoint, S3Error};

/// See the module.
pub(super) struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Prepares for an endpoint; nothing is sent.
    ///
    /// # Errors
    /// [`S3Error::Invalid`]: nothing is trusted, or the endpoint's name is none.
    pub(super) fn new(endpoint: &Endpoint, trust: &Trust) -> Result<Self, S3Error> {
        let unusable = |_| S3Error::Invalid("TLS cannot be set up".to_owned());
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(trust.roots()?)
            .with_no_client_auth();
        // What is spoken on the other side of a relay.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(endpoint.name.clone());
        let no_name =
            |_| S3Error::Invalid(format!("'{}' is no name a certificate could be for", endpoint.name));
        Ok(Self { connector: Arc::new(config).into(), name: name.map_err(no_name)? })
    }

    /// Greets the endpoint and checks who it is.
    ///
    /// # Errors
    /// [`S3Error::Invalid`]: it is not who it should be; [`S3Error::Unavailable`]: the connection broke.
    pub(super) async fn greet(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, S3Error> {
        self.connector.connect(self.name.clone(), stream).await.map_err(|error| told(&error))
    }
}

/// Why TLS did not come about. Nothing of what the endpoint has sent is repeated.
fn told(error: &io::Error) -> S3Error {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return S3Error::Unavailable(error.kind().to_string());
    };
    let sentence = match cause {
        rustls::Error::InvalidCertificate(wrong) => match wrong {
            // The latter: somebody of the same name.
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "the endpoint's certificate is signed by nobody who is trusted here; name who signs it with --ca-file"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "the endpoint's certificate is for another name than that of the endpoint"
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "the endpoint's certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "the endpoint's certificate is not valid yet; look at the clock of this host"
            }
            _ => "the endpoint's certificate cannot be verified",
        },
        rustls::Error::InvalidMessage(_) => "the endpoint does not speak TLS",
        _ => return S3Error::Unavailable("TLS failed".to_owned()),
    };
    S3Error::Invalid(sentence.to_owned())
}
