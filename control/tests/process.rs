//! The program: exit codes, signals, what it does to its files and what it refuses to do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use lanrage_control_client::{ControlClient, Endpoint, Error, Method};
use lanrage_proto::DeviceKey;
use lanrage_proto::api::{DEVICE_PROOF_CONTEXT, RegisterDevice, Registered, path};
use lanrage_proto::party::ServerAddress;
use lanrage_proto::signed::sign;
use sha2::{Digest as _, Sha256};
use sqlx::Connection as _;

fn program(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lanrage-control"));
    command.env_clear().arg("--dir").arg(dir);
    command
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    program(dir).args(arguments).output().unwrap()
}

#[track_caller]
fn assert_fails(output: &Output, code: i32, says: &[&str]) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    for word in says {
        assert!(errors.contains(word), "{word:?} in {errors}");
    }
}

struct Running {
    child: Child,
    port: u16,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has mostly ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Starts the service on a free port, which its log names.
fn start(dir: &Path, arguments: &[&str]) -> Running {
    let mut child = program(dir)
        .args(["run", "--listen", "127.0.0.1:0", "--metrics-listen", "", "--log-format", "json"])
        .args(["--requests-per-minute", "0"])
        .args(arguments)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("\"serving\"") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "the service did not start");
    }
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["fields"]["address"].as_str().unwrap();
    let port = address.rsplit(':').next().unwrap().parse().unwrap();
    std::thread::spawn(move || errors.read_to_end(&mut Vec::new()));
    Running { child, port }
}

fn terminate(mut running: Running) -> (i32, Duration) {
    let begun = Instant::now();
    let pid = rustix::process::Pid::from_child(&running.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let status = running.child.wait().unwrap();
    (status.code().unwrap(), begun.elapsed())
}

#[test]
fn init_says_what_comes_next_and_run_obeys_it() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("state");
    let output = run(&dir, &["init", "--listen", "127.0.0.1:0", "--public", "lan.example"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    for word in ["run --dir", "relay token", "lanrage-server://lan.example/#", "root.key"] {
        assert!(text.contains(word), "{word} in {text}");
    }
    let again = run(&dir, &["init"]);
    assert_eq!(String::from_utf8(again.stdout).unwrap(), text, "init changes nothing");
    let address = String::from_utf8(run(&dir, &["address"]).stdout).unwrap();
    assert!(text.contains(address.trim()));
    let mode = |path: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    };
    assert_eq!(mode(&dir), 0o700);
    let running = start(&dir, &[]);
    for file in ["root.key", "control.db", "control.db-wal", "lock"] {
        assert_eq!(mode(&dir.join(file)), 0o600, "{file}");
    }
    let (code, took) = terminate(running);
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(2), "{took:?}");
    let token = run(&dir, &["relay", "token", "--lifetime", "5m"]);
    assert!(token.stdout.starts_with(b"lanrage-relay-1."));
}

#[test]
fn wrong_usage_is_code_2() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("c.toml");
    std::fs::write(&file, "ticket_lifetime_s = 60\nlissen = []\n").unwrap();
    let output = run(dir.path(), &["run", "--config", file.to_str().unwrap()]);
    assert_fails(&output, 2, &["lissen", "line 2", "c.toml"]);
    assert_fails(&run(dir.path(), &["dance"]), 2, &["dance"]);
    assert_fails(&run(dir.path(), &["run", "--party-relays", "9"]), 2, &["party_relays"]);
    assert_fails(&run(dir.path(), &["run", "--log", "a=b=c"]), 2, &["log"]);
    let output =
        program(dir.path()).arg("run").env("LANRAGE_CONTROL_LISTEN", "x").output().unwrap();
    assert_fails(&output, 2, &["listen"]);
    run(dir.path(), &["init"]);
    assert_fails(&run(dir.path(), &["address"]), 2, &["public"]);
    assert_fails(&run(dir.path(), &["relay", "remove", "7"]), 2, &["no relay 7"]);
    let help = run(dir.path(), &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"));
}

#[test]
fn a_directory_in_use_names_the_user_and_a_port_in_use_the_address() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path(), &[]);
    let pid = running.child.id().to_string();
    let output = run(dir.path(), &["run", "--listen", "127.0.0.1:0"]);
    assert_fails(&output, 3, &["in use by process", &pid]);

    let other = tempfile::tempdir().unwrap();
    let address = format!("127.0.0.1:{}", running.port);
    let output = run(other.path(), &["run", "--listen", &address, "--metrics-listen", ""]);
    assert_fails(&output, 4, &[&address]);
    assert_eq!(terminate(running).0, 0);
}

#[test]
fn damaged_state_is_code_3_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["init"]).status.success());
    let (database, root) = (dir.path().join("control.db"), dir.path().join("root.key"));
    let good = std::fs::read(&database).unwrap();
    let serve = || run(dir.path(), &["run", "--listen", "127.0.0.1:0", "--metrics-listen", ""]);

    let mut inside = good.clone();
    for byte in &mut inside[4096..8192] {
        *byte = 0x5a;
    }
    for damaged in [inside, b"this is no database, it is a text of some length".repeat(20)] {
        std::fs::write(&database, &damaged).unwrap();
        assert_fails(&serve(), 3, &["control.db", "corrupt", "backup"]);
        assert_eq!(std::fs::read(&database).unwrap(), damaged, "nothing overwritten");
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::fs::write(&database, &good).unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
        let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    });
    assert_fails(&serve(), 3, &["control.db", "schema 99", "newer"]);

    std::fs::remove_file(&database).unwrap();
    assert_fails(&serve(), 3, &["control.db", "missing"]);
    assert!(!database.exists());
    std::fs::write(&database, &good).unwrap();
    let key = std::fs::read(&root).unwrap();
    std::fs::write(&root, b"lanrage-root-1.short").unwrap();
    assert_fails(&serve(), 3, &["root.key", "corrupt"]);
    std::fs::remove_file(&root).unwrap();
    assert_fails(&serve(), 3, &["root.key"]);
    assert!(!root.exists(), "no new root in place of a lost one");
    std::fs::write(&root, key).unwrap();
    assert_fails(&serve(), 3, &["root.key", "chmod 600"]);
}

/// Kills the service while devices register; what was answered is there afterwards, and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 0..4_u64 {
        let mut running = start(dir.path(), &["--public", "127.0.0.1:1"]);
        let address = run(dir.path(), &["address", "--public", "127.0.0.1:1"]).stdout;
        let address: ServerAddress = String::from_utf8(address).unwrap().trim().parse().unwrap();
        let endpoint = Endpoint { port: running.port, ..Endpoint::from(&address) };
        let client = ControlClient::new(endpoint);
        for (key, _) in answered.iter().rev().take(5) {
            register(&client, key).await.expect("registers again");
        }
        let mut writers = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let client = client.clone();
            writers.spawn(async move {
                let mut done = Vec::new();
                loop {
                    let mut seed = [0; 32];
                    getrandom::fill(&mut seed).unwrap();
                    let key = SigningKey::from_bytes(&seed);
                    match register(&client, &key).await {
                        Ok(registered) => done.push((key, registered.token)),
                        Err(_) => return done,
                    }
                }
            });
        }
        tokio::time::sleep(Duration::from_millis(300 + 90 * round)).await;
        running.child.kill().unwrap();
        running.child.wait().unwrap();
        answered.extend(writers.join_all().await.into_iter().flatten());
    }
    assert!(answered.len() > 20, "{}", answered.len());

    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("control.db"));
    let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let check: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap();
    assert_eq!(check, "ok");
    for (key, token) in &answered {
        let found = "SELECT 1 FROM devices NATURAL JOIN tokens WHERE device = ? AND hash = ?";
        let found: Option<i64> = sqlx::query_scalar(found)
            .bind(&key.verifying_key().to_bytes()[..])
            .bind(&Sha256::digest(token.0)[..])
            .fetch_optional(&mut db)
            .await
            .unwrap();
        assert_eq!(found, Some(1));
    }
}

async fn register(client: &ControlClient, key: &SigningKey) -> Result<Registered, Error> {
    const DEADLINE: Duration = Duration::from_secs(5);
    let connection = client.connect(DEADLINE).await?;
    let request = RegisterDevice {
        device: DeviceKey(key.verifying_key().to_bytes()),
        proof: sign(key, DEVICE_PROOF_CONTEXT, &connection.channel_binding()),
    };
    connection.request(Method::POST, path::DEVICES, None, &request, DEADLINE).await
}
