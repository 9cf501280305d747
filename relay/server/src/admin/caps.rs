use lanrage_proto::Member;
use lanrage_relay_core::{Cap, Caps};

use super::api::CapRow;
use super::{Admin, Refused};

impl Admin {
    /// The caps that stand.
    pub(super) async fn caps(&self) -> Result<Vec<CapRow>, Refused> {
        let caps = self.ask(|binder, _| binder.caps().collect::<Vec<_>>()).await?;
        Ok(caps.into_iter().map(row).collect())
    }

    /// Sets a cap, or lifts it where no figure is given.
    pub(super) async fn cap(&self, asked: CapRow) -> Result<(), Refused> {
        let CapRow { session, member, packets, bytes, copies } = asked;
        let caps = Caps { packets, bytes, copies };
        let caps = (caps != Caps::default()).then_some(caps);
        let member = member.map(|number| Member::new(number).ok_or("a member is 1 to 250"));
        let member = member.transpose().map_err(Refused::conflict)?;
        let set = self.ask(move |binder, _| {
            let is_same = |cap: Cap| (cap.session, cap.member) == (session, member);
            if caps.is_none() && !binder.caps().any(is_same) {
                return Err("there is no such cap".to_owned());
            }
            let set = match member {
                Some(member) => binder.set_lease_cap(session, member, caps),
                None => binder.set_session_cap(session, caps),
            };
            set.map_err(|error| error.to_string())
        });
        set.await?.map_err(Refused::conflict)?;
        tracing::info!(%session, member = member.map(Member::number), ?caps, "cap changed");
        Ok(())
    }
}

fn row(Cap { session, member, caps: Caps { packets, bytes, copies } }: Cap) -> CapRow {
    CapRow { session, member: member.map(Member::number), packets, bytes, copies }
}
