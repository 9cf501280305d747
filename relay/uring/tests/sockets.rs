//! Binding: groups that share a port among shards, and with nobody else.

mod rig;

use std::collections::HashSet;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use lanrage_relay_uring::{BackendKind, BindError, Options, Received, SocketOptions, Tx, bind};
use rig::{Each, Rig, peer, receive};

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

#[test]
fn shards_share_the_port_and_all_of_them_receive() {
    let shards =
        bind(&[loopback(), "[::1]:0".parse().unwrap()], 4, &SocketOptions::default()).unwrap();
    let locals: HashSet<Vec<_>> = shards.iter().map(|shard| shard.locals().collect()).collect();
    assert_eq!(locals.len(), 1, "the same ids, addresses and ports in each shard: {locals:?}");
    let to = shards[0].locals().next().unwrap().1;

    let mut rigs: Vec<_> = shards
        .into_iter()
        .map(|shard| Rig::over(BackendKind::Mmsg, shard, &Options::default()))
        .collect();
    let peers: Vec<_> = (0..200).map(|_| peer()).collect();
    for peer in &peers {
        peer.send_to(b"whose?", to).unwrap();
    }
    let mut ignore = Each(|_: Received<'_>, _: &mut Tx<'_>| {});
    for rig in &mut rigs {
        (0..8).for_each(|_| rig.turn(&mut ignore));
    }
    let received: Vec<_> = rigs.iter().map(|rig| rig.counters.rx_segments.get()).collect();
    assert_eq!(received.iter().sum::<u64>(), 200);
    assert!(received.iter().all(|count| *count > 10), "{received:?}");
}

#[test]
fn another_relay_of_the_same_user_is_refused() {
    let first = bind(&[loopback()], 2, &SocketOptions::default()).unwrap();
    let local = first[0].locals().next().unwrap().1;
    let error = bind(&[local], 2, &SocketOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::AddressInUse(address) if address == local), "{error}");
    assert!(error.to_string().contains(&local.to_string()));
    drop(first);
    bind(&[local], 2, &SocketOptions::default()).unwrap();
}

#[test]
fn a_foreign_owner_is_refused_with_or_without_reuse_port() {
    let foreign = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = foreign.local_addr().unwrap();
    let refused = |local| {
        matches!(bind(&[local], 1, &SocketOptions::default()), Err(BindError::AddressInUse(_)))
    };
    assert!(refused(local));
    socket2::SockRef::from(&foreign).set_reuse_port(true).unwrap();
    assert!(refused(local));
}

#[test]
fn an_address_about_to_be_free_is_waited_for() {
    let former = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local = former.local_addr().unwrap();
    let leaving = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        drop(former);
    });
    bind(&[local], 2, &SocketOptions::default()).unwrap();
    leaving.join().unwrap();
}

#[test]
fn errors_name_the_address_and_what_to_do() {
    let options = SocketOptions::default();
    let elsewhere: SocketAddr = "192.0.2.1:5000".parse().unwrap();
    let error = bind(&[elsewhere], 1, &options).unwrap_err();
    assert!(matches!(error, BindError::AddressNotAvailable(address) if address == elsewhere));
    assert!(error.to_string().contains("192.0.2.1:5000"));
    assert!(matches!(bind(&[], 1, &options), Err(BindError::AddressCount(0))));
    assert!(matches!(bind(&[loopback(); 65], 1, &options), Err(BindError::AddressCount(65))));
    assert!(matches!(bind(&[loopback()], 0, &options), Err(BindError::NoShards)));
}

/// Tried with several ports, since others may hold the same one over IPv4.
#[test]
fn an_ipv6_wildcard_leaves_ipv4_alone() {
    let both = (0..20).any(|_| {
        let any: SocketAddr = "[::]:0".parse().unwrap();
        let v6 = bind(&[any], 1, &SocketOptions::default()).unwrap();
        let port = v6[0].locals().next().unwrap().1.port();
        bind(&[SocketAddr::from(([0, 0, 0, 0], port))], 1, &SocketOptions::default()).is_ok()
    });
    assert!(both);
}

#[test]
fn buffers_are_as_large_as_asked_or_permitted() {
    let shards = bind(&[loopback()], 1, &SocketOptions::default()).unwrap();
    let id = shards[0].locals().next().unwrap().0;
    let (receive, send) = shards[0].buffer_sizes(id).unwrap();
    let limit = |name: &str| -> usize {
        std::fs::read_to_string(format!("/proc/sys/net/core/{name}"))
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    };
    assert!(receive == 8 << 20 || receive == limit("rmem_max"), "{receive}");
    assert!(send == 4 << 20 || send == limit("wmem_max"), "{send}");
    assert_eq!(shards[0].offloads(id), (true, true), "Linux has both since 5.0");
}

#[test]
fn a_sender_on_another_thread_uses_the_same_local_address() {
    let shards =
        bind(&[loopback(), "[::1]:0".parse().unwrap()], 1, &SocketOptions::default()).unwrap();
    let sender = shards[0].sender().unwrap();
    for ((id, local), to) in shards[0].locals().zip([peer(), rig::peer_at("[::1]:0", 10)]) {
        std::thread::scope(|scope| {
            scope.spawn(|| sender.send_to(id, to.local_addr().unwrap(), b"reply").unwrap());
        });
        to.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        assert_eq!(receive(&to), (b"reply".to_vec(), local));
    }
    let (id, _) = shards[0].locals().next().unwrap();
    assert!(sender.send_to(id, "127.0.0.1:0".parse().unwrap(), b"nowhere").is_err());
}
