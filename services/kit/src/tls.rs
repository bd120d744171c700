//! The process's provider of TLS cryptography.

/// Makes `ring` the provider that every TLS client of the process uses; further calls change nothing. Clients of HTTP
/// and SMTP are built after it.
pub fn install() {
    // Fails only where a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
