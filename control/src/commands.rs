//! What each command does; every function gives the text it prints.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use lanrage_proto::RelayId;
use lanrage_proto::api::EnrolmentToken;
use lanrage_proto::bytes::{Token, encode_base64};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing_subscriber::EnvFilter;

use crate::cli::{Cli, Command, PartyCommand, RelayCommand};
use crate::clock::Clock;
use crate::config::{Config, FILE_NAME, LogFormat, Options};
use crate::failure::Failure;
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
    let options = cli.options.clone();
    let config = cli.options.resolve(cli.config.as_deref())?;
    match cli.command {
        Command::Init => init(&config, &options).await,
        Command::Run => run(&config).await,
        Command::Address => {
            let root = StateDir::open(&config.dir)?.root_hash();
            Ok(format!("{}\n", config.server_address(root)?))
        }
        Command::Relay(RelayCommand::Token { lifetime }) => relay_token(&config, lifetime).await,
        Command::Relay(RelayCommand::List) => relay_list(&config).await,
        Command::Relay(RelayCommand::Remove { id }) => relay_remove(&config, RelayId(id)).await,
        Command::Party(PartyCommand::List) => party_list(&config).await,
    }
}

/// Makes the state directory and keeps the given settings in it; says what comes next.
async fn init(config: &Config, options: &Options) -> Result<String, Failure> {
    let state = if StateDir::exists(&config.dir) {
        StateDir::open(&config.dir)?
    } else {
        StateDir::create(&config.dir).await?
    };
    let file = config.dir.join(FILE_NAME);
    if !file.exists() {
        let kept = Options { dir: None, ..options.clone() };
        let text = toml::to_string(&kept).context("writing the configuration")?;
        write_whole(&file, text.as_bytes())
            .map_err(|error| Failure::State(format!("{}: {error}", file.display())))?;
    }
    let (dir, root) = (config.dir.display(), state.root_hash());
    let server = config.server_address(root).map_or_else(
        |_| {
            "not known: set `public` to HOST:PORT, then `lanrage-control address` prints it"
                .to_owned()
        },
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
         Enrol a relay    (umask 077; lanrage-control relay token --dir {dir} > token)\n\
         Start the relay  lanrage-relay run --control {control} --advertise ITS.ADDRESS:51820 \
         --enrolment-token-file token\n\
         Make a party     lanrage party create NAME --server 'SERVER ADDRESS'\n",
        encode_base64(&root.0),
    ))
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

async fn relay_list(config: &Config) -> Result<String, Failure> {
    let store = StateDir::open(&config.dir)?.visit_store().await?;
    let mut view = store.read().await?;
    let mut text = String::new();
    for relay in relays::list(&mut view).await? {
        let ipv4 = relay.ipv4.map_or("-".to_owned(), |address| address.to_string());
        let ipv6 = relay.ipv6.map_or("-".to_owned(), |address| address.to_string());
        writeln!(text, "{:>5}  {:<32}  {ipv4:<21}  {ipv6}", relay.id, relay.name)
            .expect("a string takes everything");
    }
    Ok(text)
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
