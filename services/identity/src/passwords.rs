//! Password hashes: Argon2id, on threads of their own, at most so many at once.

use std::sync::Arc;

use anyhow::anyhow;
use argon2::password_hash::{Error, PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

/// OWASP's parameters for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
/// How many may wait for each thread that hashes: less than a second's work, so that those who wait are still there.
const WAITING_PER_THREAD: usize = 16;

/// Why a password was not looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    /// As many wait as may.
    #[error("too many passwords at once")]
    Busy,
    /// It could not be computed.
    #[error("the password hash failed: {0}")]
    Broken(#[from] anyhow::Error),
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    /// One for each thread that hashes.
    threads: Arc<Semaphore>,
    /// One for each that hashes or waits.
    places: Arc<Semaphore>,
    /// Checked where there is no account, so that both take the same time.
    decoy: Arc<str>,
}

impl Passwords {
    /// Uses at most half of the cores.
    pub fn new() -> anyhow::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self::with_threads((cores / 2).max(1), WAITING_PER_THREAD)
    }

    fn with_threads(threads: usize, waiting_per_thread: usize) -> anyhow::Result<Self> {
        Ok(Self {
            threads: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads * (1 + waiting_per_thread))),
            decoy: hash(&rand::random::<[u8; 32]>())?.into(),
        })
    }

    /// The hash of a new password, as a PHC string.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        Ok(self.run(move || hash(password.as_bytes())).await??)
    }

    /// Whether the password is the one that was hashed; false, and after the same time, where there is no hash.
    pub async fn verify(&self, password: String, hash: Option<String>) -> Result<bool, PasswordError> {
        let known = hash.is_some();
        let hash = hash.map_or_else(|| self.decoy.clone(), Into::into);
        Ok(self.run(move || verify(password.as_bytes(), &hash)).await?? && known)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let thread = self.threads.clone().acquire_owned().await.map_err(anyhow::Error::from)?;
        let task = tokio::task::spawn_blocking(move || {
            // Held by the thread, not by the caller, who may give up before the thread is done.
            let _permits = (place, thread);
            work()
        });
        Ok(task.await.map_err(anyhow::Error::from)?)
    }
}

fn argon2() -> anyhow::Result<Argon2<'static>> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| anyhow!("{error}"))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash(password: &[u8]) -> anyhow::Result<String> {
    Ok(argon2()?.hash_password(password).map_err(|error| anyhow!("{error}"))?.to_string())
}

fn verify(password: &[u8], hash: &str) -> anyhow::Result<bool> {
    match argon2()?.verify_password(password, hash) {
        Ok(()) => Ok(true),
        Err(Error::PasswordInvalid) => Ok(false),
        Err(error) => Err(anyhow!("{error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_password_itself_is_right() {
        let passwords = Passwords::with_threads(1, 1).unwrap();
        let hash = passwords.hash("correct horse".into()).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(passwords.verify("correct horse".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horsf".into(), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify("correct horse".into(), None).await.unwrap());
        assert_ne!(hash, passwords.hash("correct horse".into()).await.unwrap(), "each hash has a salt of its own");
    }

    #[tokio::test]
    async fn beyond_the_places_it_is_busy() {
        let passwords = Arc::new(Passwords::with_threads(1, 2).unwrap());
        let thread = passwords.threads.clone().acquire_owned().await.unwrap();
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.verify("x".into(), None).await })
            })
            .collect();
        while passwords.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert!(matches!(passwords.verify("x".into(), None).await, Err(PasswordError::Busy)));
        drop(thread);
        for task in waiting {
            assert!(!task.await.unwrap().unwrap());
        }
        assert!(!passwords.verify("x".into(), None).await.unwrap());
    }
}
