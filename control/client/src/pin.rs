use std::sync::Arc;
use std::time::Duration;

use lanrage_proto::api::{TLS_NAME, TLS_VERIFICATION_TIME};
use lanrage_proto::map::root_hash;
use lanrage_proto::{DeviceKey, RootHash};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

/// An Ed25519 SubjectPublicKeyInfo without its outer header: AlgorithmIdentifier 1.3.101.112 and
/// the BIT STRING's header (RFC 8410 §4); the 32 bytes of the key follow.
const ED25519_SPKI: [u8; 10] = [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What the verifier says when the chain ends in another root key.
pub(crate) const OTHER_ROOT: CertificateError = CertificateError::ApplicationVerificationFailure;

/// TLS 1.3 to the one server whose root key has the pinned hash, whatever host it is reached by.
pub(crate) fn client_config(root: RootHash, alpn: &[u8]) -> Arc<ClientConfig> {
    config(Trust::Root(root), alpn)
}

/// TLS 1.3 to whoever has the private half of this Ed25519 key, whatever name its certificate has.
/// No name is sent.
pub fn key_config(key: DeviceKey, alpn: &[u8]) -> Arc<ClientConfig> {
    config(Trust::Key(key), alpn)
}

fn config(trust: Trust, alpn: &[u8]) -> Arc<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Pinned { trust, provider: Arc::clone(&provider) };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has TLS 1.3 suites")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_sni = matches!(trust, Trust::Root(_));
    // A resumed handshake would not show the certificate again.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The name in control's certificate.
pub(crate) fn server_name() -> ServerName<'static> {
    ServerName::try_from(TLS_NAME).expect("the name is a constant DNS name")
}

/// Whom to trust.
#[derive(Clone, Copy, Debug)]
enum Trust {
    /// Control: the chain's last certificate if its key has this hash, and the leaf if that key
    /// signed it.
    Root(RootHash),
    /// A relay: the leaf if it is of this key, which the signed relay map names.
    Key(DeviceKey),
}

/// Checks certificates against a pin.
///
/// Times are checked at a fixed moment that control's certificates always cover, not by this
/// machine's clock: the pin is the trust, and only the root key's owner can make a leaf. Control's
/// TLS key lives in its process alone; who could steal it could take the root key as well.
#[derive(Debug)]
struct Pinned {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = match self.trust {
            Trust::Root(root) => root,
            Trust::Key(key) => return check_key(leaf, key),
        };
        let last = chain.last().ok_or(Error::InvalidCertificate(OTHER_ROOT))?;
        let mut anchors = RootCertStore::empty();
        anchors.add(last.clone().into_owned())?;
        let key =
            anchors.roots.first().and_then(|anchor| ed25519_key(&anchor.subject_public_key_info));
        if key.is_none_or(|key| root_hash(&key) != root) {
            return Err(Error::InvalidCertificate(OTHER_ROOT));
        }
        let leaf = ParsedCertificate::try_from(leaf)?;
        let time = UnixTime::since_unix_epoch(Duration::from_secs(TLS_VERIFICATION_TIME));
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&leaf, &anchors, &[], time, algorithms)?;
        verify_server_name(&leaf, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, leaf, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, leaf, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// That the leaf's key has signed the handshake is checked after this.
fn check_key(leaf: &CertificateDer<'_>, pinned: DeviceKey) -> Result<ServerCertVerified, Error> {
    let spki = ParsedCertificate::try_from(leaf)?.subject_public_key_info();
    // A SEQUENCE of 42 bytes around what an anchor's key info has.
    let key = spki.strip_prefix(&[0x30, 0x2a]).and_then(ed25519_key);
    if key != Some(pinned) {
        return Err(Error::InvalidCertificate(OTHER_ROOT));
    }
    Ok(ServerCertVerified::assertion())
}

fn ed25519_key(spki: &[u8]) -> Option<DeviceKey> {
    spki.strip_prefix(&ED25519_SPKI)?.try_into().ok().map(DeviceKey)
}
