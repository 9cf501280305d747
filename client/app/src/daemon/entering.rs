//! Making and joining a party: what waits on control, beside the loop.

use lanrage_control_client::Method;
use lanrage_proto::api::{
    CreateInvite, CreateParty, InviteInfo, Membership, OpenInvite, OpenedInvite, RedeemInvite, path,
};
use lanrage_proto::map::SignedMap;
use lanrage_proto::party::{Invite, InviteKey, valid_name};
use lanrage_proto::{Epoch, PartySecret, SessionId, TunnelKey};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use std::net::Ipv4Addr;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::active::check_subnet;
use crate::failure::{Failure, FailureKind};
use crate::nic::check_rights;
use crate::session::{Control, random_bytes};
use crate::state::{PartyRecord, SecretBytes, Server};

/// The first invite of a party: for one device, for a day.
const FIRST_INVITE_LIFETIME_S: u64 = 24 * 3600;

/// A party just entered.
#[derive(Debug)]
pub(super) struct Entered {
    pub(super) record: PartyRecord,
    pub(super) invite: Option<String>,
}

/// What both ways of entering need.
#[derive(Debug)]
pub(super) struct Entering {
    pub(super) control: Control,
    pub(super) member_name: String,
    /// Keys of the memberships there are: who joins again keeps its key.
    pub(super) keys: Vec<(SessionId, SecretBytes)>,
    pub(super) nic: String,
}

impl Entering {
    /// Opens the invite, looks for what would stand in the way, and only then spends a use of it.
    pub(super) async fn join(self, invite: Invite) -> Result<Box<Entered>, Failure> {
        check_rights()?;
        let hash = invite.key.hash();
        let open = OpenInvite { invite: hash };
        let opened: OpenedInvite =
            self.control.call(Method::POST, path::INVITE_OPEN, &open).await?;
        let (epoch, secret) =
            invite.key.open(opened.session, &opened.sealed).map_err(|_| {
                let message = "the invite does not open the party: ask for another";
                Failure::new(FailureKind::InviteWrongKey, message)
            })?;
        check_subnet(opened.subnet, &self.nic).await?;
        let tunnel = self.keys.iter().find(|(session, _)| *session == opened.session);
        let tunnel = tunnel.map_or_else(SecretBytes::random, |(_, key)| key.clone());
        let request = RedeemInvite {
            invite: hash,
            tunnel: public_key(&tunnel),
            member_name: self.member_name.clone(),
        };
        let redeem = self.control.call(Method::POST, path::INVITE_REDEEM, &request);
        let (membership, map) = tokio::try_join!(redeem, self.control.map())?;
        Ok(self.entered(membership, tunnel, (epoch, secret), map, None))
    }

    /// Makes a party, and a first invite to it.
    pub(super) async fn create(
        self,
        name: String,
        subnet: Option<Ipv4Addr>,
    ) -> Result<Box<Entered>, Failure> {
        if !valid_name(&name) {
            let rule = "names have 1 to 32 of a-z, 0-9 and inner hyphens";
            let message = format!("{name:?} cannot be a party's name: {rule}");
            return Err(Failure::new(FailureKind::Usage, message));
        }
        check_rights()?;
        if let Some(subnet) = subnet {
            check_subnet(subnet, &self.nic).await?;
        }
        let tunnel = SecretBytes::random();
        let request = CreateParty {
            name,
            member_name: self.member_name.clone(),
            tunnel: public_key(&tunnel),
            subnet,
            request: random_bytes(),
        };
        let membership: Membership =
            self.control.call(Method::POST, path::PARTIES, &request).await?;
        let secret = PartySecret(random_bytes());
        let epoch = membership.party.epoch;
        let session = membership.party.session;
        let invite = make_invite(&self.control, session, epoch, &secret, FIRST_INVITE_LIFETIME_S, 1);
        let (invite, map) = tokio::try_join!(invite, self.control.map())?;
        Ok(self.entered(membership, tunnel, (epoch, secret), map, Some(invite)))
    }

    fn entered(
        self,
        membership: Membership,
        tunnel: SecretBytes,
        secret: (Epoch, PartySecret),
        map: SignedMap,
        invite: Option<String>,
    ) -> Box<Entered> {
        let endpoint = self.control.endpoint();
        let server =
            Server { host: endpoint.host.clone(), port: endpoint.port, root: endpoint.root };
        let record = PartyRecord {
            server,
            tunnel,
            secrets: vec![secret],
            party: membership.party,
            ticket: Some(membership.ticket),
            map: Some(map),
        };
        Box::new(Entered { record, invite })
    }
}

/// Leaves the party's secret with control under a new key; gives the invite.
pub(super) async fn make_invite(
    control: &Control,
    session: SessionId,
    epoch: Epoch,
    secret: &PartySecret,
    lifetime_s: u64,
    uses: u16,
) -> Result<String, lanrage_control_client::Error> {
    let mut rng = ChaCha20Rng::from_seed(random_bytes());
    let key = InviteKey(Zeroizing::new(random_bytes()));
    let request = CreateInvite {
        invite: key.hash(),
        sealed: key.seal(session, epoch, secret, &mut rng),
        epoch,
        lifetime_s,
        uses,
    };
    let path = path::of_party(path::INVITES, session);
    let _info: InviteInfo = control.call(Method::POST, &path, &request).await?;
    let endpoint = control.endpoint();
    let invite =
        Invite { host: endpoint.host.clone(), port: endpoint.port, key, root: endpoint.root };
    Ok(invite.to_string())
}

fn public_key(private: &SecretBytes) -> TunnelKey {
    TunnelKey(PublicKey::from(&StaticSecret::from(*private.0)).to_bytes())
}
