use tokio::sync::oneshot;

use super::api::Upgraded;
use super::{Admin, Refused};

impl Admin {
    /// Hands over to a new process of the installed program; answers when that one serves.
    pub(super) async fn upgrade(&self) -> Result<Upgraded, Refused> {
        let upgrades = &self.serving()?.upgrades;
        let (answer, answered) = oneshot::channel();
        let stopping = || Refused::conflict("the relay is stopping");
        upgrades.send(answer).await.map_err(|_| stopping())?;
        let pid = answered.await.map_err(|_| stopping())?;
        pid.map(|pid| Upgraded { pid }).map_err(Refused::conflict)
    }
}
