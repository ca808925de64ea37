//! Roots: Argon2id hashes (RFC 9106) of secrets, computed in a bounded pool.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use tokio::sync::Semaphore;

use super::random;
use crate::domain::key_text::SecretBytes;

/// The cost of one root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RootCost {
    /// The memory, in KiB.
    pub memory_kib: u32,
    /// The number of passes over the memory.
    pub passes: u32,
}

impl Default for RootCost {
    /// Returns the minimum that OWASP's Password Storage Cheat Sheet recommends: 19 MiB and two passes.
    fn default() -> Self {
        Self {
            memory_kib: Params::DEFAULT_M_COST,
            passes: Params::DEFAULT_T_COST,
        }
    }
}

/// A pool that computes a limited number of roots at the same time.
#[derive(Clone)]
pub struct Roots {
    argon2: Argon2<'static>,
    width: usize,
    /// One permit for each core.
    running: Arc<Semaphore>,
    /// The working memory of each core. It is reused for later roots, because an allocator would also keep the 19 MiB, and
    /// would keep them for every thread that ever computed a root.
    memory: Arc<Mutex<Vec<Vec<Block>>>>,
    made: Arc<AtomicU64>,
}

impl Roots {
    /// Creates a pool with the parallelism of the machine.
    ///
    /// # Errors
    /// The flag whose value Argon2 does not support, and the limit.
    pub fn new(cost: RootCost) -> Result<Self, String> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let params = Params::new(cost.memory_kib, cost.passes, Params::DEFAULT_P_COST, None)
            .map_err(|error| match error {
                argon2::Error::MemoryTooLittle => {
                    format!(
                        "--argon2-memory must be at least {} KiB",
                        Params::MIN_M_COST
                    )
                }
                argon2::Error::TimeTooSmall => {
                    format!("--argon2-passes must be at least {}", Params::MIN_T_COST)
                }
                other => format!("the cost of the Argon2 roots is not valid: {other}"),
            })?;
        Ok(Self {
            width: cores,
            argon2: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            running: Arc::new(Semaphore::new(cores)),
            memory: Arc::default(),
            made: Arc::default(),
        })
    }

    /// Computes the root of a secret when a core is free. The root is a PHC string with a random salt.
    pub async fn make(&self, secret: Arc<SecretBytes>) -> String {
        let permit = Arc::clone(&self.running)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let roots = self.clone();
        self.made.fetch_add(1, Ordering::Relaxed);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut memory = roots.memory().pop().unwrap_or_default();
            let root = roots
                .hash(&secret, &mut memory)
                .expect("Argon2 hashes 32 bytes with accepted parameters");
            roots.memory().push(memory);
            root
        })
        .await
        .expect("the hash does not panic")
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

    /// Returns how many roots are computed at the same time.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns how many roots were computed since the start.
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
        let root = roots.make(Arc::new(SecretBytes::new([3; 32]))).await;
        let root = PasswordHash::new(&root).unwrap();
        assert!(Argon2::default().verify_password(&[3; 32], &root).is_ok());
        assert!(Argon2::default().verify_password(&[4; 32], &root).is_err());
        assert_eq!(roots.made(), 1);
    }

    #[tokio::test]
    async fn memory_is_kept_for_at_most_one_root_on_each_core() {
        let roots = Roots::new(LEAST).unwrap();
        let making = (0..64).map(|byte| {
            let (roots, secret) = (roots.clone(), Arc::new(SecretBytes::new([byte; 32])));
            tokio::spawn(async move { roots.make(secret).await })
        });
        let mut made = std::collections::HashSet::new();
        for root in making.collect::<Vec<_>>() {
            made.insert(root.await.unwrap());
        }
        assert_eq!(made.len(), 64, "each root has its own salt");
        let cores = std::thread::available_parallelism().unwrap().get();
        let kept = roots.memory();
        assert!(kept.len() <= cores && kept.iter().all(|memory| memory.len() == 8));
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
    }

    #[test]
    fn the_error_for_a_cost_below_the_limit_names_the_flag_and_the_limit() {
        let error = |memory_kib, passes| Roots::new(RootCost { memory_kib, passes }).err();
        assert_eq!(
            error(7, 1).as_deref(),
            Some("--argon2-memory must be at least 8 KiB")
        );
        assert_eq!(
            error(8, 0).as_deref(),
            Some("--argon2-passes must be at least 1")
        );
        assert_eq!(error(8, 1), None);
    }
}
