use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::failure::Failure;
use crate::admin::api::Problem;

const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a relay's admin socket.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
    path: PathBuf,
}

impl Client {
    pub(super) async fn connect(path: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).await.map_err(|error| unreachable(path, &error))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // Its end shows in the request.
        tokio::spawn(connection);
        Ok(Self { sender, path: path.to_owned() })
    }

    /// Asks once.
    pub(super) async fn ask<A: DeserializeOwned>(
        &mut self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<A, Failure> {
        let body = serde_json::to_vec(body).map_err(|error| Failure::Other(error.to_string()))?;
        let request = Request::post(path)
            .header(HOST, "relay")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| Failure::Other(error.to_string()))?;
        let exchange = async {
            let response = self.sender.send_request(request).await.map_err(broken)?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
            Ok((status, body))
        };
        let (status, body) = timeout(ANSWER_TIMEOUT, exchange).await.map_err(|_| {
            Failure::Other(format!("the relay has not answered within {ANSWER_TIMEOUT:?}"))
        })??;
        let unreadable = |error| Failure::Other(format!("the relay's answer: {error}"));
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(unreadable);
        }
        let Problem { error } = serde_json::from_slice(&body).map_err(unreadable)?;
        Err(match status {
            StatusCode::FORBIDDEN => Failure::NotPermitted { path: self.path.clone(), why: error },
            _ => Failure::Refused(error),
        })
    }
}

fn unreachable(path: &Path, error: &io::Error) -> Failure {
    let kind = error.kind();
    if matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) {
        Failure::NoRelay(path.to_owned())
    } else if kind == io::ErrorKind::PermissionDenied {
        Failure::NotPermitted { path: path.to_owned(), why: error.to_string() }
    } else {
        Failure::Other(format!("{}: {error}", path.display()))
    }
}

fn broken(error: hyper::Error) -> Failure {
    Failure::Other(format!("the relay hung up: {error}"))
}
