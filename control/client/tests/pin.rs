//! Which servers the client talks to: only one whose leaf the pinned root key signed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use lanrage_control_client::{ControlClient, Endpoint, Error};
use lanrage_proto::api::{CHANNEL_BINDING_LABEL, TLS_NAME};
use lanrage_proto::map::root_hash;
use lanrage_proto::{DeviceKey, RootHash};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, PKCS_ED25519,
    date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const DEADLINE: Duration = Duration::from_secs(5);

struct Root {
    issuer: CertifiedIssuer<'static, KeyPair>,
    hash: RootHash,
}

fn root() -> Root {
    let key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let hash = root_hash(&DeviceKey(key.public_key_raw().try_into().unwrap()));
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Root { issuer: CertifiedIssuer::self_signed(params, key).unwrap(), hash }
}

fn leaf(
    root: &Root,
    name: &str,
    (year, month, day): (i32, u8, u8),
) -> (CertificateDer<'static>, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(2025, 1, 1);
    params.not_after = date_time_ymd(year, month, day);
    (params.signed_by(&key, &root.issuer).unwrap().der().clone(), key)
}

/// Serves handshakes and sends back its own channel binding for each; gives the endpoint to dial.
async fn serve(
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    pinned: RootHash,
) -> (Endpoint, tokio::sync::mpsc::Receiver<[u8; 32]>) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, PrivateKeyDer::try_from(key.serialize_der()).unwrap())
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, bindings) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let Ok(tls) = acceptor.accept(tcp).await else { continue };
            let label = CHANNEL_BINDING_LABEL;
            let binding = tls.get_ref().1.export_keying_material([0; 32], label, None).unwrap();
            sender.send(binding).await.unwrap();
            tokio::spawn(async move {
                let _held = tls;
                tokio::time::sleep(DEADLINE).await;
            });
        }
    });
    (Endpoint { host: "127.0.0.1".to_owned(), port, root: pinned }, bindings)
}

#[tokio::test]
async fn the_pinned_server_is_taken_and_both_ends_have_one_channel_binding() {
    let root = root();
    let (leaf, key) = leaf(&root, TLS_NAME, (2030, 1, 1));
    let chain = vec![leaf, root.issuer.der().clone()];
    let (endpoint, mut bindings) = serve(chain, key, root.hash).await;
    let client = ControlClient::new(endpoint);
    let first = client.connect(DEADLINE).await.unwrap();
    let second = client.connect(DEADLINE).await.unwrap();
    assert_eq!(bindings.recv().await, Some(first.channel_binding()));
    assert_eq!(bindings.recv().await, Some(second.channel_binding()));
    assert_ne!(first.channel_binding(), second.channel_binding());
}

/// The certificate is long over (or this machine's clock far ahead): the pin alone decides.
#[tokio::test]
async fn the_local_clock_does_not_matter() {
    let root = root();
    let (leaf, key) = leaf(&root, TLS_NAME, (2026, 1, 2));
    let (endpoint, _bindings) = serve(vec![leaf, root.issuer.der().clone()], key, root.hash).await;
    ControlClient::new(endpoint).connect(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn another_root_key_is_told_apart_from_other_failures() {
    let (root, other) = (root(), root());
    let (leaf_of_other, key) = leaf(&other, TLS_NAME, (2030, 1, 1));
    let chain = vec![leaf_of_other, other.issuer.der().clone()];
    let (endpoint, _bindings) = serve(chain, key, root.hash).await;
    let error = ControlClient::new(endpoint).connect(DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::OtherRoot { .. }), "{error:?}");

    let (lone_leaf, key) = leaf(&root, TLS_NAME, (2030, 1, 1));
    let (endpoint, _bindings) = serve(vec![lone_leaf], key, root.hash).await;
    let error = ControlClient::new(endpoint).connect(DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::OtherRoot { .. }), "{error:?}");
}

/// The root certificate is public: showing it proves nothing.
#[tokio::test]
async fn a_leaf_that_the_root_did_not_sign_is_refused() {
    let (root, other) = (root(), root());
    let (forged, key) = leaf(&other, TLS_NAME, (2030, 1, 1));
    let chain = vec![forged, root.issuer.der().clone()];
    let (endpoint, _bindings) = serve(chain, key, root.hash).await;
    let error = ControlClient::new(endpoint).connect(DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_leaf_for_another_name_is_refused() {
    let root = root();
    let (leaf, key) = leaf(&root, "other.lanrage", (2030, 1, 1));
    let chain = vec![leaf, root.issuer.der().clone()];
    let (endpoint, _bindings) = serve(chain, key, root.hash).await;
    let error = ControlClient::new(endpoint).connect(DEADLINE).await.unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn nobody_there_and_a_mute_server_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let endpoint = |host: &str, port| Endpoint { host: host.to_owned(), port, root: root().hash };
    let begun = Instant::now();
    let mute = ControlClient::new(endpoint("127.0.0.1", port));
    let error = mute.connect(Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    let text = format!("control at 127.0.0.1:{port} did not answer in time");
    assert!(error.to_string().contains(&text), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));

    drop(listener);
    let error = mute.connect(DEADLINE).await.unwrap_err();
    let Error::Unreachable { tried, .. } = &error else { panic!("{error:?}") };
    assert_eq!(tried.addresses.len(), 1);

    let nowhere = ControlClient::new(endpoint("no-such-host.invalid", 443));
    let error = nowhere.connect(DEADLINE).await.unwrap_err();
    assert!(
        matches!(&error, Error::Unreachable { tried, .. } if tried.name.is_some()),
        "{error:?}"
    );
}
