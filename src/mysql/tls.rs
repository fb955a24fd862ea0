//! How connections are protected: off, or TLS with the server's identity proven.
//!
//! There is nothing in between: a certificate that nobody checks protects from nobody. The authorities that may vouch for a
//! server are the public ones, or, where the playbook names a `ca` file, only those in it. RDS and Aurora need that: their
//! certificates are signed by Amazon's own authorities, which no public list has (`global-bundle.pem`).

use std::path::{Path, PathBuf};

use mysql_async::SslOpts;
use thiserror::Error;

use crate::playbook::model::Tls;

/// How a connection is protected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Protection {
    /// Not at all.
    Off,
    /// TLS 1.2 or later, certificate and host name verified.
    Verified {
        /// A PEM file of the only authorities trusted; `None` for the public ones.
        authorities: Option<PathBuf>,
    },
}

/// What `tls` and `ca` can't mean, or a file that holds no certificates.
#[derive(Debug, Error)]
pub enum ProtectionError {
    /// A `ca` that nothing would look at.
    #[error("`ca` is given and `tls` is `off`")]
    Contradiction,
    /// The file can't be read.
    #[error("the `ca` file `{}` can't be read: {error}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The file holds something else.
    #[error("the `ca` file `{}` holds no PEM certificate", .path.display())]
    NoCertificate {
        /// Which.
        path: PathBuf,
    },
}

impl ProtectionError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            ProtectionError::Contradiction => "leave one of both out",
            ProtectionError::Unreadable { .. } | ProtectionError::NoCertificate { .. } => {
                "name a PEM file with the authorities of the server's certificate; for RDS and Aurora that is Amazon's `global-bundle.pem`"
            }
        }
    }
}

impl Protection {
    /// As the playbook says. A `ca` alone means [`Tls::Verify`]; neither means `otherwise`.
    ///
    /// # Errors
    /// [`ProtectionError`].
    pub fn of(tls: Option<Tls>, ca: Option<&Path>, otherwise: Tls) -> Result<Protection, ProtectionError> {
        match (tls, ca) {
            (Some(Tls::Off), Some(_)) => Err(ProtectionError::Contradiction),
            (None, None) if otherwise == Tls::Off => Ok(Protection::Off),
            (Some(Tls::Off), None) => Ok(Protection::Off),
            (_, ca) => {
                let authorities = ca.map(Path::to_owned);
                authorities.as_deref().map(read).transpose()?;
                Ok(Protection::Verified { authorities })
            }
        }
    }

    /// What the driver has to be told; `None` without TLS. The file is read each time, so that a renewed one counts.
    ///
    /// # Errors
    /// [`ProtectionError`], if the file is not what it was.
    pub fn options(&self) -> Result<Option<SslOpts>, ProtectionError> {
        Ok(match self {
            Protection::Off => None,
            Protection::Verified { authorities: None } => Some(SslOpts::default()),
            Protection::Verified { authorities: Some(path) } => {
                Some(SslOpts::default().with_disable_built_in_roots(true).with_root_certs(vec![read(path)?.into()]))
            }
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ProtectionError> {
    const MARK: &[u8] = b"-----BEGIN CERTIFICATE-----";
    let text = std::fs::read(path).map_err(|error| ProtectionError::Unreadable { path: path.to_owned(), error })?;
    if text.windows(MARK.len()).any(|window| window == MARK) {
        return Ok(text);
    }
    Err(ProtectionError::NoCertificate { path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ca_means_tls_and_contradicts_off() {
        let directory = tempfile::tempdir().unwrap();
        let good = directory.path().join("ca.pem");
        std::fs::write(&good, "-----BEGIN CERTIFICATE-----\n").unwrap();
        let verified = |ca: Option<&PathBuf>| Protection::Verified { authorities: ca.cloned() };
        let of = |tls, ca: Option<&PathBuf>, otherwise| Protection::of(tls, ca.map(PathBuf::as_path), otherwise);
        assert_eq!(of(None, None, Tls::Off).unwrap(), Protection::Off);
        assert_eq!(of(None, None, Tls::Verify).unwrap(), verified(None));
        assert_eq!(of(None, Some(&good), Tls::Off).unwrap(), verified(Some(&good)));
        assert_eq!(of(Some(Tls::Verify), Some(&good), Tls::Off).unwrap(), verified(Some(&good)));
        assert_eq!(of(Some(Tls::Off), None, Tls::Verify).unwrap(), Protection::Off);
        assert!(matches!(of(Some(Tls::Off), Some(&good), Tls::Verify), Err(ProtectionError::Contradiction)));
        let other = directory.path().join("other.pem");
        assert!(matches!(of(None, Some(&other), Tls::Off), Err(ProtectionError::Unreadable { .. })));
        std::fs::write(&other, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert!(matches!(of(None, Some(&other), Tls::Off), Err(ProtectionError::NoCertificate { .. })));
    }
}
