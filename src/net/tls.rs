//! TLS to nodes: rustls with the platform's roots, or with a CA file of the node's own beside them.

use std::{io, sync::Arc};

use tokio_rustls::{
    TlsConnector,
    rustls::{
        CertificateError, ClientConfig, Error, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName},
    },
};

use super::BoxIo;

/// The configuration to lay TLS over a connection to one host.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Tls {
    /// Prepares TLS to `host`, trusting the platform's roots and the `extra` authorities.
    ///
    /// # Errors
    /// When an authority's certificate means nothing, or `host` cannot be named in one.
    pub fn new(host: &str, extra: &[CertificateDer<'static>]) -> io::Result<Self> {
        let config = client_config(extra)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| invalid(format!("{host}: {error}")))?;
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// Lays TLS over `io`.
    ///
    /// # Errors
    /// When the handshake fails; the certificate's fault is told.
    pub async fn wrap(&self, io: BoxIo) -> io::Result<BoxIo> {
        let stream = self.connector.connect(self.name.clone(), io).await.map_err(explained)?;
        Ok(Box::new(stream))
    }
}

/// Has libraries that ask for the process's TLS use the same as the proxy.
pub(super) fn provide() {
    // Another call may have done so before.
    let _ = ring::default_provider().install_default();
}

/// TLS for HTTP/1.1, trusting the platform's roots and the `extra` authorities.
///
/// # Errors
/// When an authority's certificate means nothing.
pub(super) fn client_config(extra: &[CertificateDer<'static>]) -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for certificate in extra {
        roots.add(certificate.clone()).map_err(|error| invalid(format!("a certificate of ca_file: {error}")))?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn invalid(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// The error, with advice for the operator if a wrong setting can cause it.
fn explained(error: io::Error) -> io::Error {
    let fault = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    let advice = match fault {
        Some(Error::InvalidMessage(_)) => "the port does not speak TLS: is the URL http:// or ws://?",
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "no authority that is trusted has signed the certificate: is one to be named as ca_file?"
        }
        Some(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. })) => {
            "the certificate is for other names: is the URL's host one of them?"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}; {advice}"))
}
