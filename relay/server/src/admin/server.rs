use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::api::{Nothing, Problem, path};
use super::{Admin, AdminSocket, Refused};

/// Command lines at the same time.
const CONNECTIONS_MAX: usize = 8;
const CONNECTION_MAX: Duration = Duration::from_secs(60);
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const REQUEST_LEN_MAX: usize = 16 << 10;

/// Answers until dropped.
pub(crate) async fn serve(socket: AdminSocket, admin: Arc<Admin>) -> Infallible {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        let Ok((stream, _)) = socket.listener.accept().await else {
            // Out of descriptors: others must close theirs first.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let _slot = slot;
            let peer = permitted(&stream);
            let service = service_fn(|request| {
                let (admin, peer) = (&admin, &peer);
                async move {
                    let answer = match peer {
                        Ok(()) => answer(admin, request).await,
                        Err(who) => Err(Refused::new(StatusCode::FORBIDDEN, who)),
                    };
                    Ok::<_, Infallible>(response(answer))
                }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            // A broken connection concerns the other end alone.
            let _ = timeout(CONNECTION_MAX, connection).await;
        });
    }
}

/// Whether the other end is root or the relay's own user, as the kernel says (`SO_PEERCRED`): the
/// file's mode alone would not hold where someone changes it.
fn permitted(stream: &UnixStream) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || peer.uid() == own => Ok(()),
        Ok(peer) => {
            Err(format!("user {} may not: the relay obeys root and user {own}", peer.uid()))
        }
        Err(error) => Err(format!("the kernel does not say who asks: {error}")),
    }
}

async fn answer(admin: &Admin, request: Request<Incoming>) -> Result<Vec<u8>, Refused> {
    if request.method() != Method::POST {
        return Err(Refused::new(StatusCode::METHOD_NOT_ALLOWED, "POST only"));
    }
    let (head, body) = request.into_parts();
    let body = timeout(HEADER_TIMEOUT, Limited::new(body, REQUEST_LEN_MAX).collect()).await;
    let Ok(Ok(body)) = body else {
        let error = format!("the request is longer than {REQUEST_LEN_MAX} bytes, or broke off");
        return Err(Refused::new(StatusCode::BAD_REQUEST, error));
    };
    let body = body.to_bytes();
    match head.uri.path() {
        path::STATUS => {
            parse::<Nothing>(&body)?;
            json(&admin.status().await?)
        }
        path::SESSIONS => json(&admin.sessions(parse(&body)?).await?),
        path::LEASES => json(&admin.leases(parse(&body)?).await?),
        path::SHARDS => {
            parse::<Nothing>(&body)?;
            json(&admin.shards()?)
        }
        path::BANS => {
            parse::<Nothing>(&body)?;
            json(&admin.bans().await?)
        }
        path::BAN => json(&admin.ban(parse(&body)?).await?),
        path::UNBAN => {
            admin.unban(parse(&body)?).await?;
            json(&Nothing {})
        }
        path::CAPS => {
            parse::<Nothing>(&body)?;
            json(&admin.caps().await?)
        }
        path::CAP => {
            admin.cap(parse(&body)?).await?;
            json(&Nothing {})
        }
        path::DRAIN => json(&admin.drain(parse(&body)?).await?),
        path::UNDRAIN => {
            parse::<Nothing>(&body)?;
            admin.undrain().await?;
            json(&Nothing {})
        }
        path::LOG => json(&admin.log(parse(&body)?)?),
        path::GSO => json(&admin.gso(parse(&body)?)?),
        path::UPGRADE => {
            parse::<Nothing>(&body)?;
            json(&admin.upgrade().await?)
        }
        unknown => {
            let error = format!(
                "this relay, version {}, knows no {unknown}: use its own `lanrage-relay ctl`",
                env!("CARGO_PKG_VERSION")
            );
            Err(Refused::new(StatusCode::NOT_FOUND, error))
        }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    serde_json::from_slice(body)
        .map_err(|error| Refused::new(StatusCode::BAD_REQUEST, format!("the request: {error}")))
}

fn json(answer: &impl Serialize) -> Result<Vec<u8>, Refused> {
    serde_json::to_vec(answer)
        .map_err(|error| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

fn response(answer: Result<Vec<u8>, Refused>) -> Response<Full<Bytes>> {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(Refused { status, error }) => {
            let problem = serde_json::to_vec(&Problem { error });
            (status, problem.unwrap_or_default())
        }
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, "application/json".parse().expect("a constant"));
    response
}
