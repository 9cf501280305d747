//! What each command does; every function gives the text it prints.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::Path;

use anyhow::Context as _;
use lanrage_proto::RelayId;
use lanrage_proto::api::EnrolmentToken;
use lanrage_proto::bytes::{Token, encode_base64};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, PartyCommand, RelayCommand};
use crate::clock::Clock;
use crate::config::{self, Config, FILE_NAME, LogFormat, Options};
use crate::failure::Failure;
use crate::listing;
use crate::random::random_bytes;
use crate::server::Server;
use crate::service::token_hash;
use crate::state::{StateDir, write_whole};
use crate::store::{parties, pool, relays};

/// Does what the command line says and gives the text to print.
///
/// # Errors
/// See [`Failure`].
pub async fn execute(cli: Cli) -> Result<String, Failure> {
    let Cli { dir, config: file, command } = cli;
    let given = |options| Options { dir: dir.clone(), ..options };
    let resolve = |options| given(options).resolve(file.as_deref());
    let config = || resolve(Options::default());
    match command {
        Command::Init(options) => init(&resolve(options.clone())?, given(options)).await,
        Command::Run(options) => run(&resolve(options)?).await,
        Command::Address { public } => {
            let config = resolve(Options { public, ..Options::default() })?;
            let root = StateDir::open(&config.dir)?.root_hash();
            Ok(format!("{}\n", config.server_address(root)?))
        }
        Command::Relay(RelayCommand::Token { lifetime }) => relay_token(&config()?, lifetime).await,
        Command::Relay(RelayCommand::List { json }) => relay_list(&config()?, json).await,
        Command::Relay(RelayCommand::Remove { id }) => relay_remove(&config()?, RelayId(id)).await,
        Command::Party(PartyCommand::List) => party_list(&config()?).await,
    }
}

/// Makes the state directory and keeps the given settings in it; says what comes next.
async fn init(config: &Config, options: Options) -> Result<String, Failure> {
    let state = StateDir::open_or_create(&config.dir).await?;
    keep_settings(&config.dir.join(FILE_NAME), Options { dir: None, ..options })?;
    let (dir, root) = (config.dir.display(), state.root_hash());
    let server = config.server_address(root).map_or_else(
        |_| format!("not known yet: lanrage-control init --dir {dir} --public HOST:PORT"),
        |address| address.to_string(),
    );
    let control = config
        .public
        .as_ref()
        .map_or_else(|| "HOST:PORT".to_owned(), |(host, port)| format!("{host}:{port}"));
    Ok(format!(
        "State directory  {dir} (back it up: {dir}/root.key is what clients trust)\n\
         Root key hash    {}\n\
         Server address   {server}\n\
         \n\
         Start            lanrage-control run --dir {dir}\n\
         Enrol a relay    (umask 077; lanrage-control relay token --dir {dir} > token), then copy the \
         file to the relay's host\n\
         Start the relay  lanrage-relay run --control {control} --advertise ITS.ADDRESS:51820 \
         --enrolment-token-file token\n\
         Make a party     lanrage party create NAME --server 'SERVER ADDRESS'\n",
        encode_base64(&root.0),
    ))
}

/// Adds the settings given to those in the file. One that somebody has edited, perhaps with
/// comments, is not written over.
fn keep_settings(file: &Path, given: Options) -> Result<(), Failure> {
    let text = |options: &Options| toml::to_string(options).context("writing the configuration");
    let known = if file.exists() { Some(config::read(file)?) } else { None };
    let kept = given.or(known.clone().unwrap_or_default());
    if known.as_ref() == Some(&kept) {
        return Ok(());
    }
    let failed = |error| Failure::State(format!("{}: {error}", file.display()));
    if let Some(known) = known
        && std::fs::read_to_string(file).map_err(failed)? != text(&known)?
    {
        return Err(Failure::Configuration(format!(
            "{} was edited since `init` wrote it, and stays as it is: change the setting there",
            file.display()
        )));
    }
    write_whole(file, text(&kept)?.as_bytes()).map_err(failed)
}

async fn run(config: &Config) -> Result<String, Failure> {
    use tokio::signal::unix::{SignalKind, signal};
    start_logs(config)?;
    allow_many_connections();
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let server = tokio::select! {
        server = Server::start(config, Clock::default()) => server?,
        // Nothing serves yet. What has begun in the database is rolled back.
        _ = terminate.recv() => return Ok(String::new()),
        _ = interrupt.recv() => return Ok(String::new()),
    };
    for address in server.addresses() {
        tracing::info!(%address, "serving");
    }
    if let Some(address) = server.metrics_address() {
        tracing::info!(%address, "metrics");
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping");
    server.stop().await;
    Ok(String::new())
}

/// Raises the soft limit of open files, often 1,024, to the hard one: each connection is a file.
fn allow_many_connections() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

fn start_logs(config: &Config) -> Result<(), Failure> {
    let filter = EnvFilter::try_new(&config.log)
        .map_err(|error| Failure::Configuration(format!("log: {error}")))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Json => logs.json().init(),
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).init(),
    }
    Ok(())
}

async fn relay_token(config: &Config, lifetime_s: u64) -> Result<String, Failure> {
    let state = StateDir::open(&config.dir)?;
    let secret = Token(random_bytes());
    let store = state.visit_store().await?;
    let mut write = store.write().await?;
    let expires = Clock::default().now() + lifetime_s;
    relays::add_token(write.db(), &token_hash(&secret), expires).await?;
    write.commit().await?;
    store.close().await;
    Ok(format!("{}\n", EnrolmentToken { root: state.root_hash(), secret }))
}

async fn relay_list(config: &Config, json: bool) -> Result<String, Failure> {
    let store = StateDir::open(&config.dir)?.visit_store().await?;
    let mut view = store.read().await?;
    let (relays, alive) = (relays::list(&mut view).await?, pool::alive(&mut view).await?);
    let now = Clock::default().now();
    Ok(if json {
        listing::as_json(&relays, alive, now)
    } else {
        listing::table(&relays, alive, now)
    })
}

async fn relay_remove(config: &Config, id: RelayId) -> Result<String, Failure> {
    let store = StateDir::open(&config.dir)?.visit_store().await?;
    let mut write = store.write().await?;
    if !relays::remove(write.db(), id).await? {
        return Err(Failure::Configuration(format!(
            "there is no relay {id}: see `lanrage-control relay list`"
        )));
    }
    pool::touch(write.db()).await?;
    write.commit().await?;
    store.close().await;
    Ok(format!("relay {id} removed\n"))
}

async fn party_list(config: &Config) -> Result<String, Failure> {
    let store = StateDir::open(&config.dir)?.visit_store().await?;
    let mut view = store.read().await?;
    let mut text = String::new();
    for (session, name, size) in parties::list(&mut view).await? {
        writeln!(text, "{session}  {size:>3}  {name}").expect("a string takes everything");
    }
    Ok(text)
}
