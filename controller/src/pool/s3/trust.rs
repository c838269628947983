//! Whose certificates an endpoint may show: those of the system, or those of a file of the operator's.

use std::path::Path;

use aws_smithy_http_client::tls::TrustStore;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::S3Error;

/// Largest file with certificates, bytes.
const CA_MAX: u64 = 1 << 20;

/// See the module.
pub(super) enum Trust {
    /// Whoever the system trusts.
    System,
    /// Who has signed one of these.
    Only(Vec<u8>, Vec<CertificateDer<'static>>),
}

impl Trust {
    /// Reads the file, if there is one.
    ///
    /// # Errors
    /// [`S3Error::Invalid`]: it cannot be read, or there is no certificate in it.
    pub(super) fn read(ca_file: Option<&Path>) -> Result<Self, S3Error> {
        let Some(path) = ca_file else { return Ok(Self::System) };
        let shown = path.display();
        let unreadable =
            |error| S3Error::Invalid(format!("the certificates {shown} cannot be read: {error}"));
        if std::fs::metadata(path).map_err(unreadable)?.len() > CA_MAX {
            return Err(S3Error::Invalid(format!("the certificates {shown} are more than {CA_MAX} bytes")));
        }
        let pem = std::fs::read(path).map_err(unreadable)?;
        let none = || S3Error::Invalid(format!("there is no certificate (PEM) in {shown}"));
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
        match parsed {
            Ok(certificates) if !certificates.is_empty() => Ok(Self::Only(pem, certificates)),
            _ => Err(none()),
        }
    }

    /// As the SDK wants it.
    pub(super) fn for_sdk(&self) -> TrustStore {
        match self {
            Self::System => TrustStore::default(),
            Self::Only(pem, _) => TrustStore::empty().with_pem_certificate(pem.clone()),
        }
    }

    /// The certificates themselves. Those of the system's that cannot be read are left out.
    ///
    /// # Errors
    /// [`S3Error::Invalid`]: there are none.
    pub(super) fn roots(&self) -> Result<RootCertStore, S3Error> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
            Self::Only(_, certificates) => roots.add_parsable_certificates(certificates.iter().cloned()),
        };
        if roots.is_empty() {
            let from =
                if matches!(self, Self::System) { "the system has" } else { "the file of --ca-file has" };
            return Err(S3Error::Invalid(format!(
                "{from} no certificate by which an https endpoint could be trusted"
            )));
        }
        Ok(roots)
    }
}
