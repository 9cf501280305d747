use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use lanrage_control_client::Method;
use lanrage_proto::api::{
    CreateInvite, CreateParty, InviteInfo, Membership, OpenInvite, OpenedInvite, RedeemInvite, path,
};
use lanrage_proto::bytes::{RootHash, SecretKey, TunnelKey};
use lanrage_proto::party::{Invite, InviteKey, SealedSecret};
use lanrage_proto::{Epoch, PartySecret, SessionId};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng as _;
use x25519_dalek::{PublicKey, StaticSecret};

use crate::failure::{Failure, FailureKind};
use crate::nic::{Network, Nic, NicError, route_overlaps};
use crate::session::{Control, random_bytes};
use crate::state::{PartyRecord, Server, random_key};

/// A random /24 that meets a local route is drawn again.
const SUBNET_DRAWS: u32 = 32;

/// What entering a party needs beside the server.
#[derive(Clone, Debug)]
pub(super) struct Newcomer {
    pub(super) nic: String,
    /// Whether the NIC of the active party has the name.
    pub(super) has_nic: bool,
    pub(super) member_name: String,
    /// The keys of the memberships there are: joining one of these again keeps its key.
    pub(super) tunnels: BTreeMap<SessionId, SecretKey>,
}

/// Makes a party.
pub(super) async fn create(
    control: Control,
    newcomer: Newcomer,
    name: String,
    subnet: Option<Ipv4Addr>,
) -> Result<PartyRecord, Failure> {
    newcomer.check_nic().await?;
    let subnet = match subnet {
        Some(subnet) => usable(subnet, &newcomer.nic).await?,
        None => draw_subnet(&newcomer.nic).await?,
    };
    let tunnel = random_key();
    let body = CreateParty {
        name,
        member_name: newcomer.member_name,
        tunnel: public(&tunnel),
        subnet: Some(subnet),
        request: random_bytes(),
    };
    let (membership, map) =
        tokio::try_join!(control.call(Method::POST, path::PARTIES, &body), control.map())?;
    let membership: Membership = membership;
    let secret = PartySecret(random_bytes());
    let secrets = vec![(membership.party.epoch, secret)];
    record(&control, tunnel, secrets, membership, map)
}

impl Newcomer {
    /// Before control is asked for anything: what fails here leaves no membership behind.
    async fn check_nic(&self) -> Result<(), NicError> {
        if self.has_nic { Nic::check_rights(&self.nic) } else { Nic::check(&self.nic).await }
    }
}

/// Joins by an invite: unwraps it first and redeems it after, so that a wrong or spent one fails
/// before anybody hears of it.
pub(super) async fn join(
    control: Control,
    newcomer: Newcomer,
    invite: Invite,
) -> Result<PartyRecord, Failure> {
    newcomer.check_nic().await?;
    let hash = invite.key.hash();
    let question = OpenInvite { invite: hash };
    let (opened, map) = tokio::try_join!(
        control.call::<_, OpenedInvite>(Method::POST, path::INVITE_OPEN, &question),
        control.map()
    )?;
    let secret = invite.key.open(opened.session, &opened.sealed).map_err(|_| {
        let message = "the invite does not open what the server keeps for it: ask for a new one";
        Failure::new(FailureKind::InviteWrongKey, message)
    })?;
    usable(opened.subnet, &newcomer.nic).await?;
    let known = newcomer.tunnels.get(&opened.session).cloned();
    let tunnel = known.unwrap_or_else(random_key);
    let body =
        RedeemInvite { invite: hash, tunnel: public(&tunnel), member_name: newcomer.member_name };
    let membership = control.call(Method::POST, path::INVITE_REDEEM, &body).await?;
    let record = record(&control, tunnel, vec![secret], membership, map)?;
    Ok(PartyRecord { invite: Some(hash), ..record })
}

fn record(
    control: &Control,
    tunnel: SecretKey,
    secrets: Vec<(Epoch, PartySecret)>,
    membership: Membership,
    map: lanrage_proto::map::SignedMap,
) -> Result<PartyRecord, Failure> {
    map.verify(&control.endpoint().root)?;
    control.set_clock(membership.ticket.now);
    Ok(PartyRecord {
        server: Server::from(control.endpoint().clone()),
        tunnel,
        secrets,
        party: membership.party,
        ticket: Some(membership.ticket),
        map,
        invite: None,
        stamp: 0,
    })
}

/// Leaves the party's newest secret with control, under a new invite's key.
pub(super) async fn invite(
    control: Control,
    session: SessionId,
    (epoch, secret): (Epoch, PartySecret),
    lifetime_s: u64,
    uses: u16,
) -> Result<String, Failure> {
    let key = InviteKey(random_key().0);
    let mut rng = ChaCha20Rng::from_seed(random_bytes());
    let sealed: SealedSecret = key.seal(session, epoch, &secret, &mut rng);
    let body = CreateInvite { invite: key.hash(), sealed, epoch, lifetime_s, uses };
    let path = path::of_party(path::INVITES, session);
    let _info: InviteInfo = control.call(Method::POST, &path, &body).await?;
    let endpoint = control.endpoint();
    let root: RootHash = endpoint.root;
    let invite = Invite { host: endpoint.host.clone(), port: endpoint.port, key, root };
    Ok(invite.to_string())
}

fn public(private: &SecretKey) -> TunnelKey {
    TunnelKey(PublicKey::from(&StaticSecret::from(*private.0)).to_bytes())
}

async fn usable(subnet: Ipv4Addr, nic: &str) -> Result<Ipv4Addr, Failure> {
    let party = Network::of_subnet(subnet);
    let overlaps = route_overlaps(party, nic).await;
    let overlaps = overlaps.map_err(|error| {
        Failure::new(FailureKind::Other, format!("cannot ask the kernel for its routes: {error}"))
    })?;
    match overlaps.conflict {
        None => Ok(subnet),
        Some(overlap) => Err(Failure::overlap(party, &overlap)),
    }
}

async fn draw_subnet(nic: &str) -> Result<Ipv4Addr, Failure> {
    let mut refusal = None;
    for _ in 0..SUBNET_DRAWS {
        let [third] = random_bytes();
        match usable(Ipv4Addr::new(10, 66, third, 0), nic).await {
            Ok(subnet) => return Ok(subnet),
            Err(failure) => refusal = Some(failure),
        }
    }
    Err(refusal.expect("there is at least one draw"))
}

const _: () = assert!(SUBNET_DRAWS > 0);
