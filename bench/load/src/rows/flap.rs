//! Members that change their address all the time, beside others' traffic.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use lanrage_proto::frame::bind::Lease;
use lanrage_proto::frame::control::{Message, Sealed};
use lanrage_proto::ids::Destination;

use super::binds::{bind_all, sockets};
use super::{Setting, relay, start};
use crate::contestant::relay::{frame, member};
use crate::results::Figure;
use crate::round::{Outcome, Stage, WARM_UP};
use crate::sink::CLASSES;
use crate::workload::Workload;

const LEASES: u32 = 1000;
/// They take turns: 50 moves a second are a twentieth of the leases.
const MOVERS: u32 = 50;
const PERIOD: Duration = Duration::from_millis(20);

pub(super) fn measure(
    setting: &Setting<'_>,
    tell: &mut dyn FnMut(&str),
) -> anyhow::Result<Vec<Figure>> {
    let topology = setting.topology;
    let workload = Workload { spare: 4 * MOVERS, ..Workload::game(LEASES) };
    let running = start(setting, &workload)?;
    let relay = relay(&running)?;
    let mut movers = topology.enter(|| {
        // Ports of no class, whose answers pass the sink.
        let at = |place: usize| sockets(topology, LEASES, MOVERS, (CLASSES + place) as u8);
        let (here, there) = (at(0)?, at(1)?);
        let (_, leases) = bind_all(topology, relay, &here)?;
        let movers = here.into_iter().zip(there).zip(leases).zip((0..4).cycle());
        movers
            .map(|(((here, there), lease), number)| Mover::new(here, there, lease, number + 1))
            .collect::<anyhow::Result<Vec<_>>>()
    })??;
    let stage = Stage::set(topology, &running, &workload)?;
    let mut ratios = Vec::new();
    stage.while_sending(|| {
        for number in 0..setting.extent.rounds {
            // Just below what it carries: movers are to be answered.
            stage.send_at(0.8 * setting.capacity)?;
            thread::sleep(WARM_UP);
            let still = cost(&stage.measure(setting.extent.length)?);
            let stop = AtomicBool::new(false);
            let (moving, moves) = thread::scope(|scope| {
                let moves = scope.spawn(|| topology.enter(|| move_all(&mut movers, &stop))?);
                let outcome = stage.measure(setting.extent.length);
                stop.store(true, Ordering::Relaxed);
                let moves = moves.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                anyhow::Ok((cost(&outcome?), moves?))
            })?;
            tell(&format!(
                "flap {number}: {moving:.0} ns a packet beside {moves} moves, {still:.0} without"
            ));
            if number > 0 {
                ratios.push(moving / still);
            }
        }
        Ok(())
    })?;
    let what = "CPU a packet while 50 members move each second / while none does, 1,000 leases at \
                0.8 of the best reflector's rate";
    Ok(Figure::of("flap/still", what, &ratios, None).into_iter().collect())
}

/// Of the relay's core alone: movers use the other.
fn cost(outcome: &Outcome) -> f64 {
    outcome.used.busy * outcome.used.wall * 1e9 / outcome.delivered.max(1) as f64
}

/// A bound client with two addresses.
struct Mover {
    sockets: [UdpSocket; 2],
    lease: Lease,
    counter: u64,
}

impl Mover {
    /// Confirms the lease by a first frame.
    fn new(here: UdpSocket, there: UdpSocket, lease: Lease, number: u8) -> anyhow::Result<Self> {
        let probe = frame(lease.handle, lease.tag, number, Destination::One(member(number)?))?;
        here.send(&probe)?;
        here.recv(&mut [0; 64]).context("the first frame")?;
        Ok(Self { sockets: [here, there], lease, counter: 0 })
    }

    /// To the other address. False: something was lost on the way.
    fn step(&mut self) -> anyhow::Result<bool> {
        self.sockets.swap(0, 1);
        let Some(Message::RebindChallenge(cookie)) = self.ask(&Message::Rebind)? else {
            return Ok(false);
        };
        Ok(matches!(self.ask(&Message::RebindAnswer(cookie))?, Some(Message::Rebound(_))))
    }

    fn ask(&mut self, message: &Message) -> anyhow::Result<Option<Message>> {
        self.counter += 1;
        let Lease { key_to_relay, handle, .. } = &self.lease;
        self.sockets[0].send(&message.seal(key_to_relay, *handle, self.counter))?;
        let mut buffer = [0; 2048];
        let Ok(len) = self.sockets[0].recv(&mut buffer) else { return Ok(None) };
        let sealed = Sealed::decode(&buffer[..len]).context("an answer to REBIND")?;
        Ok(sealed.open(&self.lease.key_to_client).ok())
    }
}

/// One after the other, until told to stop; how many moved.
fn move_all(movers: &mut [Mover], stop: &AtomicBool) -> anyhow::Result<usize> {
    let mut due = Instant::now();
    let mut moves = 0;
    let count = movers.len();
    for at in (0..count).cycle() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        moves += usize::from(movers[at].step()?);
        due += PERIOD;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    if moves == 0 {
        bail!("no member could move");
    }
    Ok(moves)
}
