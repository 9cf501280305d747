use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use lanrage_proto::DeviceKey;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
pub use tokio_rustls::client::TlsStream;

use crate::dial::race;
use crate::pin::key_config;

/// TLS 1.3 to whoever has the private half of `key`, at the first of the addresses that answers.
///
/// # Errors
/// None answers in time, what answers has another key, or it does not speak the protocol `alpn`.
pub async fn connect_to_key(
    addresses: &[SocketAddr],
    key: DeviceKey,
    alpn: &[u8],
    deadline: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    let connect = async {
        let stream = race(addresses).await.map_err(|tried| {
            let last = tried.into_iter().next_back().map(|(_, error)| error);
            last.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "it has no address"))
        })?;
        stream.set_nodelay(true)?;
        // An address as the name: no SNI is sent, and the verifier looks at the key alone.
        let name = ServerName::from(stream.peer_addr()?.ip());
        let tls = tokio_rustls::TlsConnector::from(key_config(key, alpn));
        let stream = tls.connect(name, stream).await?;
        match stream.get_ref().1.alpn_protocol() == Some(alpn) {
            true => Ok(stream),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "it is no relay")),
        }
    };
    timeout(deadline, connect).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
