//! The program: exit codes, signals, what it does to its files and what it refuses to do.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use ed25519_dalek::SigningKey;
use lanrage_control_client::{ControlClient, Endpoint, Error, Method};
use lanrage_proto::api::{DEVICE_PROOF_CONTEXT, ErrorCode, RegisterDevice, Registered, path};
use lanrage_proto::party::ServerAddress;
use lanrage_proto::signed::sign;
use lanrage_proto::{DeviceKey, SessionId};
use sqlx::Connection as _;

const DEADLINE: Duration = Duration::from_secs(5);

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
    for word in [
        "run --dir",
        "(umask 077; lanrage-control relay token",
        "lanrage-server://lan.example/#",
        "root.key",
    ] {
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
    assert_fails(&output, 2, &["listen", "environment variable LANRAGE_CONTROL_LISTEN"]);
    let flag = run(dir.path(), &["run", "--listen", "x"]);
    assert!(!String::from_utf8_lossy(&flag.stderr).contains("environment"), "{flag:?}");
    run(dir.path(), &["init"]);
    assert_fails(&run(dir.path(), &["address"]), 2, &["public"]);
    assert_fails(&run(dir.path(), &["relay", "remove", "7"]), 2, &["no relay 7"]);
    let help = run(dir.path(), &["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Exit codes"));
}

/// Every command listed all the settings of the service.
#[test]
fn regression_only_init_and_run_take_the_settings() {
    let dir = tempfile::tempdir().unwrap();
    let help = |command: &[&str]| {
        let output = run(dir.path(), &[command, &["--help"]].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    for command in [&["relay", "list"][..], &["relay", "token"], &["party", "list"], &["address"]] {
        let help = help(command);
        assert!(help.contains("--dir") && !help.contains("--connections-max"), "{help}");
    }
    assert!(help(&["run"]).contains("--connections-max"));
    assert!(help(&["init"]).contains("--connections-max"));
}

/// The address that a later `init --public` printed was nowhere kept.
#[test]
fn regression_init_keeps_what_it_is_given_later() {
    let dir = tempfile::tempdir().unwrap();
    let said = |arguments: &[&str]| {
        let output = run(dir.path(), arguments);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(said(&["init", "--party-relays", "3"]).contains("init --dir"));
    for host in ["one.example", "two.example"] {
        let text = said(&["init", "--public", host]);
        let address = said(&["address"]);
        assert!(address.contains(host) && text.contains(address.trim()), "{text}");
    }
    let file = dir.path().join("control.toml");
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(kept.contains("party_relays = 3"), "{kept}");

    let edited = format!("# mine\n{kept}");
    std::fs::write(&file, &edited).unwrap();
    assert!(
        said(&["init", "--public", "two.example"]).contains("two.example"),
        "nothing to change"
    );
    let output = run(dir.path(), &["init", "--public", "three.example"]);
    assert_fails(&output, 2, &["control.toml", "edited"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), edited);
}

/// A directory that was never initialised was said to have lost its root key, and so was one that
/// another user owns.
#[test]
fn regression_a_directory_that_is_not_there_is_told_from_one_that_is_closed() {
    use std::os::unix::process::CommandExt as _;
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    for command in [&["address"][..], &["relay", "list"], &["relay", "token"], &["party", "list"]] {
        assert_fails(&run(&state, command), 3, &["not initialised", "lanrage-control init --dir"]);
    }
    assert!(!state.exists());
    if !rustix::process::geteuid().is_root() {
        return;
    }
    assert!(run(&state, &["init"]).status.success());
    let nobody = |arguments: &[&str], dir: &Path| {
        program(dir).args(arguments).uid(65_534).gid(65_534).output().unwrap()
    };
    // The program itself must be within reach of another user.
    if Command::new(env!("CARGO_BIN_EXE_lanrage-control")).uid(65_534).output().is_err() {
        return;
    }
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .unwrap();
    let new = dir.path().join("new");
    for (arguments, dir) in [
        (&["run"][..], &state),
        (&["init"], &state),
        (&["relay", "list"], &state),
        (&["init"], &new),
    ] {
        assert_fails(&nobody(arguments, dir), 3, &["ermission denied", "run as root (sudo)"]);
    }
}

/// A wrong `--dir` made a new root key without a word.
#[test]
fn regression_a_start_names_its_root_and_says_when_it_is_new() {
    let dir = tempfile::tempdir().unwrap();
    let log = |dir: &Path| {
        let mut child = program(dir)
            .args(["run", "--listen", "127.0.0.1:0", "--metrics-listen", "off"])
            .args(["--public", "lan.example"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut log = String::new();
        while !log.contains("serving") {
            assert_ne!(errors.read_line(&mut log).unwrap(), 0, "{log}");
        }
        assert_eq!(terminate(Running { child, port: 0 }).0, 0);
        log
    };
    let first = log(dir.path());
    assert!(first.contains("WARN") && first.contains("new state directory"), "{first}");
    let address = run(dir.path(), &["address", "--public", "lan.example"]).stdout;
    let address = String::from_utf8(address).unwrap();
    let second = log(dir.path());
    assert!(!second.contains("new state directory") && second.contains(address.trim()), "{second}");
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

/// Checking and migrating a big database takes long; so does waiting for another process.
#[test]
fn regression_a_start_is_broken_off_by_sigterm() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["init"]).status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _db = runtime.block_on(async {
        let mut db = open(&dir.path().join("control.db")).await;
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut db).await.unwrap();
        db
    });
    let child = program(dir.path())
        .args(["run", "--listen", "127.0.0.1:0", "--metrics-listen", ""])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(800));
    let (code, took) = terminate(Running { child, port: 0 });
    assert_eq!(code, 0);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

/// A command of a newer version changed the tables of the service that was running.
#[test]
fn regression_commands_leave_the_schema_to_the_service() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["init"]).status.success());
    let database = dir.path().join("control.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let version = |set: Option<i64>| {
        runtime.block_on(async {
            let mut db = open(&database).await;
            if let Some(set) = set {
                let text = format!("PRAGMA user_version = {set}");
                sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut db).await.unwrap();
            }
            let version = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut db).await;
            db.close().await.unwrap();
            version.unwrap()
        })
    };
    let today: i64 = version(None);
    version(Some(today - 1));
    for command in [&["relay", "token"][..], &["relay", "list"], &["party", "list"]] {
        assert_fails(&run(dir.path(), command), 3, &["control.db", "schema", "run"]);
    }
    assert_eq!(version(None), today - 1);
    version(Some(today));
    assert!(run(dir.path(), &["relay", "list"]).status.success());
}

/// A database as version 1 wrote it is brought up to date, with all that is in it.
#[test]
fn a_database_of_schema_1_is_migrated_by_the_service() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["init"]).status.success());
    let database = dir.path().join("control.db");
    std::fs::remove_file(&database).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&database);
        let options = options.create_if_missing(true);
        let mut db = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        sqlx::raw_sql(include_str!("../migrations/0001.sql")).execute(&mut db).await.unwrap();
        sqlx::raw_sql(
            "PRAGMA user_version = 1;
             INSERT INTO devices VALUES (x'01', 5, 1700000000), (x'26', 5, 1700000000);
             INSERT INTO parties VALUES (7, 'party', 1, x'00', 3, x'01', x'00', 5);
             INSERT INTO members VALUES (7, 26, 1, x'26', x'26', 'z', 'member', 5, NULL, NULL),
                (7, 250, 2, x'fa', x'fa', 'y', 'member', 5, 6, NULL);
             INSERT INTO kicks VALUES (7, 2, x'0101fa01', 1699999998),
                (7, 3, x'01011b01', 1699999999)",
        )
        .execute(&mut db)
        .await
        .unwrap();
        db.close().await.unwrap();
    });
    terminate(start(dir.path(), &[]));
    let (devices, alive, kicked): (i64, i64, Vec<Option<Vec<u8>>>) = runtime.block_on(async {
        let mut db = open(&database).await;
        let devices = sqlx::query_scalar("SELECT count(*) FROM devices").fetch_one(&mut db).await;
        let alive = sqlx::query_scalar("SELECT alive FROM pool").fetch_one(&mut db).await;
        let kicked = sqlx::query_scalar("SELECT device FROM kicks ORDER BY epoch");
        let kicked = kicked.fetch_all(&mut db).await;
        (devices.unwrap(), alive.unwrap(), kicked.unwrap())
    });
    assert_eq!(devices, 2, "the time without the service does not count");
    assert!(alive >= 1_700_000_000);
    assert_eq!(kicked, [Some(vec![0xfa]), None], "whom a kick put out, where that is known");
}

/// What `run` says 3 about is also said when a row cannot be read.
#[test]
fn regression_an_unreadable_row_is_code_3() {
    let dir = tempfile::tempdir().unwrap();
    assert!(run(dir.path(), &["init"]).status.success());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut db = open(&dir.path().join("control.db")).await;
        let row = "INSERT INTO signing_keys VALUES (1, x'00', 5)";
        sqlx::raw_sql(row).execute(&mut db).await.unwrap();
        db.close().await.unwrap();
    });
    let output = run(dir.path(), &["run", "--listen", "127.0.0.1:0", "--metrics-listen", ""]);
    assert_fails(&output, 3, &["seed"]);
}

async fn open(database: &Path) -> sqlx::SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(database);
    sqlx::SqliteConnection::connect_with(&options).await.unwrap()
}

/// Kills the service while devices register; what was answered is there afterwards, and whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_answered_survives_sigkill() {
    let dir = tempfile::tempdir().unwrap();
    let mut answered = Vec::new();
    for round in 0..4_u64 {
        let mut running = start(dir.path(), &["--public", "127.0.0.1:1"]);
        let client = ControlClient::new(endpoint(dir.path(), &running));
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

    let mut db = open(&dir.path().join("control.db")).await;
    let check: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut db).await.unwrap();
    assert_eq!(check, "ok");
    db.close().await.unwrap();

    // Every token that was answered is good: the party is not there, but the device is known.
    let running = start(dir.path(), &["--public", "127.0.0.1:1"]);
    let client = ControlClient::new(endpoint(dir.path(), &running));
    let connection = client.connect(DEADLINE).await.unwrap();
    let ticket = path::of_party(path::TICKET, SessionId(1));
    let body = serde_json::json!({});
    for (_, token) in &answered {
        let answer = connection
            .request::<_, serde_json::Value>(Method::POST, &ticket, Some(token), &body, DEADLINE)
            .await;
        let Err(Error::Api(refusal)) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.code, ErrorCode::NotFound);
    }
}

fn endpoint(dir: &Path, running: &Running) -> Endpoint {
    let address = run(dir, &["address", "--public", "127.0.0.1:1"]).stdout;
    let address: ServerAddress = String::from_utf8(address).unwrap().trim().parse().unwrap();
    Endpoint { port: running.port, ..Endpoint::from(&address) }
}

async fn register(client: &ControlClient, key: &SigningKey) -> Result<Registered, Error> {
    let connection = client.connect(DEADLINE).await?;
    let request = RegisterDevice {
        device: DeviceKey(key.verifying_key().to_bytes()),
        proof: sign(key, DEVICE_PROOF_CONTEXT, &connection.channel_binding()),
    };
    connection.request(Method::POST, path::DEVICES, None, &request, DEADLINE).await
}
