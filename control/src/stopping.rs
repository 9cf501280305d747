use tokio::sync::watch;

/// Tells every task when the service stops.
#[derive(Clone, Debug)]
pub(crate) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    pub(crate) fn of(sender: &watch::Sender<bool>) -> Self {
        Self(sender.subscribe())
    }

    /// Returns once the service stops. Cancel safe.
    pub(crate) async fn begun(&mut self) {
        // An error means that the sender is gone: stopped as well.
        let _stopping = self.0.wait_for(|stopping| *stopping).await;
    }
}
