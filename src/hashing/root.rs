//! Roots: Argon2id hashes (RFC 9106) of secrets, made in a bounded pool of their own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use super::random;
use crate::domain::key_text::SecretBytes;

/// How much one root costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootCost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Default for RootCost {
    /// What OWASP's Password Storage Cheat Sheet recommends at the least: 19 MiB and two passes.
    fn default() -> Self {
        Self {
            memory_kib: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
        }
    }
}

/// Makes roots, a few at a time.
#[derive(Clone)]
pub struct Roots {
    argon2: Argon2<'static>,
    width: usize,
    /// One permit for each root that may be in the making or waiting for its turn.
    admitted: Arc<Semaphore>,
    /// One permit for each core.
    running: Arc<Semaphore>,
    /// The memory that each core works in, kept from root to root: an allocator that gets 19 MiB back keeps them too, and
    /// for every thread that ever had some.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    made: Arc<AtomicU64>,
}

/// So many roots are being made that this one was not begun.
#[derive(Debug, thiserror::Error)]
#[error("too many keys are being made at once")]
pub struct RootsBusy;

impl Roots {
    /// How many roots may wait for each one that is being made.
    const WAITING_PER_CORE: usize = 256;

    /// A pool as wide as the machine.
    ///
    /// # Errors
    /// A sentence that says which cost Argon2 does not know.
    pub fn new(cost: RootCost) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let params = Params::new(cost.memory_kib, cost.passes, Params::DEFAULT_P_COST, None)
            .map_err(|error| format!("the cost of the Argon2 roots is not possible: {error}"))?;
        Ok(Self {
            width: cores,
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            admitted: Arc::new(Semaphore::new(cores * (1 + Self::WAITING_PER_CORE))),
            running: Arc::new(Semaphore::new(cores)),
            memory: Arc::default(),
            made: Arc::default(),
        })
    }

    /// Makes the root of a secret, a PHC string with a salt of its own, when its turn comes.
    ///
    /// # Errors
    /// At once, if too many wait already.
    pub async fn make(&self, secret: Arc<SecretBytes>) -> Result<String, RootsBusy> {
        let _admitted = self.admitted.try_acquire().map_err(|_| RootsBusy)?;
        let turn = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let roots = self.clone();
        self.made.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || {
            let _turn = turn;
            let mut memory = roots.memory().pop().unwrap_or_default();
            let root = roots
                .hash(&secret, &mut memory)
                .expect("Argon2 hashes 32 bytes with parameters it has accepted");
            roots.memory().push(memory);
            root
        })
        .await
        .map_err(|_| RootsBusy)
    }

    fn hash(
        &self,
        secret: &SecretBytes,
        memory: &mut Vec<Block>,
    ) -> argon2::password_hash::Result<String> {
        let params = self.argon2.params();
        memory.resize(params.block_count(), Block::new());
        let salt = Salt::new(&random::<16>())?;
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        self.argon2
            .hash_password_into_with_memory(secret.expose(), &salt, &mut output, memory)?;
        let root = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(params)?,
            salt: Some(salt),
            hash: Some(Output::new(&output)?),
        };
        Ok(root.to_string())
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Block>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are made at the same time.
    pub fn width(&self) -> usize {
        self.width
    }

    /// How many were made since the start.
    pub fn made(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    const LEAST: RootCost = RootCost {
        memory_kib: 8,
        passes: 1,
    };

    #[tokio::test]
    async fn a_root_proves_its_secret_and_no_other() {
        let roots = Roots::new(LEAST).unwrap();
        let root = roots
            .make(Arc::new(SecretBytes::new([3; 32])))
            .await
            .unwrap();
        let root = PasswordHash::new(&root).unwrap();
        assert!(Argon2::default().verify_password(&[3; 32], &root).is_ok());
        assert!(Argon2::default().verify_password(&[4; 32], &root).is_err());
        assert_eq!(roots.made(), 1);
    }

    #[tokio::test]
    async fn memory_is_kept_for_each_core_and_no_more() {
        let roots = Roots::new(LEAST).unwrap();
        let making = (0..64).map(|byte| {
            let (roots, secret) = (roots.clone(), Arc::new(SecretBytes::new([byte; 32])));
            tokio::spawn(async move { roots.make(secret).await.unwrap() })
        });
        let mut made = std::collections::HashSet::new();
        for root in making.collect::<Vec<_>>() {
            made.insert(root.await.unwrap());
        }
        assert_eq!(made.len(), 64, "each has a salt of its own");
        let cores = std::thread::available_parallelism().unwrap().get();
        let kept = roots.memory();
        assert!(kept.len() <= cores && kept.iter().all(|memory| memory.len() == 8));
    }

    #[tokio::test]
    async fn a_full_pool_says_so_at_once() {
        let roots = Roots::new(LEAST).unwrap();
        let _all = roots
            .admitted
            .try_acquire_many(roots.admitted.available_permits() as u32)
            .unwrap();
        assert!(
            roots
                .make(Arc::new(SecretBytes::new([3; 32])))
                .await
                .is_err()
        );
    }

    #[test]
    fn the_default_cost_is_what_owasp_recommends() {
        assert_eq!(
            RootCost::default(),
            RootCost {
                memory_kib: 19_456,
                passes: 2
            }
        );
        assert!(
            Roots::new(RootCost {
                memory_kib: 1,
                passes: 1
            })
            .is_err()
        );
    }
}
