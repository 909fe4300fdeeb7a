//! What may differ between test servers.

use crate::tls::Certificate;

/// Whether the server waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// `fsync = off`: quick, and still safe against the death of any process, which is all that tests do to it.
    #[default]
    Process,
    /// `fsync = on`, as in production: for anything that is measured.
    Disk,
}

/// Settings of one server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Whether it waits for the disk.
    pub durability: Durability,
    /// Server certificate; `Some` switches TLS on.
    pub certificate: Option<Certificate>,
    /// The server's limit.
    pub max_connections: u32,
    /// Further lines of `postgresql.conf`: name and value.
    pub settings: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            durability: Durability::default(),
            certificate: None,
            max_connections: 60,
            settings: Vec::new(),
        }
    }
}

impl Options {
    /// With one more line of `postgresql.conf`; a later line of the same name wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The whole settings file.
    pub(super) fn file(&self, port: u16) -> String {
        let max_connections = self.max_connections.to_string();
        let fsync = match self.durability {
            Durability::Process => "off",
            Durability::Disk => "on",
        };
        let ssl = if self.certificate.is_some() { "on" } else { "off" };
        let port = port.to_string();
        let own = [
            ("listen_addresses", "127.0.0.1"),
            ("port", &port),
            ("unix_socket_directories", ""),
            ("max_connections", &max_connections),
            ("shared_buffers", "16MB"),
            ("max_wal_size", "1GB"),
            ("fsync", fsync),
            ("ssl", ssl),
            // In the data folder instead of /dev/shm: gone with it, whatever happens.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        let own = own.into_iter();
        let given = self
            .settings
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        let lines = own
            .chain(given)
            .map(|(name, value)| format!("{name} = '{}'", value.replace('\'', "''")));
        lines.collect::<Vec<_>>().join(
            "
",
        ) + "
"
    }
}
