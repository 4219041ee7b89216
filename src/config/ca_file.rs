//! Certificates of the operator's own authority.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

use super::file;

/// A PEM file, read once, so that a reload sees when its content has changed. That the certificates
/// mean something is for TLS to say.
#[derive(Clone, PartialEq, Eq)]
pub struct CaFile {
    /// The path of the file.
    pub path: PathBuf,
    /// Its certificates, at least one.
    pub certificates: Vec<CertificateDer<'static>>,
}

impl CaFile {
    /// Reads `path`, which starts at `folder` if the path is relative.
    pub(super) fn read(folder: &Path, path: &str) -> Result<Self, String> {
        let path = folder.join(path);
        file::check(&path)?;
        let pem = file::read(&path)?;
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| "is not a PEM file that can be read to its end")?;
        if certificates.is_empty() {
            return Err("holds no certificate (`-----BEGIN CERTIFICATE-----`)".into());
        }
        Ok(Self { path, certificates })
    }
}

impl fmt::Debug for CaFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CaFile({:?}, {} certificates)", self.path, self.certificates.len())
    }
}
