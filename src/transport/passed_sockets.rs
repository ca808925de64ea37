//! Sockets that systemd has opened (socket activation): file descriptors from 3 on, which `LISTEN_FDS` counts and `LISTEN_FDNAMES`
//! names, as `sd_listen_fds_with_names(3)` describes.

use std::io;

use listenfd::ListenFd;

use super::Listener;

/// Sockets that this process was started with, each with its name.
pub struct PassedSockets(Vec<(String, Listener)>);

impl PassedSockets {
    /// Takes the sockets that this process was started with. Usually there are none.
    ///
    /// # Errors
    /// A message for the user, if a descriptor is no socket on which connections arrive.
    pub fn take() -> Result<Self, String> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut descriptors = ListenFd::from_env();
        let count = descriptors.len();
        let take = |index| {
            let name = names.next().unwrap_or_default();
            let listener = listener(&mut descriptors, index).map_err(|error| {
                format!(
                    "the socket `{name}` that this process was started with cannot be used: {error}; use ListenStream= in its unit"
                )
            })?;
            if !listener.is_listening() {
                return Err(format!(
                    "the socket `{name}` that this process was started with does not listen: use ListenStream= and Accept=no in its unit"
                ));
            }
            Ok((name.to_owned(), listener))
        };
        let sockets = (0..count).map(take);
        sockets.collect::<Result<_, _>>().map(Self)
    }

    /// Takes the socket with this name.
    pub fn named(&mut self, name: &str) -> Option<Listener> {
        let index = self.0.iter().position(|(found, _)| found == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// The name of a socket that nobody has taken.
    pub fn left(&self) -> Option<&str> {
        self.0.first().map(|(name, _)| name.as_str())
    }
}

fn listener(descriptors: &mut ListenFd, index: usize) -> io::Result<Listener> {
    if let Ok(Some(listener)) = descriptors.take_tcp_listener(index) {
        listener.set_nonblocking(true)?;
        return Ok(Listener::Tcp(listener));
    }
    let listener = descriptors.take_unix_listener(index)?;
    let listener = listener.ok_or(io::ErrorKind::NotFound)?;
    listener.set_nonblocking(true)?;
    Ok(Listener::Unix(listener))
}
