//! Tests run in processes of their own, several at once: what crashes or hangs ends its process and
//! fails one test. A worker reads one line of JSON a test and answers with one.

use super::{Engine, Kind, Outcome, Test, paths};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// One test on one path.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Work {
    /// The test.
    pub test: Test,
    /// The path.
    pub engine: Engine,
}

/// How tests are run.
#[derive(Clone, Debug)]
pub struct How {
    /// The tier of compiled models; the best of this machine if `None`.
    pub tier: Option<String>,
    /// Processes at once.
    pub jobs: usize,
    /// Time that one test may take on one path.
    pub limit: Duration,
}

/// Runs all of `work` in processes of `program` (this one); outcomes are in the order of `work`.
/// An error means that there is no room for bundles.
pub fn run_all(program: &Path, how: &How, work: &[Work]) -> std::io::Result<Vec<Outcome>> {
    // Ours, so that it goes away with us even if a worker is killed.
    let scratch = tempfile::tempdir()?;
    let next = Mutex::new(0usize);
    let done: Mutex<Vec<Option<Outcome>>> = Mutex::new(vec![None; work.len()]);
    let lock = "no thread panics while it holds this";
    std::thread::scope(|s| {
        for job in 0..how.jobs.max(1) {
            let folder = scratch.path().join(job.to_string());
            std::fs::create_dir(&folder)?;
            let (next, done) = (&next, &done);
            s.spawn(move || {
                let mut worker = None;
                loop {
                    let i = {
                        let mut n = next.lock().expect(lock);
                        *n += 1;
                        *n - 1
                    };
                    let Some(w) = work.get(i) else { break };
                    let outcome = one(program, how, &folder, &mut worker, w);
                    done.lock().expect(lock)[i] = Some(outcome);
                }
            });
        }
        Ok::<_, std::io::Error>(())
    })?;
    let lost = || Outcome::fail(Kind::Crash, "its worker gave no answer");
    let done = done.into_inner().expect(lock);
    Ok(done.into_iter().map(|o| o.unwrap_or_else(lost)).collect())
}

/// A running worker; killed when dropped.
struct Worker {
    child: Child,
    answers: Receiver<String>,
}

impl Worker {
    fn start(program: &Path, how: &How, folder: &Path) -> std::io::Result<Worker> {
        let mut c = Command::new(program);
        c.arg("--worker")
            .arg(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(t) = &how.tier {
            c.args(["--cpu", t]);
        }
        let mut child = c.spawn()?;
        let out = child.stdout.take().ok_or_else(|| std::io::Error::other("no pipe"))?;
        let (send, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Worker { child, answers })
    }

    fn ask(&mut self, w: &Work, limit: Duration) -> Result<Outcome, Outcome> {
        let broken = |e: std::io::Error| Outcome::fail(Kind::Crash, format!("its worker: {e}"));
        let line = serde_json::to_string(w).map_err(|e| broken(e.into()))?;
        let stdin = self.child.stdin.as_mut();
        let stdin = stdin.ok_or_else(|| broken(std::io::Error::other("no pipe")))?;
        writeln!(stdin, "{line}").and_then(|()| stdin.flush()).map_err(broken)?;
        match self.answers.recv_timeout(limit) {
            Ok(answer) => serde_json::from_str(&answer).map_err(|e| broken(e.into())),
            Err(RecvTimeoutError::Timeout) => {
                Err(Outcome::fail(Kind::Timeout, format!("more than {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = self.child.wait().map(|s| s.to_string());
                let status = status.unwrap_or_else(|e| e.to_string());
                Err(Outcome::fail(Kind::Crash, format!("the process ended: {status}")))
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // Already gone is as good.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

fn one(program: &Path, how: &How, folder: &Path, worker: &mut Option<Worker>, w: &Work) -> Outcome {
    if worker.is_none() {
        match Worker::start(program, how, folder) {
            Ok(new) => *worker = Some(new),
            Err(e) => return Outcome::fail(Kind::Crash, format!("no worker can be started: {e}")),
        }
    }
    let answer = worker.as_mut().map(|worker| worker.ask(w, how.limit));
    match answer {
        Some(Ok(o)) => o,
        Some(Err(o)) => {
            *worker = None;
            o
        }
        None => Outcome::fail(Kind::Crash, "no worker"),
    }
}

/// What a worker does: a test for each line of its input, until that ends; bundles are written to
/// `folder`. Fails where it cannot read tests or write answers.
pub fn serve(folder: &Path, tier: Option<&str>) -> std::io::Result<()> {
    std::panic::set_hook(Box::new(|_| {}));
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let w: Work = serde_json::from_str(&line?)?;
        let outcome = paths::run(&w.test, w.engine, tier, folder);
        writeln!(out, "{}", serde_json::to_string(&outcome)?)?;
        out.flush()?;
    }
    Ok(())
}
