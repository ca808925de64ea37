//! A server under attack, and a good client beside.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use claviger::pb::claviger::v1::Verdict;

use crate::fixtures::{Api, Engine, Program, TestStore};

/// What the whole siege may cost in memory, in KiB.
const MOST_GROWTH: u64 = 64 * 1024;

/// The process under attack.
pub(super) struct AttackedServer {
    program: Program,
    good: Good,
    /// Its memory before, in KiB, and its answers' times.
    memory: u64,
    calm: Duration,
    _test_store: Arc<TestStore>,
}

/// What an attacker is given: where the server is, and a key, for who abuses it from within.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) address: String,
    pub(super) http: String,
    pub(super) operator: String,
}

impl AttackedServer {
    /// A server with some keys, which has answered for a while.
    pub(super) async fn start() -> Self {
        let test_store = TestStore::on(Engine::Sqlite);
        let program = Program::serve(&test_store, &["--call-timeout", "5s"]);
        let mut api = program.api();
        api.make_demo().await;
        let mut key = String::new();
        for _ in 0..200 {
            key = api.issue().await.plain_key;
        }
        let good = Good { api, key };
        good.asks(Duration::from_secs(1)).await;
        let calm = good.asks(Duration::from_secs(2)).await.p99();
        let memory = program.peak_memory();
        println!("calm: p99 {calm:?}, {memory} KiB");
        Self {
            program,
            good,
            memory,
            calm,
            _test_store: test_store,
        }
    }

    /// Lets an abuser loose, while the good client asks. The abuser says, or panics, what became of it.
    pub(super) async fn under<F>(&mut self, name: &str, abuse: impl Fn(Target) -> F)
    where
        F: Future<Output = String>,
    {
        self.suffer(name, Duration::ZERO, abuse).await;
    }

    /// The same with an abuser that comes back as soon as it is closed, for a while.
    pub(super) async fn under_repeated<F>(&mut self, name: &str, abuse: impl Fn(Target) -> F)
    where
        F: Future<Output = String>,
    {
        self.suffer(name, Duration::from_secs(2), abuse).await;
    }

    async fn suffer<F>(&mut self, name: &str, at_least: Duration, abuse: impl Fn(Target) -> F)
    where
        F: Future<Output = String>,
    {
        let over = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(self.good.clone().asks_until(Arc::clone(&over)));
        let before = self.program.peak_memory();
        let began = Instant::now();
        let target = Target {
            address: self.program.address.clone(),
            http: self.program.http.clone(),
            operator: self.program.operator(),
        };
        let mut outcome = abuse(target.clone()).await;
        let mut times = 1;
        while began.elapsed() < at_least {
            outcome = abuse(target.clone()).await;
            times += 1;
        }
        let took = began.elapsed();
        over.store(true, Ordering::Relaxed);
        let answers = asking.await.unwrap();
        let grown = self.program.peak_memory().saturating_sub(before);
        println!(
            "{name}: {outcome}, {times} x in {took:.1?}; + {grown} KiB; {} good calls, p99 x {:.1}",
            answers.0.len(),
            answers.p99().as_secs_f64() / self.calm.as_secs_f64(),
        );
    }

    pub(super) fn end(self) {
        let grown = self.program.peak_memory() - self.memory;
        println!("in all: + {grown} KiB");
        assert!(grown <= MOST_GROWTH, "it grew by {grown} KiB");
    }
}

/// A client that asks about a good key, one question after the other.
#[derive(Clone)]
struct Good {
    api: Api,
    key: String,
}

/// How long each of its questions took.
struct Answers(Vec<Duration>);

impl Good {
    async fn asks(&self, time: Duration) -> Answers {
        let over = Arc::new(AtomicBool::new(false));
        let asking = tokio::spawn(self.clone().asks_until(Arc::clone(&over)));
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
        asking.await.unwrap()
    }

    async fn asks_until(mut self, over: Arc<AtomicBool>) -> Answers {
        let mut times = Vec::new();
        while !over.load(Ordering::Relaxed) || times.len() < 100 {
            let began = Instant::now();
            assert_eq!(self.api.verdict(&self.key).await, Verdict::Allowed);
            times.push(began.elapsed());
            // Not a load test: a core is left for the abuser.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Answers(times)
    }
}

impl Answers {
    fn p99(&self) -> Duration {
        let mut times = self.0.clone();
        times.sort();
        times[times.len() * 99 / 100]
    }
}
