//! Runs a server under a watchdog: started, waited for, started again when it dies, stopped.
//!
//! The watchdog is a small shell script in a process group of its own, so that Ctrl-C in a terminal does not reach it.
//! It stops its server when the pipe to this process closes: by [`Kept::stop`], or by the system however this process
//! ends. So nothing is left running after `kill -9` of this process or its whole group.

use std::ffi::OsString;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::home::User;
use crate::{Error, Restarts};

const WATCHDOG: &str = include_str!("watchdog.sh");
const JANITOR: &str = include_str!("janitor.sh");
/// How long a server may take to answer after its start; a recovery after a crash reads up to 2 GB of log.
const START: Duration = Duration::from_secs(120);
/// How long it may take to stop before it is killed.
const STOP: Duration = Duration::from_secs(30);
/// How long the processes of a server that died may take to notice it.
const ORPHANS: Duration = Duration::from_millis(300);
/// Starts on different ports: the port that was free may be taken by the time the server binds it.
const PORTS: usize = 5;
const POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));
/// A log that is longer at a start is put aside as `<log>.old`.
const LONG_LOG: u64 = 16 << 20;

/// How a server is run.
pub(crate) trait Server: Send + Sync + 'static {
    const NAME: &'static str;
    /// Signals that stop it, gently and at once.
    const SIGNALS: [Signal; 2];

    /// Program and arguments with which it listens at the port.
    fn command(&self, port: u16) -> Result<(PathBuf, Vec<OsString>), Error>;
    fn user(&self) -> Option<User>;
    /// The file with its process id, and what stands in the command line of the process that wrote it.
    fn pid_file(&self) -> (PathBuf, PathBuf);
    /// The folder that its processes work in, where there are several of them, and what their command lines contain.
    fn processes(&self) -> Option<(PathBuf, &'static str)> {
        None
    }
    /// Sockets and their lock files that a process left which is gone.
    fn socket_files(&self) -> Vec<PathBuf> {
        Vec::new()
    }
    fn log(&self) -> PathBuf;
    /// Whether this very server answers at the port; else why not.
    fn probe(&self, port: u16) -> impl Future<Output = Result<(), String>> + Send;
    /// How it is to be stopped: whether it need not keep anything.
    fn is_disposable(&self) -> bool;
}

/// A watchdog and the pipe that keeps it from stopping its server; waiting for a child would close its pipe.
struct Watchdog {
    child: Child,
    pipe: Option<ChildStdin>,
}

/// A running server that is started again, on the same port, when it dies.
pub(crate) struct Kept {
    pub port: u16,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Kept {
    /// Starts the server at a free port and keeps it running; `failed` is cancelled when it is given up.
    pub async fn start<S: Server>(
        server: S,
        janitor: Option<Janitor>,
        failed: CancellationToken,
    ) -> Result<Self, Error> {
        stop_leftover(&server).await?;
        let mut attempt = 1;
        let (port, watchdog) = loop {
            let port = free_port()?;
            match start(&server, port, janitor.as_ref()).await {
                Ok(watchdog) => break (port, watchdog),
                Err(error @ Error::NotStarted { .. }) if attempt < PORTS => {
                    tracing::warn!(server = S::NAME, %error, attempt, "starting again");
                    attempt += 1;
                    sleep(Duration::from_millis(200)).await;
                }
                Err(error) => return Err(error),
            }
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(server, port, watchdog, janitor, stop.clone(), failed));
        Ok(Self { port, stop, task })
    }

    /// Stops the server and waits for its end.
    pub async fn stop(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

async fn keep<S: Server>(
    server: S,
    port: u16,
    mut watchdog: Watchdog,
    janitor: Option<Janitor>,
    stop: CancellationToken,
    failed: CancellationToken,
) {
    let mut restarts = Restarts::default();
    loop {
        let Some(status) = stop.run_until_cancelled(watchdog.child.wait()).await else { break };
        tracing::error!(server = S::NAME, status = %shown(status), "the server ended");
        watchdog = loop {
            let Some(pause) = restarts.next(Instant::now()) else {
                tracing::error!(server = S::NAME, log = %server.log().display(), "the server is given up");
                return failed.cancel();
            };
            let again = async {
                sleep(pause).await;
                stop_leftover(&server).await?;
                start(&server, port, janitor.as_ref()).await
            };
            match stop.run_until_cancelled(again).await {
                None => return,
                Some(Ok(watchdog)) => break watchdog,
                Some(Err(error)) => tracing::error!(server = S::NAME, %error, "the server did not start again"),
            }
        };
        tracing::warn!(server = S::NAME, port, "the server was started again");
    }
    drop(watchdog.pipe.take());
    if timeout(STOP * 2, watchdog.child.wait()).await.is_err() {
        tracing::error!(server = S::NAME, "the server did not stop");
    }
}

async fn start<S: Server>(server: &S, port: u16, janitor: Option<&Janitor>) -> Result<Watchdog, Error> {
    let mut watchdog = launch(server, port)?;
    if let Some(janitor) = janitor {
        janitor.wait_for(&watchdog.child).await?;
    }
    let failed = |reason| Error::NotStarted { server: S::NAME, reason, log: server.log() };
    let deadline = Instant::now() + START;
    let mut pause = POLL.0;
    loop {
        let Err(reason) = server.probe(port).await else { return Ok(watchdog) };
        if Instant::now() > deadline {
            // Dropping the pipe has the watchdog stop it.
            return Err(failed(format!("no answer in {} s: {reason}", START.as_secs())));
        }
        if let Ok(status) = timeout(pause, watchdog.child.wait()).await {
            return Err(failed(format!("{}{}", shown(status), last_lines(&server.log()))));
        }
        pause = (pause * 2).min(POLL.1);
    }
}

fn launch<S: Server>(server: &S, port: u16) -> Result<Watchdog, Error> {
    let path = server.log();
    if fs::metadata(&path).is_ok_and(|log| log.len() > LONG_LOG) {
        let _ = fs::rename(&path, path.with_extension("log.old"));
    }
    let open = || File::options().create(true).append(true).open(&path).map_err(Error::io("write to", &path));
    let (program, arguments) = server.command(port)?;
    let [soft, hard] = S::SIGNALS.map(|signal| signal.as_str().trim_start_matches("SIG"));
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script(WATCHDOG), S::NAME, if server.is_disposable() { hard } else { soft }, hard]);
    command.arg(STOP.as_secs().to_string()).arg(&program).args(arguments);
    command.stdin(Stdio::piped()).stdout(open()?).stderr(open()?).process_group(0).current_dir("/");
    if let Some(user) = server.user() {
        command.uid(user.uid).gid(user.gid);
    }
    clean_environment(&mut command);
    let mut child = command.spawn().map_err(Error::io("start", &program))?;
    let pipe = child.stdin.take();
    Ok(Watchdog { child, pipe })
}

/// Without comments, so that the process list stays readable.
fn script(text: &str) -> String {
    text.lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect()
}

/// Takes away what would lead PostgreSQL's programs elsewhere.
pub(crate) fn clean_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PG")) {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C");
}

fn shown(status: std::io::Result<ExitStatus>) -> String {
    status.map_or_else(|error| error.to_string(), |status| format!("ended with {status}"))
}

fn last_lines(log: &Path) -> String {
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<_> = text.lines().rev().take(3).collect();
    lines.into_iter().rev().map(|line| format!("\n  {line}")).collect()
}

fn free_port() -> Result<u16, Error> {
    let address = (Ipv4Addr::LOCALHOST, 0);
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map(|address| address.port()).map_err(Error::io("listen at", "127.0.0.1"))
}

/// Ends a server that an earlier process left, or whose watchdog is just stopping it.
async fn stop_leftover<S: Server>(server: &S) -> Result<(), Error> {
    let (file, mark) = server.pid_file();
    let Some(pid) = leftover(&file, &mark) else {
        end_orphans(server).await;
        return remove_locks(server, file);
    };
    tracing::warn!(server = S::NAME, %pid, "stopping one that was left running");
    for signal in S::SIGNALS.into_iter().chain([Signal::SIGKILL]) {
        let _ = kill(pid, signal);
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if !runs(pid, &mark) {
                return Ok(());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Error::NotStarted { server: S::NAME, reason: format!("process {pid} cannot be stopped"), log: server.log() })
}

/// Ends processes whose server is gone. PostgreSQL's notice it when they wait the next time, and until the last one has ended no
/// other server starts in the folder.
async fn end_orphans<S: Server>(server: &S) {
    let Some((folder, mark)) = server.processes() else { return };
    let began = Instant::now();
    loop {
        let orphans = working_in(&folder, mark);
        if orphans.is_empty() || began.elapsed() > STOP {
            return;
        }
        if began.elapsed() > ORPHANS {
            tracing::warn!(server = S::NAME, ?orphans, "ending what it left");
            for pid in orphans {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Processes in this folder whose command line contains the mark, as far as the system tells.
fn working_in(folder: &Path, mark: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let in_folder =
        processes.filter(|process| fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == folder));
    let pids = in_folder.filter_map(|process| process.file_name().to_str()?.parse().ok());
    pids.filter(|pid| is_running(*pid, mark)).map(Pid::from_raw).collect()
}

/// The process that wrote them is gone, and another may have its id now.
fn remove_locks<S: Server>(server: &S, pid_file: PathBuf) -> Result<(), Error> {
    for file in server.socket_files().into_iter().chain([pid_file]) {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::io("remove", &file)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The process whose id is the file's first line, if it runs and its command line contains the mark.
fn leftover(file: &Path, mark: &Path) -> Option<Pid> {
    let text = fs::read_to_string(file).ok()?;
    let pid = text.lines().next()?.trim().parse::<i32>().ok().filter(|pid| *pid > 1)?;
    runs(Pid::from_raw(pid), mark).then_some(Pid::from_raw(pid))
}

fn runs(pid: Pid, mark: &Path) -> bool {
    is_running(pid.as_raw(), &mark.to_string_lossy())
}

/// Whether the process runs and its command line contains the mark: its id alone may be another's by now.
pub fn is_running(pid: i32, mark: &str) -> bool {
    let line = match fs::read(format!("/proc/{pid}/cmdline")) {
        Ok(line) => line,
        Err(_) if Path::new("/proc/self").exists() => return false,
        Err(_) => {
            let output = std::process::Command::new("ps").args(["-ww", "-o", "args=", "-p", &pid.to_string()]).output();
            output.map(|output| output.stdout).unwrap_or_default()
        }
    };
    String::from_utf8_lossy(&line).contains(mark)
}

/// Removes folders when this process and the servers have ended.
#[derive(Clone)]
pub(crate) struct Janitor(std::sync::Arc<tokio::sync::Mutex<Child>>);

impl Janitor {
    pub fn start(folders: &[PathBuf]) -> Result<Self, Error> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", &script(JANITOR), "janitor"]).args(folders).current_dir("/").process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().map_err(Error::io("start", "/bin/sh"))?;
        Ok(Self(std::sync::Arc::new(tokio::sync::Mutex::new(child))))
    }

    /// Has it wait for the child's end too.
    async fn wait_for(&self, child: &Child) -> Result<(), Error> {
        use tokio::io::AsyncWriteExt as _;
        let mut janitor = self.0.lock().await;
        let (Some(pipe), Some(pid)) = (janitor.stdin.as_mut(), child.id()) else { return Ok(()) };
        pipe.write_all(format!("{pid}\n").as_bytes()).await.map_err(Error::io("write to", "the janitor"))
    }

    /// Has it remove the folders now; the servers have stopped.
    pub async fn finish(&self) {
        let mut janitor = self.0.lock().await;
        drop(janitor.stdin.take());
        let _ = timeout(STOP * 2, janitor.wait()).await;
    }
}
