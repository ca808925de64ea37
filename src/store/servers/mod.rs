//! The servers of one database, of which the primary is used: all connections of the process lead to one server.
//!
//! Each new connection asks its server who it is. A server with a higher timeline than any before was promoted: it is used from then
//! on, and connections to others are given up. A lower timeline is that of a server that was replaced, which is never used again.
//! When the server that is used does not answer, all URLs are tried at once.

mod choice;
mod identity;

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use super::driver::{late, unreachable, watched, within};
use super::{DatabaseUrls, OpenError};
use choice::Choice;
pub(super) use identity::{ConnectError, timeline};
use identity::{Identity, Refusal, has_own_session};

/// The longest time to wait for a server with a higher timeline, when one that may be used has answered.
const GRACE: Duration = Duration::from_millis(250);

/// The servers of one database.
pub(super) struct Servers {
    all: Vec<Server>,
    /// The time in which each server must answer.
    deadline: Duration,
    choice: watch::Sender<Choice>,
}

/// A server, or what an address leads to.
struct Server {
    options: PgConnectOptions,
    /// Whether no pooler is before it.
    is_direct: AtomicBool,
    /// Why it was not used when it was asked last, so that each reason is logged once.
    refusal: Mutex<Option<Refusal>>,
}

/// The reasons why no server can be used.
#[derive(Debug)]
pub(super) struct NoPrimary(Vec<(String, ConnectError)>);

/// What a server answers, with its place among the URLs.
type Answer = (usize, Result<Identity, ConnectError>);

impl Servers {
    /// How many times the deadline a server may take for its first answer.
    pub(super) const STEPS: u32 = 4;

    /// The servers at these URLs.
    ///
    /// # Errors
    /// If a URL is not valid or not secure.
    pub(super) fn new(urls: &DatabaseUrls, deadline: Duration) -> Result<Arc<Self>, OpenError> {
        let servers = urls.iter().map(|url| {
            Ok(Server {
                options: watched(url.options()?, deadline),
                is_direct: AtomicBool::new(false),
                refusal: Mutex::default(),
            })
        });
        Ok(Arc::new(Self {
            all: servers.collect::<Result<_, OpenError>>()?,
            deadline,
            choice: watch::Sender::new(Choice::default()),
        }))
    }

    /// The time in which each server must answer.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// How often a server was chosen. A connection that was made before the last time must not be used any more.
    pub(super) fn generation(&self) -> u64 {
        self.choice.borrow().generation
    }

    /// Waits until another server was chosen than at this generation.
    pub(super) async fn moved(&self, generation: u64) {
        let mut choice = self.choice.subscribe();
        // Its sender is here.
        let _ = choice
            .wait_for(|choice| choice.generation != generation)
            .await;
    }

    /// Tries all servers at once and chooses the primary, within `limit`. When one that may be used has answered, the others have only a
    /// short time; one that answers later is used nevertheless if its timeline is higher. A single server is asked only the first time,
    /// because each connection asks it.
    ///
    /// # Errors
    /// If no server can be used.
    pub(super) async fn choose(self: &Arc<Self>, limit: Duration) -> Result<(), NoPrimary> {
        if self.all.len() == 1 && self.choice.borrow().is_made() {
            return Ok(());
        }
        let mut answers = self.ask(0..self.all.len());
        let mut end = Instant::now() + limit;
        // Of a lease, of which `limit` is at most a third, it is at most a tenth.
        let grace = GRACE.min(limit * 3 / 10);
        let mut found = Vec::new();
        let mut reasons: Vec<_> = self.all.iter().map(|_| None).collect();
        while let Ok(Some((server, answer))) = timeout_at(end, answers.recv()).await {
            let judged = answer.and_then(|answer| {
                self.choice.borrow().judge(server, &answer)?;
                Ok(answer)
            });
            match judged {
                Ok(identity) => {
                    found.push((server, identity));
                    end = end.min(Instant::now() + grace);
                }
                Err(reason) => reasons[server] = Some(reason),
            }
        }
        if self.settle(&found) {
            return Ok(());
        }
        let named = self.all.iter().zip(reasons);
        let named = named.map(|(server, reason)| {
            let late = || ConnectError::Driver(late(limit));
            (server.name(), reason.unwrap_or_else(late))
        });
        Err(NoPrimary(named.collect()))
    }

    /// Asks all servers that are not used, in the background, whether one of them was promoted. It is used then.
    pub(super) fn look_around(self: &Arc<Self>) {
        let used = self.choice.borrow().server;
        drop(self.ask((0..self.all.len()).filter(|server| *server != used)));
    }

    /// Connects to the server that is used, with further settings of the session. Returns the connection and its generation. The caller
    /// has to end an attempt that takes too long.
    ///
    /// # Errors
    /// If the server cannot be reached, is not the primary of this authority any more, or another one was chosen meanwhile.
    pub(super) async fn connect(
        &self,
        settings: &[(&'static str, String)],
    ) -> Result<(PgConnection, u64), ConnectError> {
        let (server, generation) = {
            let choice = self.choice.borrow();
            (choice.server, choice.generation)
        };
        let options = self.all[server].options.clone();
        let options = options.options(settings.iter().map(|(name, value)| (*name, value.as_str())));
        let connecting = async {
            let mut connection = options.connect().await?;
            let identity = Identity::of(&mut connection).await?;
            Ok::<_, ConnectError>((connection, identity))
        };
        let (connection, identity) = tokio::select! {
            connected = connecting => connected?,
            () = self.moved(generation) => return Err(ConnectError::Moved),
        };
        self.admit(server, &identity)?;
        let choice = self.choice.borrow();
        if choice.server != server {
            return Err(ConnectError::Moved);
        }
        Ok((connection, choice.generation))
    }

    /// Asks every server who it is, and returns why those that cannot be used cannot. A standby is not among them: it is there for a
    /// failover.
    pub(super) async fn examine(self: &Arc<Self>) -> Vec<(String, String)> {
        let mut answers = self.ask(0..self.all.len());
        let mut unusable: Vec<_> = self
            .all
            .iter()
            .map(|server| (server.name(), late(self.deadline).to_string()))
            .map(Some)
            .collect();
        let end = Instant::now() + self.deadline * Self::STEPS;
        while let Ok(Some((server, answer))) = timeout_at(end, answers.recv()).await {
            let judged = answer.and_then(|found| Ok(self.choice.borrow().judge(server, &found)?));
            unusable[server] = match judged {
                Ok(_) | Err(ConnectError::Refused(Refusal::Standby)) => None,
                Err(reason) => Some((self.all[server].name(), reason.to_string())),
            };
        }
        unusable.into_iter().flatten().collect()
    }

    /// Asks servers who they are, each in a task of its own that goes on when nobody waits for the answers.
    fn ask(
        self: &Arc<Self>,
        which: impl Iterator<Item = usize>,
    ) -> mpsc::UnboundedReceiver<Answer> {
        let (sender, answers) = mpsc::unbounded_channel();
        for server in which {
            let (servers, sender) = (Arc::clone(self), sender.clone());
            tokio::spawn(async move {
                let answer = servers.all[server].identity(servers.deadline).await;
                match &answer {
                    // Before the first choice, the caller compares all answers.
                    Ok(identity) if servers.choice.borrow().is_made() => {
                        let _ = servers.admit(server, identity);
                    }
                    Err(ConnectError::Refused(refusal)) => {
                        servers.all[server].note(Some(*refusal));
                    }
                    _ => {}
                }
                // Nobody may wait for it any more.
                let _ = sender.send((server, answer));
            });
        }
        answers
    }

    /// Takes note of what a server says, which is used from now on if its timeline is higher than any before.
    fn admit(&self, server: usize, found: &Identity) -> Result<(), Refusal> {
        let mut admitted = Ok(());
        self.change(|choice| admitted = choice.admit(server, found));
        self.all[server].note(admitted.err());
        admitted
    }

    /// Chooses among the servers that have answered. Returns whether one of them can be used.
    fn settle(&self, found: &[(usize, Identity)]) -> bool {
        let mut is_settled = false;
        self.change(|choice| is_settled = choice.settle(found));
        for (server, found) in found {
            let judged = self.choice.borrow().judge(*server, found);
            self.all[*server].note(judged.err());
        }
        is_settled
    }

    /// Changes the choice, and logs it if another server than before is used.
    fn change(&self, change: impl FnOnce(&mut Choice)) {
        let mut before = Choice::default();
        let is_changed = self.choice.send_if_modified(|choice| {
            before = choice.clone();
            change(choice);
            choice.generation != before.generation
        });
        if is_changed && before.is_made() {
            tracing::warn!(
                server = self.all[self.choice.borrow().server].name(),
                before = self.all[before.server].name(),
                "another server of the database has become the primary; connecting anew"
            );
        }
    }
}

impl Server {
    /// Its address, for messages.
    fn name(&self) -> String {
        let port = self.options.get_port();
        match self.options.get_socket() {
            Some(socket) => format!("{}:{port}", socket.display()),
            None => format!("{}:{port}", self.options.get_host()),
        }
    }

    /// Asks who it is, on a connection of its own. Each step has the deadline.
    async fn identity(&self, deadline: Duration) -> Result<Identity, ConnectError> {
        let mut connection = within(deadline, self.options.connect()).await?;
        if !self.is_direct.load(Ordering::Relaxed) {
            if !has_own_session(&mut connection, &self.options, deadline).await? {
                return Err(Refusal::Pooled.into());
            }
            self.is_direct.store(true, Ordering::Relaxed);
        }
        let asked = within(deadline, async { Ok(Identity::of(&mut connection).await) });
        let identity = asked.await??;
        let _ = within(deadline, connection.close()).await;
        Ok(identity)
    }

    /// Logs why it is not used, unless that was logged before.
    fn note(&self, refusal: Option<Refusal>) {
        let mut last = self.refusal.lock().unwrap_or_else(PoisonError::into_inner);
        let before = std::mem::replace(&mut *last, refusal);
        if let Some(refusal) = refusal.filter(|now| now.is_alarming() && before != Some(*now)) {
            tracing::error!(server = self.name(), reason = %refusal, "server of the database not used");
        }
    }
}

impl fmt::Display for NoPrimary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(reasons) = self;
        if let [(_, reason)] = &reasons[..] {
            return reason.fmt(f);
        }
        f.write_str("no server of --database-url is the primary of this authority")?;
        for (at, (server, reason)) in reasons.iter().enumerate() {
            let before = if at == 0 { ": " } else { "; " };
            write!(f, "{before}{server}: {reason}")?;
        }
        Ok(())
    }
}

impl std::error::Error for NoPrimary {}

impl From<NoPrimary> for sqlx::Error {
    fn from(error: NoPrimary) -> Self {
        std::io::Error::other(error).into()
    }
}

impl From<NoPrimary> for OpenError {
    fn from(error: NoPrimary) -> Self {
        let NoPrimary(reasons) = &error;
        let is_of_configuration = |reason: &ConnectError| matches!(reason, ConnectError::Refused(refusal) if refusal.is_of_configuration());
        if reasons
            .iter()
            .all(|(_, reason)| is_of_configuration(reason))
        {
            return Self::Unfit(error.to_string());
        }
        match &reasons[..] {
            [(_, ConnectError::Driver(error))] => unreachable(error),
            _ => Self::Unreachable(error.to_string()),
        }
    }
}
