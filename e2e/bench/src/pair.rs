//! The measurement: round after round, data plane after data plane, phase after phase.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::runtime::Runtime;

use crate::authority::{Authority, uri};
use crate::control::Control;
use crate::envoy::{self, ADMIN_PORT};
use crate::net::{self, Net};
use crate::place::{
    AUTHORITY, CLIENT_SPACE, CONTROL, NAMESPACE, PORT, SERVER, SERVER_SPACE, SERVICE, SIDECAR_USER, Side, TRUST_DOMAIN,
};
use crate::process::{Machine, Running};
use crate::report::{ENVOY, Metric, OURS, Report, Sample};
use crate::wrk::{self, Load};

/// Measures two sidecars beside the same with Envoy
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The built mizzen-proxy
    #[arg(long)]
    proxy: PathBuf,
    /// Envoy's binary
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// A directory for logs and configuration
    #[arg(long)]
    files: PathBuf,
    /// Rounds per data plane; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of each phase
    #[arg(long, default_value_t = 4)]
    seconds: u64,
    /// Worker threads of each sidecar
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Only this data plane
    #[arg(long)]
    only: Option<Plane>,
    /// Print JSON instead of the table
    #[arg(long)]
    json: bool,
}

/// What carries the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Plane {
    Mizzen,
    Envoy,
}

impl Plane {
    fn name(self) -> &'static str {
        match self {
            Self::Mizzen => OURS,
            Self::Envoy => ENVOY,
        }
    }

    fn ready(self) -> (SocketAddr, &'static str) {
        let (port, path) = match self {
            Self::Mizzen => (15021, "/healthz/ready"),
            Self::Envoy => (ADMIN_PORT, "/ready"),
        };
        (SocketAddr::from(([127, 0, 0, 1], port)), path)
    }
}

/// Measures and prints.
pub(crate) fn run(args: &Args) -> Result<()> {
    let planes: Vec<Plane> = [Plane::Mizzen, Plane::Envoy]
        .into_iter()
        .filter(|plane| args.only.is_none_or(|only| only == *plane))
        .collect();
    let bench = Bench::prepare(args, &planes)?;
    let mut report = Report {
        workers: args.workers,
        ..Report::default()
    };
    report.direct = bench.direct()?;
    bench.redirect()?;
    for round in 1..=args.rounds.max(1) {
        for plane in &planes {
            let (sample, elsewhere) = bench
                .round(*plane)
                .with_context(|| format!("round {round}, {}", plane.name()))?;
            let value = |metric| sample.get(&metric).copied().unwrap_or_default();
            eprintln!(
                "round {round} {}: {:.3} CPU s per 10k, {:.0} requests/s, {:.1} MiB idle, {:.1} loaded; others {:.0} % busy",
                plane.name(),
                value(Metric::Cpu),
                value(Metric::Rate),
                value(Metric::Idle),
                value(Metric::Loaded),
                elsewhere * 100.0
            );
            report.samples.entry(plane.name()).or_default().push(sample);
            report.elsewhere.push(elsewhere);
        }
    }
    if args.json {
        println!("{:#}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(())
}

/// All that is there before the first round. Dropped in the order of the fields: the network last.
struct Bench<'a> {
    args: &'a Args,
    controls: Vec<Control>,
    _runtime: Runtime,
    _server: Running,
    _net: Net,
}

impl<'a> Bench<'a> {
    fn prepare(args: &'a Args, planes: &[Plane]) -> Result<Self> {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let most = rustix::process::Rlimit {
            current: limit.maximum,
            ..limit
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, most).context("limit of open files")?;
        // Sidecars run as a user of their own, who must get at their files.
        open(&args.files, 0o755)?;
        for plane in planes {
            let program = match plane {
                Plane::Mizzen => &args.proxy,
                Plane::Envoy => args.envoy.as_ref().context("--envoy: which Envoy?")?,
            };
            let copy = args.files.join(plane.name());
            fs::copy(program, &copy).with_context(|| program.display().to_string())?;
            open(&copy, 0o755)?;
        }
        let authority = Arc::new(Authority::new()?);
        fs::write(args.files.join("root.pem"), authority.root())?;
        fs::write(args.files.join("token"), "nobody checks it here")?;
        fs::write(args.files.join("labels"), "app=\"bench\"\nversion=\"v1\"\n")?;
        for side in Side::ALL {
            let pair = authority.issue(vec![uri(&side.identity())?])?;
            let files = files_of(args, side);
            fs::write(&files.certificate, pair.certificate)?;
            fs::write(&files.key, pair.key)?;
            fs::write(config_of(args, side), format!("{:#}", envoy::bootstrap(side, &files)))?;
        }
        let net = Net::make()?;
        let server = server(args)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let controls = Side::ALL
            .into_iter()
            .map(|side| Control::start(&runtime, side, authority.clone()))
            .collect::<Result<_>>()?;
        Ok(Self {
            args,
            controls,
            _runtime: runtime,
            _server: server,
            _net: net,
        })
    }

    /// Client to server with nothing between: what the machine can do in this hour.
    fn direct(&self) -> Result<Sample> {
        let time = Duration::from_secs(self.args.seconds);
        let none = || Ok(());
        let many = wrk::run(&self.args.files, SERVER.into(), 64, time, none)?;
        let one = wrk::run(&self.args.files, SERVER.into(), 1, time, none)?;
        Ok(Sample::from([
            (Metric::Rate, many.rate),
            (Metric::P50, many.p50),
            (Metric::P99, many.p99),
            (Metric::OneP50, one.p50),
        ]))
    }

    /// Programs the rules of an injected pod in both namespaces.
    fn redirect(&self) -> Result<()> {
        const FLAGS: [&str; 13] = [
            "-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-b", "*", "-d",
        ];
        for side in Side::ALL {
            let mut command = Command::new(&self.args.proxy);
            command.arg("redirect").args(FLAGS).arg("15090,15021,15020");
            let output = net::inside(side.space(), || command.output().context("mizzen-proxy redirect"))?;
            ensure!(
                output.status.success(),
                "mizzen-proxy redirect: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(())
    }

    fn round(&self, plane: Plane) -> Result<(Sample, f64)> {
        let mut pair = Pair::start(self.args, plane)?;
        self.check_path()?;
        let before = Machine::now()?;
        std::thread::sleep(Duration::from_secs(1));
        let elsewhere = Machine::now()?.busy_since(before);
        let idle = pair.resident()?;

        let seconds = self.args.seconds;
        let mut failed = 0.0;
        let mut phase = |connections, seconds| -> Result<Phase> {
            let phase = pair.under(self.args, connections, Duration::from_secs(seconds))?;
            failed += phase.load.failed;
            Ok(phase)
        };
        phase(64, (seconds / 2).max(1))?;
        let some = phase(64, seconds)?;
        let one = phase(1, seconds)?;
        let many = phase(1000, seconds)?;
        for control in &self.controls {
            control.check()?;
        }
        let sample = Sample::from([
            (Metric::Cpu, some.cost(|cpu| cpu.client + cpu.server)),
            (Metric::CpuClient, some.cost(|cpu| cpu.client)),
            (Metric::CpuServer, some.cost(|cpu| cpu.server)),
            (Metric::Rate, some.load.rate),
            (Metric::P50, some.load.p50),
            (Metric::P99, some.load.p99),
            (Metric::OneP50, one.load.p50),
            (Metric::OneCpu, one.cost(|cpu| cpu.client + cpu.server)),
            (Metric::ManyRate, many.load.rate),
            (Metric::ManyCpu, many.cost(|cpu| cpu.client + cpu.server)),
            (Metric::Idle, idle.larger()),
            (Metric::Loaded, some.resident.larger()),
            (Metric::Many, many.resident.larger()),
            (Metric::Failed, failed),
        ]);
        Ok((sample, elsewhere))
    }

    /// One request, to see that it takes the whole way: the server is told by its sidecar who called.
    fn check_path(&self) -> Result<()> {
        let address = SocketAddr::from((SERVICE, PORT));
        let answer = net::get(CLIENT_SPACE, address, &format!("{AUTHORITY}:{PORT}"), "/who")?;
        ensure!(
            answer.status == 200 && answer.body.contains(&Side::Client.identity()),
            "the server was not told of the client's identity: {} {:?}",
            answer.status,
            answer.body
        );
        Ok(())
    }
}

fn open(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).with_context(|| path.display().to_string())
}

fn files_of(args: &Args, side: Side) -> envoy::Files {
    let path = |name: &str| args.files.join(name).display().to_string();
    envoy::Files {
        certificate: path(&format!("{}.pem", side.name())),
        key: path(&format!("{}.key", side.name())),
        root: path("root.pem"),
    }
}

fn config_of(args: &Args, side: Side) -> PathBuf {
    args.files.join(format!("{}.json", side.name()))
}

/// nginx, which answers 1 KiB from memory.
fn server(args: &Args) -> Result<Running> {
    let files = args.files.display();
    let body = "m".repeat(1024);
    let config = format!(
        "daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid {files}/nginx.pid; error_log stderr error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off; keepalive_requests 1000000000; keepalive_timeout 600s; default_type text/plain;\n\
           client_body_temp_path {files}/nginx-body; proxy_temp_path {files}/nginx-proxy;\n\
           fastcgi_temp_path {files}/nginx-fastcgi; uwsgi_temp_path {files}/nginx-uwsgi; scgi_temp_path {files}/nginx-scgi;\n\
           server {{\n\
             listen {PORT} backlog=4096;\n\
             location = /who {{ return 200 \"$http_x_forwarded_client_cert\"; }}\n\
             location / {{ return 200 \"{body}\"; }}\n\
           }}\n\
         }}\n"
    );
    let path = args.files.join("nginx.conf");
    fs::write(&path, config)?;
    let mut command = Command::new("nginx");
    command
        .arg("-c")
        .arg(&path)
        .arg("-p")
        .arg(&args.files)
        .args(["-e", "stderr"]);
    let mut running = Running::start(SERVER_SPACE, &mut command, &args.files.join("nginx.log"))?;
    until(|| {
        running.check()?;
        net::get(CLIENT_SPACE, SocketAddr::from((SERVER, PORT)), "bench", "/").map(drop)
    })?;
    Ok(running)
}

/// Tries until it works, ten seconds at most.
fn until(mut attempt: impl FnMut() -> Result<()>) -> Result<()> {
    let begin = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(()),
            Err(error) if begin.elapsed() > Duration::from_secs(10) => return Err(error.context("after ten seconds")),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// A number of each side.
#[derive(Debug, Clone, Copy)]
struct Both {
    client: f64,
    server: f64,
}

impl Both {
    fn larger(self) -> f64 {
        self.client.max(self.server)
    }
}

/// A phase under load.
#[derive(Debug)]
struct Phase {
    load: Load,
    cpu: Both,
    resident: Both,
}

impl Phase {
    /// Seconds per 10,000 requests.
    fn cost(&self, of: impl Fn(Both) -> f64) -> f64 {
        of(self.cpu) * 10_000.0 / self.load.requests.max(1.0)
    }
}

/// The two sidecars.
struct Pair {
    client: Running,
    server: Running,
}

impl Pair {
    fn start(args: &Args, plane: Plane) -> Result<Self> {
        let start = |side: Side| {
            let log = args.files.join(format!("{}-{}.log", plane.name(), side.name()));
            Running::start(side.space(), &mut command(args, plane, side), &log)
        };
        let mut pair = Self {
            server: start(Side::Server)?,
            client: start(Side::Client)?,
        };
        for side in Side::ALL {
            let (address, path) = plane.ready();
            let ready = until(|| {
                pair.side(side).check()?;
                let answer = net::get(side.space(), address, "bench", path)?;
                ensure!(answer.status == 200, "{path}: {} {}", answer.status, answer.body.trim());
                Ok(())
            });
            if let Err(error) = ready {
                let words = pair.side(side).last_words();
                bail!("the {}'s sidecar does not get ready: {error:#}\n{words}", side.name());
            }
        }
        Ok(pair)
    }

    fn side(&mut self, side: Side) -> &mut Running {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    fn resident(&self) -> Result<Both> {
        Ok(Both {
            client: self.client.resident()?,
            server: self.server.resident()?,
        })
    }

    fn cpu(&self) -> Result<Both> {
        Ok(Both {
            client: self.client.cpu()?,
            server: self.server.cpu()?,
        })
    }

    fn under(&mut self, args: &Args, connections: u32, time: Duration) -> Result<Phase> {
        let before = self.cpu()?;
        let mut most = self.resident()?;
        let load = wrk::run(&args.files, SERVICE.into(), connections, time, || {
            self.client.check()?;
            self.server.check()?;
            let now = self.resident()?;
            most = Both {
                client: most.client.max(now.client),
                server: most.server.max(now.server),
            };
            Ok(())
        })?;
        let after = self.cpu()?;
        Ok(Phase {
            load,
            cpu: Both {
                client: after.client - before.client,
                server: after.server - before.server,
            },
            resident: most,
        })
    }
}

fn command(args: &Args, plane: Plane, side: Side) -> Command {
    let mut command = Command::new(args.files.join(plane.name()));
    command.env_clear().uid(SIDECAR_USER).gid(SIDECAR_USER).current_dir("/");
    let workers = args.workers.to_string();
    match plane {
        Plane::Mizzen => {
            let file = |name: &str| args.files.join(name).into_os_string();
            command
                .args([
                    "proxy",
                    "sidecar",
                    "--domain",
                    &format!("{NAMESPACE}.svc.cluster.local"),
                ])
                .args(["--concurrency", &workers])
                .envs(environment(side))
                .env("MIZZEN_TOKEN_FILE", file("token"))
                .env("MIZZEN_ROOT_FILE", file("root.pem"))
                .env("MIZZEN_LABELS_FILE", file("labels"));
        }
        Plane::Envoy => {
            command.arg("--config-path").arg(config_of(args, side)).args([
                "--concurrency",
                &workers,
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ]);
        }
    }
    command
}

/// What injection sets.
fn environment(side: Side) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("POD_NAME", format!("{}-1", side.name())),
        ("POD_NAMESPACE", NAMESPACE.to_owned()),
        ("SERVICE_ACCOUNT", side.name().to_owned()),
        ("INSTANCE_IP", side.address().to_string()),
        ("TRUST_DOMAIN", TRUST_DOMAIN.to_owned()),
        ("CA_ADDR", CONTROL.to_owned()),
        ("ISTIO_META_WORKLOAD_NAME", side.name().to_owned()),
        ("ISTIO_META_CLUSTER_ID", "Kubernetes".to_owned()),
        ("PROXY_CONFIG", format!("{{\"discoveryAddress\":\"{CONTROL}\"}}")),
    ])
}
