use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::endpoint::Endpoint;
use crate::error::{Error, Tried};

/// Linux sends a lost SYN again only after 1 s (`TCP_TIMEOUT_INIT`); another attempt is cheaper.
const HEDGE_DELAY: Duration = Duration::from_millis(150);
/// Attempts at most, over all addresses.
const ATTEMPTS_MAX: usize = 4;

/// Resolves and connects: every 150 ms, or at once when one fails, another attempt begins; the
/// first that connects wins and the others are dropped.
pub(crate) async fn dial(endpoint: &Endpoint) -> Result<TcpStream, Error> {
    let unreachable = |tried| Error::Unreachable { endpoint: endpoint.to_string(), tried };
    let addresses = resolve(endpoint)
        .await
        .map_err(|error| unreachable(Tried { name: Some(error), ..Tried::default() }))?;
    let stream =
        race(&addresses).await.map_err(|addresses| unreachable(Tried { name: None, addresses }))?;
    // Without it a small request waits for the acknowledgement of the one before.
    stream.set_nodelay(true).map_err(|error| endpoint.broken(error))?;
    Ok(stream)
}

async fn resolve(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((endpoint.dialled_host(), endpoint.port)).await?;
    let addresses = alternate_families(found.collect());
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "it has no address"));
    }
    Ok(addresses)
}

/// Takes one address of each family in turn, beginning with the family the resolver prefers.
fn alternate_families(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let preferred = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == preferred);
    let mut second = second.into_iter();
    let mut mixed = Vec::new();
    for address in first {
        mixed.push(address);
        mixed.extend(second.next());
    }
    mixed.extend(second);
    mixed
}

pub(crate) async fn race(
    addresses: &[SocketAddr],
) -> Result<TcpStream, Vec<(SocketAddr, io::Error)>> {
    let mut attempts = addresses.iter().copied().cycle().take(ATTEMPTS_MAX.max(addresses.len()));
    let mut running = FuturesUnordered::new();
    let mut failed: Vec<(SocketAddr, io::Error)> = Vec::new();
    let mut next_start = Instant::now();
    let mut exhausted = false;
    loop {
        tokio::select! {
            Some((address, result)) = running.next() => match result {
                Ok(stream) => return Ok(stream),
                Err(error) => {
                    failed.push((address, error));
                    next_start = Instant::now();
                }
            },
            () = sleep_until(next_start), if !exhausted => {
                let untried = |address: &SocketAddr| failed.iter().all(|(bad, _)| bad != address);
                match attempts.find(untried) {
                    Some(address) => running.push(async move {
                        (address, TcpStream::connect(address).await)
                    }),
                    None => exhausted = true,
                }
                next_start = Instant::now() + HEDGE_DELAY;
            }
            else => return Err(failed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let mixed = alternate_families(parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"]));
        assert_eq!(mixed, parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
    }

    #[tokio::test]
    async fn a_refused_address_is_tried_once_and_the_next_wins_at_once() {
        let closed = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap()
        };
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addresses = [closed, open.local_addr().unwrap()];
        let begun = Instant::now();
        let stream = race(&addresses).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), addresses[1]);
        assert!(begun.elapsed() < HEDGE_DELAY);

        let failed = race(&[closed]).await.unwrap_err();
        assert_eq!(failed.len(), 1);
        assert_eq!(failed[0].1.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_silent_address_costs_one_hedge_delay() {
        let open = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let full = full_listener();
        let begun = Instant::now();
        let stream = race(&[full.1, open.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), open.local_addr().unwrap());
        assert!((HEDGE_DELAY..HEDGE_DELAY * 3).contains(&begun.elapsed()));
    }

    /// A listener whose accept queue is full: the kernel drops further SYNs, as a lossy link does.
    fn full_listener() -> (Vec<std::net::TcpStream>, SocketAddr, socket2::Socket) {
        use socket2::{Domain, Socket, Type};
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut held = Vec::new();
        while let Ok(stream) =
            std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100))
        {
            held.push(stream);
        }
        (held, address, socket)
    }
}
