use std::time::Duration;

use anyhow::Context;
use lanrage_lab::{Families, Lab, LinkSpec, Nat, NatKind, NatSpec};

use crate::{Control, Player, Relay, RelayPlan};

/// A player's place in the network.
#[derive(Clone, Debug)]
pub struct PlayerPlan {
    /// The kind of NAT it sits behind.
    pub nat: NatKind,
    /// Between the player's NAT and the internet.
    pub link: LinkSpec,
    /// What the player has.
    pub families: Families,
}

impl PlayerPlan {
    /// Behind `nat`, on a perfect line, with IPv4 alone.
    pub fn behind(nat: NatKind) -> Self {
        Self::on(nat, LinkSpec::direct())
    }

    /// Behind `nat`, on a line of its own, with IPv4 alone.
    pub fn on(nat: NatKind, link: LinkSpec) -> Self {
        Self { nat, link, families: Families::Ipv4 }
    }

    /// With other addresses; IPv6 is routed past the NAT.
    pub fn with(self, families: Families) -> Self {
        Self { families, ..self }
    }
}

/// What stands in a deployment.
#[derive(Clone, Debug)]
pub struct Plan {
    /// One each.
    pub relays: Vec<RelayPlan>,
    /// One each.
    pub players: Vec<PlayerPlan>,
    /// How long control's tickets hold.
    pub ticket_lifetime: Duration,
}

impl Default for Plan {
    /// Two relays, three players behind three kinds of NAT.
    fn default() -> Self {
        let kinds = [NatKind::FullCone, NatKind::PortRestrictedCone, NatKind::Symmetric];
        Self {
            relays: vec![RelayPlan::default(); 2],
            players: kinds.map(PlayerPlan::behind).to_vec(),
            ticket_lifetime: Duration::from_secs(3600),
        }
    }
}

impl Plan {
    /// Players behind NATs of all kinds in turn, on perfect lines.
    pub fn with_players(count: usize) -> Self {
        let kinds = [
            NatKind::FullCone,
            NatKind::PortRestrictedCone,
            NatKind::Symmetric,
            NatKind::RestrictedCone,
        ];
        let players = kinds.iter().cycle().take(count).map(|kind| PlayerPlan::behind(*kind));
        Self { players: players.collect(), ..Self::default() }
    }

    /// Players behind NATs of one kind, on perfect lines.
    pub fn behind(nat: NatKind, count: usize) -> Self {
        Self { players: vec![PlayerPlan::behind(nat); count], ..Self::default() }
    }
}

/// Control, relays and players, each the real program on a real host.
#[derive(Debug)]
pub struct Deployment {
    /// Dropped first, so that a player releases what it holds.
    pub players: Vec<Player>,
    /// In the order of their names, which need not be the party's order.
    pub relays: Vec<Relay>,
    /// The one control service.
    pub control: Control,
    /// The players' gateways, in the players' order.
    pub nats: Vec<Nat>,
    /// Dropped last.
    pub lab: Lab,
}

impl Deployment {
    /// Builds the network and starts every program; the players are in no party yet.
    ///
    /// # Errors
    /// A host cannot be made or a program does not start.
    pub fn start(plan: &Plan) -> anyhow::Result<Self> {
        let lab = Lab::new().context("build a lab")?;
        Self::start_in(lab, plan)
    }

    /// [`Deployment::start`] in a lab that is already there.
    ///
    /// # Errors
    /// A host cannot be made or a program does not start.
    pub fn start_in(lab: Lab, plan: &Plan) -> anyhow::Result<Self> {
        let dir = lab.dir().to_owned();
        let control =
            Control::start(lab.host("control", LinkSpec::direct())?, &dir, plan.ticket_lifetime)?;
        let mut relays = Vec::new();
        for (index, relay) in plan.relays.iter().enumerate() {
            let host = lab.host(&format!("relay{}", index + 1), LinkSpec::direct())?;
            relays.push(Relay::start(host, &dir, &control, relay.clone())?);
        }
        let mut nats = Vec::new();
        let mut players = Vec::new();
        for (index, player) in plan.players.iter().enumerate() {
            let number = index + 1;
            let spec = NatSpec {
                families: player.families,
                ..NatSpec::new(player.nat, player.link.clone())
            };
            let nat = lab.nat_with(&format!("nat{number}"), spec)?;
            let host = nat.host(&format!("player{number}"), LinkSpec::direct())?;
            players.push(Player::start(host, &dir)?);
            nats.push(nat);
        }
        Ok(Self { players, relays, control, nats, lab })
    }

    /// Makes a party of all players: the first creates it, the others join by one invite each.
    ///
    /// # Errors
    /// A player is refused.
    pub fn form_party(&mut self, name: &str) -> anyhow::Result<()> {
        let server = self.control.server().to_owned();
        let (owner, others) = self.players.split_first_mut().context("a party needs a player")?;
        owner.create_party(name, &server)?;
        for other in others {
            let invite = owner.invite(1)?;
            other.join(&invite)?;
        }
        Ok(())
    }

    /// The relay that carries `player`'s traffic.
    ///
    /// # Errors
    /// The player has no path or its daemon does not answer.
    pub fn relay_in_use(&self, player: usize) -> anyhow::Result<usize> {
        let name = self.players[player].relay_in_use()?;
        let index = self.relays.iter().position(|relay| relay.name() == name);
        index.with_context(|| format!("no relay is called {name:?}"))
    }
}
