//! Callers that make calls without a pause, and what they are answered.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::fmt::{self, Display, Formatter};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::{self, Runtime};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::roles::Role;
use crate::abuse::connection::Connection;
use crate::fixtures::Program;

/// The address of the attackers, 127.0.0.x: who attacks takes the limits of an address from nobody else.
const ATTACKER: u8 = 2;

/// The calls on one connection, of which a client may have a hundred in flight.
const CALLS_ON_A_CONNECTION: usize = 90;

type Call = dyn Fn(Connection, u32) -> BoxFuture<'static, Result<(), Status>> + Send + Sync;

/// A call that is made again and again.
pub(super) struct Attack {
    pub(super) name: &'static str,
    /// How many of these calls are made at the same time.
    pub(super) at_once: usize,
    /// Makes the call. Each has a number of its own.
    pub(super) call: Arc<Call>,
    /// What some of the calls must be answered.
    pub(super) answer: Code,
    /// Whether the server may close the connection instead of an answer.
    pub(super) may_be_closed: bool,
    /// Whether all calls may be refused because there are too many of them.
    pub(super) may_be_too_many: bool,
}

impl Attack {
    pub(super) fn new<F>(
        name: &'static str,
        at_once: usize,
        call: impl Fn(Connection, u32) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        Self {
            name,
            at_once,
            call: Arc::new(move |connection, number| call(connection, number).boxed()),
            answer: Code::Ok,
            may_be_closed: false,
            may_be_too_many: false,
        }
    }

    /// The same request each time.
    pub(super) fn repeat(method: &'static str, at_once: usize, request: Vec<u8>) -> Self {
        Self::with_number(method, at_once, move |_| request.clone())
    }

    /// Another request for each number.
    pub(super) fn with_number(
        method: &'static str,
        at_once: usize,
        request: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        Self::new(method, at_once, move |connection, number| {
            let request = request(number);
            async move { connection.call(method, &request).await }
        })
    }

    /// The same with a refusal as the answer of each.
    pub(super) fn refused(self, answer: Code) -> Self {
        Self { answer, ..self }
    }

    /// The same for calls that share a small limit with the other attacks of the role.
    pub(super) fn limited(self) -> Self {
        Self {
            may_be_too_many: true,
            ..self
        }
    }

    /// The same without a proven key: a body that is sent after its refusal may end the connection.
    pub(super) fn unproven(self) -> Self {
        Self {
            answer: Code::Unauthenticated,
            may_be_closed: true,
            ..self
        }
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// The code of the answer, and the reason of a refusal.
    Answered(i32, String),
    /// The server closed the connection.
    Closed,
}

/// The number of calls with each outcome.
type Outcomes = BTreeMap<Outcome, usize>;

/// Attackers at work, on a thread that takes no processor from the server.
pub(super) struct Attackers {
    attacks: Vec<Running>,
    runtime: Option<Runtime>,
}

struct Running {
    name: &'static str,
    answer: Code,
    may_be_closed: bool,
    may_be_too_many: bool,
    outcomes: Arc<Mutex<Outcomes>>,
}

impl Attackers {
    pub(super) fn start(program: &Program, role: &Role) -> Self {
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(|| {
                // The server's threads for administration have the nice value 10. Attackers without it would take the processors from
                // them, which no queue of the server can mend.
                rustix::process::setpriority_process(None, 10).unwrap();
            })
            .enable_all()
            .build()
            .unwrap();
        let guard = runtime.enter();
        let start = |attack: &Attack| {
            let outcomes = Arc::default();
            let numbers = Arc::default();
            let mut connection = Connection::from(program, ATTACKER, role.key.clone());
            for caller in 1..=attack.at_once {
                let call = Arc::clone(&attack.call);
                let (numbers, outcomes) = (Arc::clone(&numbers), Arc::clone(&outcomes));
                runtime.spawn(repeat(call, connection.clone(), numbers, outcomes));
                if caller % CALLS_ON_A_CONNECTION == 0 {
                    connection = Connection::from(program, ATTACKER, role.key.clone());
                }
            }
            Running {
                name: attack.name,
                answer: attack.answer,
                may_be_closed: attack.may_be_closed,
                may_be_too_many: attack.may_be_too_many,
                outcomes,
            }
        };
        let attacks = role.attacks.iter().map(start).collect();
        drop(guard);
        Self {
            attacks,
            runtime: Some(runtime),
        }
    }

    /// Whether a call of each attack had the answer that it must have.
    pub(super) fn got_through(&self) -> bool {
        self.attacks.iter().all(Running::got_through)
    }

    /// Ends the calls, and returns what is wrong: an attack that did not get through, or a call that was refused for another reason
    /// than their number.
    pub(super) fn end(self) -> Vec<String> {
        self.attacks.iter().filter_map(Running::wrong).collect()
    }
}

impl Drop for Attackers {
    fn drop(&mut self) {
        // A test must not wait for its calls.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Running {
    fn got_through(&self) -> bool {
        let outcomes = self.outcomes.lock().unwrap();
        outcomes.keys().any(|outcome| {
            outcome.is(self.answer) || self.may_be_too_many && outcome.is(Code::ResourceExhausted)
        })
    }

    fn wrong(&self) -> Option<String> {
        let name = self.name;
        let outcomes = self.outcomes.lock().unwrap().clone();
        let shown = outcomes.iter().map(|(outcome, n)| format!("{n} {outcome}"));
        println!("  {name}: {}", shown.collect::<Vec<_>>().join(", "));
        let is_wrong = |outcome: &Outcome| match outcome {
            Outcome::Closed => !self.may_be_closed,
            // Of many lists, some wait for a permit as long as a call may take.
            // A search beside them takes longer than it may.
            Outcome::Answered(_, reason) => {
                ![self.answer, Code::ResourceExhausted, Code::DeadlineExceeded]
                    .iter()
                    .any(|code| outcome.is(*code))
                    && reason != "FILTER_TOO_BROAD"
            }
        };
        let wrong: Vec<_> = outcomes
            .keys()
            .filter(|outcome| is_wrong(outcome))
            .collect();
        if !wrong.is_empty() {
            return Some(format!("{name}: {wrong:?}"));
        }
        (!self.got_through()).then(|| format!("{name}: never {:?}", self.answer))
    }
}

impl Outcome {
    fn of(answer: Result<(), Status>) -> Self {
        match answer {
            Ok(()) => Self::Answered(Code::Ok as i32, String::new()),
            Err(status) if status.source().is_some() => Self::Closed,
            Err(status) => {
                let details = status.get_error_details();
                let reason = details.error_info().map(|info| info.reason.clone());
                let message = || status.message().to_owned();
                Self::Answered(status.code() as i32, reason.unwrap_or_else(message))
            }
        }
    }

    fn is(&self, answer: Code) -> bool {
        matches!(self, Self::Answered(code, _) if *code == answer as i32)
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed"),
            Self::Answered(code, reason) => match Code::from_i32(*code) {
                Code::Ok => f.write_str("OK"),
                code => write!(f, "{code:?} ({reason})"),
            },
        }
    }
}

async fn repeat(
    call: Arc<Call>,
    connection: Connection,
    numbers: Arc<AtomicU32>,
    outcomes: Arc<Mutex<Outcomes>>,
) {
    loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let outcome = Outcome::of(call(connection.clone(), number).await);
        *outcomes.lock().unwrap().entry(outcome).or_default() += 1;
    }
}
