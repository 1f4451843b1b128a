//! TLS at a listener: which certificate for which name, who vouches for clients, sessions, and new files.
//!
//! One [`Terminator`] a listener. What handshakes need is one immutable `ServerConfig`, swapped whole when files have
//! changed; a handshake that has begun keeps the one it began with. Sessions are resumed by tickets whose keys rotate
//! and never leave the process; there is no early data, which could be replayed.

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    server::{
        ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier,
        danger::ClientCertVerifier,
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::config::{
    ClientCertificates, ListenerTls, TlsVersion, UnknownName,
    certificate::{self, Name, PairFault},
};

pub(crate) mod handshake;
pub(crate) mod watch;

/// Tickets sent after a TLS 1.3 handshake: one is what a client uses next, and each costs a write.
const TICKETS: usize = 1;

/// Why the files of a listener cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsFault {
    /// A certificate or its key.
    #[error(transparent)]
    Pair(#[from] PairFault),
    /// The authorities for client certificates.
    #[error("{0}")]
    Authorities(String),
    /// rustls refuses the settings.
    #[error("TLS settings: {0}")]
    Settings(#[from] rustls::Error),
}

/// What ends TLS for one listener.
pub(crate) struct Terminator {
    listener: String,
    settings: ListenerTls,
    config: ArcSwap<ServerConfig>,
    /// The tickets of the configuration in force, and the authorities they were issued under.
    tickets: Mutex<Tickets>,
}

type Tickets = (Arc<dyn ProducesTickets>, Vec<u8>);

impl Terminator {
    /// Reads the files of a listener. Tickets of `previous` stay good if the same is asked of clients.
    ///
    /// # Errors
    /// Files that do not hold what they must.
    pub(crate) fn new(
        listener: &str,
        settings: ListenerTls,
        previous: Option<&Self>,
    ) -> Result<Self, TlsFault> {
        let authorities = authority_bytes(&settings);
        let before = previous
            .filter(|previous| previous.settings.client_certificates == settings.client_certificates)
            .map(|previous| previous.tickets.lock().unwrap_or_else(PoisonError::into_inner))
            .filter(|tickets| tickets.1 == authorities)
            .map(|tickets| Arc::clone(&tickets.0));
        let ticketer = match before {
            Some(same) => same,
            None => aws_lc_rs::Ticketer::new()?,
        };
        let tickets: Tickets = (ticketer, authorities);
        let config = build(&settings, Arc::clone(&tickets.0), SystemTime::now())?;
        Ok(Self {
            listener: listener.to_owned(),
            settings,
            config: ArcSwap::from_pointee(config),
            tickets: Mutex::new(tickets),
        })
    }

    /// The listener's name.
    pub(crate) fn listener(&self) -> &str {
        &self.listener
    }

    /// What was configured.
    pub(crate) fn settings(&self) -> &ListenerTls {
        &self.settings
    }

    /// What a handshake that begins now uses.
    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.load_full()
    }

    /// Reads every file again, and uses what is in them from now on; all of it, or nothing.
    ///
    /// # Errors
    /// Files that do not hold what they must; what was in force stays so.
    pub(crate) fn reload(&self, now: SystemTime) -> Result<(), TlsFault> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let authorities = authority_bytes(&self.settings);
        // Whoever was vouched for by an authority that is gone must not come back by a ticket.
        let fresh = if authorities == tickets.1 {
            Arc::clone(&tickets.0)
        } else {
            aws_lc_rs::Ticketer::new()?
        };
        let config = build(&self.settings, Arc::clone(&fresh), now)?;
        self.config.store(Arc::new(config));
        *tickets = (fresh, authorities);
        Ok(())
    }

    /// Every file that it is made from.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.settings.certificates.iter();
        pairs
            .flat_map(|pair| [&pair.certificate_file, &pair.key_file])
            .chain(self.settings.client_certificates.ca_file())
    }
}

impl fmt::Debug for Terminator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminator")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// What is in the file of authorities; what cannot be read is told by [`build`].
fn authority_bytes(settings: &ListenerTls) -> Vec<u8> {
    let file = settings.client_certificates.ca_file();
    file.and_then(|path| std::fs::read(path).ok()).unwrap_or_default()
}

fn build(
    settings: &ListenerTls,
    tickets: Arc<dyn ProducesTickets>,
    now: SystemTime,
) -> Result<ServerConfig, TlsFault> {
    let versions: &[&rustls::SupportedProtocolVersion] = match settings.minimum {
        TlsVersion::Tls12 => &[&TLS12, &TLS13],
        TlsVersion::Tls13 => &[&TLS13],
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let builder = match &settings.client_certificates {
        ClientCertificates::None => builder.with_no_client_auth(),
        ClientCertificates::Optional(path) => builder.with_client_cert_verifier(verifier(path, true)?),
        ClientCertificates::Required(path) => builder.with_client_cert_verifier(verifier(path, false)?),
    };
    let mut config = builder.with_cert_resolver(Arc::new(Certificates::load(settings, now)?));
    config.alpn_protocols = if settings.http2 {
        vec![b"h2".to_vec(), b"http/1.1".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = tickets;
    config.send_tls13_tickets = TICKETS;
    config.max_early_data_size = 0;
    Ok(config)
}

fn verifier(path: &std::path::Path, optional: bool) -> Result<Arc<dyn ClientCertVerifier>, TlsFault> {
    let roots = certificate::authorities(path).map_err(|fault| TlsFault::Authorities(fault.message))?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if optional {
        builder.allow_unauthenticated()
    } else {
        builder
    };
    builder
        .build()
        .map_err(|error| TlsFault::Authorities(error.to_string()))
}

/// Certificates by the name that a client asks for.
#[derive(Debug)]
struct Certificates {
    exact: HashMap<String, Arc<CertifiedKey>>,
    wildcard: HashMap<String, Arc<CertifiedKey>>,
    /// For everything else; `None` refuses it.
    default: Option<Arc<CertifiedKey>>,
}

impl Certificates {
    fn load(settings: &ListenerTls, now: SystemTime) -> Result<Self, PairFault> {
        let mut certificates = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            default: None,
        };
        for files in &settings.certificates {
            let pair = certificate::load(files, now)?;
            if certificates.default.is_none() && settings.unknown_name == UnknownName::Default {
                certificates.default = Some(Arc::clone(&pair.key));
            }
            for name in pair.names {
                let (names, host) = match name {
                    Name::Exact(host) => (&mut certificates.exact, host),
                    Name::Wildcard(host) => (&mut certificates.wildcard, host),
                };
                names.entry(host).or_insert_with(|| Arc::clone(&pair.key));
            }
        }
        Ok(certificates)
    }

    /// The certificate for a name in lower case: exact, then one label below a wildcard, then the default.
    fn find(&self, name: Option<&str>) -> Option<&Arc<CertifiedKey>> {
        let found = name.and_then(|name| {
            let parent = name.split_once('.').map(|(_, parent)| parent);
            self.exact.get(name).or_else(|| self.wildcard.get(parent?))
        });
        found.or(self.default.as_ref())
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls hands names on in lower case.
        self.find(hello.server_name()).cloned()
    }
}
