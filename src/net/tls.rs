//! TLS to nodes: rustls with the platform's roots, or with a CA file of the node's own beside them.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

use super::BoxIo;

/// What is needed to lay TLS over a connection to one host.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Prepares TLS to `host`, trusting the platform's roots and the certificates in `ca_file` (PEM).
    ///
    /// # Errors
    /// When the file cannot be read, holds no certificate, or `host` cannot be named in one.
    pub fn new(host: &str, ca_file: Option<&Path>) -> io::Result<Self> {
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidInput, why);
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(path) = ca_file {
            let unreadable = |error| invalid(format!("{}: {error}", path.display()));
            let mut found = false;
            for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
                let certificate = certificate.map_err(unreadable)?;
                roots.add(certificate).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
                found = true;
            }
            if !found {
                return Err(invalid(format!("{}: no certificate in it", path.display())));
            }
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(format!("{host}: {error}")))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Lays TLS over `io`.
    ///
    /// # Errors
    /// When the handshake fails; the certificate's fault is told.
    pub async fn wrap(&self, io: BoxIo) -> io::Result<BoxIo> {
        let stream = self.connector.connect(self.name.clone(), io).await?;
        Ok(Box::new(stream))
    }
}
