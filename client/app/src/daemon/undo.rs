use lanrage_control_client::Method;
use lanrage_proto::SessionId;
use lanrage_proto::api::path;

use super::Daemon;
use super::calls::Empty;
use crate::failure::Failure;
use crate::local::server::Call;
use crate::session::Control;

/// A party that was made for nothing.
impl Daemon {
    /// Leaves a party that was just made and cannot be played in, which ends it; brings the one that
    /// was active `before` up again; answers with the failure.
    pub(super) fn unmake(
        &mut self,
        session: SessionId,
        control: Control,
        before: Option<SessionId>,
        call: Option<Call>,
        failure: Failure,
    ) {
        let name = self.name_of(session);
        self.forget(session);
        self.problem = None;
        if let Some(before) = before {
            self.activate(before, None, None);
        }
        let leaving = async move {
            let path = path::of_party(path::LEAVE, session);
            control.call::<_, Empty>(Method::POST, &path, &Empty {}).await
        };
        self.spawn(leaving, move |_, left| {
            let failure = match left {
                Ok(Empty {}) => failure,
                Err(error) => {
                    let name = name.unwrap_or_else(|| session.to_string());
                    let message =
                        format!("{failure} (and the server keeps the party {name}: {error})");
                    Failure::new(failure.kind, message)
                }
            };
            if let Some(call) = call {
                call.answer(Err(failure));
            }
        });
    }
}
