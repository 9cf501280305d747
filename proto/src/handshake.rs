use rand_core::RngCore;
use snow::params::NoiseParams;
use snow::resolvers::{BoxedCryptoResolver, CryptoResolver, DefaultResolver};
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use crate::bytes::TunnelKey;
use crate::frame::bind::{Bind, BindResult};
use crate::frame::{Cookie, Nonce, VERSION};
use crate::ids::RelayId;

const PATTERN: &str = "Noise_IK_25519_ChaChaPoly_BLAKE2s";
/// What Noise adds to the payload of message 2: an ephemeral key and a tag.
pub const OVERHEAD: usize = 32 + 16;

/// A Noise message is not authentic; says nothing more, for there is nothing more to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the handshake message is not authentic")]
pub struct NotAuthentic;

/// What both ends mix in: a BIND holds only for this cookie at this relay.
fn prologue(nonce: Nonce, cookie: Cookie, relay: RelayId) -> [u8; 39] {
    let mut prologue = [0; 39];
    prologue[..16].copy_from_slice(&nonce.0);
    prologue[16..36].copy_from_slice(&cookie.0);
    prologue[36..38].copy_from_slice(&relay.0.to_be_bytes());
    prologue[38] = VERSION;
    prologue
}

/// The client's end, between BIND and BOUND.
pub struct Initiator(HandshakeState);

impl std::fmt::Debug for Initiator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Initiator")
    }
}

impl Initiator {
    /// Writes Noise message 1 with `payload` to the relay that owns `relay_key`.
    ///
    /// # Errors
    /// `relay_key` is no usable X25519 key.
    pub fn start(
        private: &[u8; 32],
        relay_key: &TunnelKey,
        (nonce, cookie, relay): (Nonce, Cookie, RelayId),
        payload: &[u8],
        ephemeral_seed: [u8; 32],
    ) -> Result<(Self, [u8; Bind::NOISE_LEN]), NotAuthentic> {
        let mut state = builder(ephemeral_seed)
            .local_private_key(private)
            .and_then(|builder| builder.remote_public_key(&relay_key.0))
            .and_then(|builder| {
                builder.prologue(&prologue(nonce, cookie, relay))?.build_initiator()
            })
            .map_err(|_| NotAuthentic)?;
        let mut message = [0; Bind::NOISE_LEN];
        match state.write_message(payload, &mut message) {
            Ok(length) if length == message.len() => Ok((Self(state), message)),
            _ => Err(NotAuthentic),
        }
    }

    /// Reads Noise message 2.
    ///
    /// # Errors
    /// Not from the relay; the handshake can still be finished by another BOUND.
    pub fn finish(&mut self, message: &[u8]) -> Result<Zeroizing<Vec<u8>>, NotAuthentic> {
        let mut payload = Zeroizing::new(vec![0; BindResult::LEN_MAX + OVERHEAD]);
        let length = self.0.read_message(message, &mut payload).map_err(|_| NotAuthentic)?;
        payload.truncate(length);
        Ok(payload)
    }
}

/// The relay's end, between BIND and BOUND.
pub struct Responder {
    state: HandshakeState,
    client: TunnelKey,
}

impl std::fmt::Debug for Responder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Responder").field("client", &self.client).finish_non_exhaustive()
    }
}

impl Responder {
    /// Reads Noise message 1 and gives its payload.
    ///
    /// # Errors
    /// Not for this relay, cookie and nonce, or not whole.
    pub fn accept(
        private: &[u8; 32],
        bind: &Bind<'_>,
        relay: RelayId,
        ephemeral_seed: [u8; 32],
    ) -> Result<(Self, Vec<u8>), NotAuthentic> {
        let mut state = builder(ephemeral_seed)
            .local_private_key(private)
            .and_then(|builder| {
                builder.prologue(&prologue(bind.nonce, bind.cookie, relay))?.build_responder()
            })
            .map_err(|_| NotAuthentic)?;
        let mut payload = vec![0; Bind::NOISE_LEN];
        let length = state.read_message(bind.noise, &mut payload).map_err(|_| NotAuthentic)?;
        payload.truncate(length);
        let client = state.get_remote_static().and_then(|key| key.try_into().ok());
        let client = TunnelKey(client.ok_or(NotAuthentic)?);
        Ok((Self { state, client }, payload))
    }

    /// The key the client has proven to hold.
    pub const fn client(&self) -> TunnelKey {
        self.client
    }

    /// Writes Noise message 2.
    pub fn answer(mut self, result: &BindResult) -> Vec<u8> {
        let payload = result.encode();
        let mut message = vec![0; OVERHEAD + payload.len()];
        let length = self
            .state
            .write_message(&payload, &mut message)
            .expect("the state is a responder's after message 1 and the buffer fits");
        message.truncate(length);
        message
    }
}

fn builder<'a>(ephemeral_seed: [u8; 32]) -> Builder<'a> {
    let params: NoiseParams = PATTERN.parse().expect("the pattern is a constant");
    let resolver: BoxedCryptoResolver = Box::new(Seeded(ephemeral_seed));
    Builder::with_resolver(params, resolver)
}

/// Snow's own primitives with the caller's randomness: the ephemeral key is an argument.
struct Seeded([u8; 32]);

impl CryptoResolver for Seeded {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(Once(Some(Zeroizing::new(self.0)))))
    }

    fn resolve_dh(&self, choice: &snow::params::DHChoice) -> Option<Box<dyn Dh>> {
        DefaultResolver.resolve_dh(choice)
    }

    fn resolve_hash(&self, choice: &snow::params::HashChoice) -> Option<Box<dyn Hash>> {
        DefaultResolver.resolve_hash(choice)
    }

    fn resolve_cipher(&self, choice: &snow::params::CipherChoice) -> Option<Box<dyn Cipher>> {
        DefaultResolver.resolve_cipher(choice)
    }
}

/// Gives its 32 bytes once: IK draws exactly one ephemeral key a side.
struct Once(Option<Zeroizing<[u8; 32]>>);

impl Random for Once {
    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), snow::Error> {
        let seed = self.0.take().ok_or(snow::Error::Rng)?;
        if target.len() != seed.len() {
            return Err(snow::Error::Rng);
        }
        target.copy_from_slice(&*seed);
        Ok(())
    }
}

/// 32 fresh bytes for [`Initiator::start`] and [`Responder::accept`].
pub fn ephemeral_seed(rng: &mut impl RngCore) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}
