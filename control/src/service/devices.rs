use lanrage_proto::DeviceKey;
use lanrage_proto::api::{DEVICE_PROOF_CONTEXT, ErrorCode, RegisterDevice, Registered};
use lanrage_proto::bytes::Token;
use sha2::{Digest as _, Sha256};

use super::Service;
use crate::domain::{Refusal, refuse};
use crate::random::random_bytes;
use crate::store::{StoreError, devices};

impl Service {
    /// Gives a token to the device that signed this connection's channel binding.
    pub(crate) async fn register(
        &self,
        request: &RegisterDevice,
        channel_binding: &[u8; 32],
    ) -> Result<Registered, Refusal> {
        if !request.device.verifies(DEVICE_PROOF_CONTEXT, channel_binding, &request.proof) {
            return Err(refuse(
                ErrorCode::BadProof,
                "the proof is not the device's signature over this connection: sign anew",
            ));
        }
        let token = Token(random_bytes());
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        devices::register(write.db(), &request.device, &token_hash(&token), now).await?;
        write.commit().await?;
        Ok(Registered { token, now })
    }

    /// The device whose token this is.
    pub(crate) async fn authenticate(&self, token: &Token) -> Result<DeviceKey, Refusal> {
        let mut view = self.store.read().await?;
        let device = devices::of_token(&mut view, &token_hash(token)).await?;
        device.ok_or_else(unauthorized)
    }

    /// Notes that a device's stream began or ended.
    pub(crate) async fn note_seen(&self, devices: &[DeviceKey]) -> Result<(), StoreError> {
        let now = self.clock.now();
        let mut write = self.store.write().await?;
        devices::seen(write.db(), devices, now).await?;
        write.commit().await?;
        Ok(())
    }
}

/// The refusal for a token that is missing or unknown.
pub(crate) fn unauthorized() -> Refusal {
    refuse(ErrorCode::Unauthorized, "the token is missing or not known: register again")
}

/// What is kept of a token. It has 256 random bits, so a plain hash is enough.
pub(crate) fn token_hash(token: &Token) -> [u8; 32] {
    Sha256::digest(token.0).into()
}
