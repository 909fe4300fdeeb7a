//! Loopback ports that nobody else in our tests uses.

use anyhow::bail;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};
use tokio::net::TcpSocket;

/// Below the range that Linux gives to outgoing connections, so that none of those can take one from us.
const FIRST: u16 = 16_000;
const COUNT: u16 = 16_000;

/// A port on 127.0.0.1, ours until dropped, whether something listens on it or not.
///
/// The claim is a socket in the abstract Unix namespace: it holds across processes and users, in exactly the network
/// namespace where the port counts, and ends with the process, however that ends.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _claim: UnixListener,
}

impl Port {
    /// Claims a port on which nobody listens.
    pub fn claim() -> anyhow::Result<Self> {
        // Start at different places in different processes: fewer tries.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
        let start = std::process::id().wrapping_mul(131) as u16;
        for _ in 0..COUNT {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let number = FIRST + start.wrapping_add(step) % COUNT;
            let name = SocketAddr::from_abstract_name(format!("confiture-test-port-{number}"))?;
            let Ok(claim) = UnixListener::bind_addr(&name) else {
                continue;
            };
            if is_free(number)? {
                return Ok(Self {
                    number,
                    _claim: claim,
                });
            }
        }
        bail!("no free port between {FIRST} and {}", FIRST + COUNT);
    }

    /// The number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// Whether nobody listens there.
///
/// We do not listen to find out: a process that is being started just then holds a copy of our socket until it runs
/// its own program, and the port would be taken for that moment. A socket that is only bound is in nobody's way.
fn is_free(number: u16) -> std::io::Result<bool> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    Ok(socket.bind((Ipv4Addr::LOCALHOST, number).into()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::{Port, is_free};
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn a_port_is_free_until_somebody_listens() -> anyhow::Result<()> {
        let port = Port::claim()?;
        assert!(is_free(port.number())?);
        let _listening = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number()))?;
        assert!(!is_free(port.number())?);
        Ok(())
    }
}
