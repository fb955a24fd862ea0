//! The connection beneath a request: the name looked up, TCP, and TLS where the url says so.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper::Uri;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::error::HttpError;

/// What a request is sent over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Connects to a url's server. `shown` is what errors call it.
pub(super) async fn connect(uri: &Uri, shown: &str, authorities: Option<&Path>) -> Result<Box<dyn Stream>, HttpError> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
    let secure = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if secure { 443 } else { 80 });
    // Before the network: a file that is no use is one whether or not the server is up.
    let tls = if secure { Some(configuration(authorities)?) } else { None };
    let unreachable = |error: &io::Error| HttpError::Unreachable { url: shown.to_owned(), reason: shown_error(error) };
    let stream = TcpStream::connect((host.as_str(), port)).await.map_err(|error| unreachable(&error))?;
    // Requests are small and waited for: nothing is gained by collecting bytes.
    stream.set_nodelay(true).map_err(|error| unreachable(&error))?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    let name = ServerName::try_from(host)
        .map_err(|_| HttpError::Url { url: shown.to_owned(), reason: "its host can't be a name in a certificate".to_owned() })?;
    let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.map_err(|error| {
        // rustls hands its own errors over as "invalid data"; anything else is the network.
        if error.kind() == io::ErrorKind::InvalidData {
            HttpError::Untrusted { url: shown.to_owned(), reason: shown_error(&error) }
        } else {
            unreachable(&error)
        }
    })?;
    Ok(Box::new(stream))
}

/// A system's or library's words, which may hold names out of a stranger's certificate.
pub(super) fn shown_error(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    let short: String = text.chars().take(300).collect();
    crate::telemetry::printable::printable(&short).into_owned()
}

/// TLS 1.2 or later; the public authorities, or only those of a file, which is read each time so that a renewed one counts.
fn configuration(authorities: Option<&Path>) -> Result<ClientConfig, HttpError> {
    let mut roots = RootCertStore::empty();
    match authorities {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let wrong = |reason: String| HttpError::Authorities { path: PathBuf::from(path), reason };
            let certificates = CertificateDer::pem_file_iter(path)
                .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                .map_err(|error| wrong(format!("can't be read: {}", shown_error(&error))))?;
            if certificates.is_empty() {
                return Err(wrong("holds no PEM certificate".to_owned()));
            }
            for certificate in certificates {
                roots
                    .add(certificate)
                    .map_err(|error| wrong(format!("holds a certificate that can't be used: {}", shown_error(&error))))?;
            }
        }
    }
    let mut configuration = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| HttpError::Authorities { path: authorities.unwrap_or(Path::new("")).to_owned(), reason: error.to_string() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    configuration.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(configuration)
}
