use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use ed25519_dalek::SigningKey;
use lanrage_proto::api::{TLS_NAME, TLS_VERIFICATION_TIME};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// PKCS #8 of an Ed25519 key up to its 32 bytes (RFC 8410 §7).
const PKCS8_ED25519: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
/// A leaf lives as long as the process that made it.
const LEAF_LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// TLS 1.3 under a fresh leaf certificate for [`TLS_NAME`], signed by the root key. The leaf's key
/// never leaves the process.
pub(super) fn server_config(root: &SigningKey, now: u64) -> anyhow::Result<Arc<ServerConfig>> {
    let seed = Zeroizing::new(root.to_bytes());
    let pkcs8 = Zeroizing::new([&PKCS8_ED25519[..], &seed[..]].concat());
    let pkcs8 = PrivatePkcs8KeyDer::from(&pkcs8[..]);
    let root = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519)?;

    // Long ago, for clients check at a fixed time and other tools by clocks that may be wrong.
    let not_before = date_time_ymd(2025, 1, 1);
    let end = Duration::from_secs(now.max(TLS_VERIFICATION_TIME)) + LEAF_LIFETIME;
    let not_after = date_time_ymd(1970, 1, 1) + end;

    let mut authority = CertificateParams::new(Vec::new())?;
    authority.distinguished_name.push(DnType::CommonName, "LANrage control root");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    (authority.not_before, authority.not_after) = (not_before, not_after);
    let root = CertifiedIssuer::self_signed(authority, root)?;

    let key = KeyPair::generate()?;
    let mut leaf = CertificateParams::new(vec![TLS_NAME.to_owned()])?;
    leaf.distinguished_name.push(DnType::CommonName, TLS_NAME);
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    (leaf.not_before, leaf.not_after) = (not_before, not_after);
    let leaf = leaf.signed_by(&key, &root)?;

    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone(), root.der().clone()], key)
            .context("making the TLS configuration")?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    // Each connection is proven anew; there is nothing to resume.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
