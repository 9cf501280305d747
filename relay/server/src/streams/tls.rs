use std::sync::Arc;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use lanrage_proto::stream::ALPN;
use rcgen::{CertificateParams, DnType, KeyPair, PKCS_ED25519, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// PKCS #8 of an Ed25519 key up to its 32 bytes (RFC 8410 §7).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// TLS 1.3 under a self-signed certificate of this key, which clients know from the relay map. They
/// look at nothing else in it.
pub(crate) fn server_config(key: &SigningKey) -> anyhow::Result<Arc<ServerConfig>> {
    let seed = Zeroizing::new(key.to_bytes());
    let pkcs8 = Zeroizing::new([&PKCS8_ED25519[..], &seed[..]].concat());
    let key = PrivatePkcs8KeyDer::from(&pkcs8[..]);
    let pair = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ED25519)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "relay");
    (params.not_before, params.not_after) = (date_time_ymd(2025, 1, 1), date_time_ymd(2125, 1, 1));
    let certificate = params.self_signed(&pair)?;

    let key = PrivateKeyDer::from(key.clone_key());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .context("making the TLS configuration")?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    // Nothing is kept for a client that has gone.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    Ok(Arc::new(config))
}
