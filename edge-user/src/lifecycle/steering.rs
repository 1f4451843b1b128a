//! Direct services while the daemon runs (checks of their backends), and the verbs about them.
//!
//! What is found out is written into the pinned maps, so it holds when the daemon is gone. One task a backend; each
//! also keeps the backend's neighbour known, which the kernel's look-up of routes needs and does not ask for.

use std::{
    fmt::Write as _,
    net::{IpAddr, SocketAddr, UdpSocket},
    num::NonZeroU16,
    path::Path,
    time::Duration,
};

use edge_common::abi::{Addr, Feature};
use tokio::task::JoinSet;

use super::{LifecycleError, verbs};
use crate::{
    cli::{Format, ServiceRequest, SteerRequest},
    config::{HealthCheck, Nat, PortRange, Service, Shield},
    kernel::{
        KernelError, Pins, ShieldTables,
        steering::{BackendReport, Change, DirectReport},
    },
    upstream::{
        check::{Streak, probe},
        jitter::Jitter,
    },
};

/// How often a neighbour is asked for whose backend has no checks.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// Where an empty datagram is thrown away (RFC 863).
const DISCARD: u16 = 9;

/// Checks that backends can be reached and that the kernel looks up routes for what arrives.
///
/// # Errors
/// A backend that no route leads to, or forwarding switched off.
pub(super) fn prepare(shield: &Shield, services: &[Service]) -> Result<(), KernelError> {
    for (service, direct) in services
        .iter()
        .filter_map(|service| Some((service, service.direct.as_ref()?)))
    {
        if let Some(nat) = &direct.nat {
            answers_come_here(&service.name, nat)?;
        }
        for backend in &direct.backends {
            ask_for(backend.address).map_err(|_| KernelError::Unreachable {
                service: service.name.clone(),
                backend: backend.address,
            })?;
            for interface in &shield.interfaces {
                forwards(interface, backend.address)?;
            }
        }
    }
    Ok(())
}

/// Checks that this kernel runs the program that steers, if a service is direct.
///
/// # Errors
/// It does not; names the first of the services.
pub(super) fn require(services: &[Service], tables: &ShieldTables) -> Result<(), KernelError> {
    let direct = services.iter().find(|service| service.direct.is_some());
    match (direct, tables.why_absent(Feature::Steering)) {
        (Some(service), Some(why)) => Err(KernelError::CannotSteer {
            service: service.name.clone(),
            why,
        }),
        _ => Ok(()),
    }
}

/// Looks for a route, and has the stack ask for the neighbour on it.
fn ask_for(backend: IpAddr) -> std::io::Result<()> {
    let any: IpAddr = if backend.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect((backend, DISCARD))?;
    // Only that it is sent matters: the neighbour is asked for on the way.
    let _ = socket.send(&[]);
    Ok(())
}

/// Checks that backends' answers come to this machine, and that its own stack does not use the same ports.
fn answers_come_here(service: &str, nat: &Nat) -> Result<(), KernelError> {
    UdpSocket::bind((nat.source, 0)).map_err(|_| KernelError::NatSource {
        service: service.to_owned(),
        address: nat.source,
    })?;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|word| word.parse().ok());
    // What cannot be read is not known to be wrong.
    let (Some(low), Some(high)) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    let own = PortRange { low, high };
    if own.overlaps(&nat.ports) {
        return Err(KernelError::NatPorts {
            service: service.to_owned(),
            ports: nat.ports,
            own,
        });
    }
    Ok(())
}

/// `bpf_fib_lookup` answers for interfaces that forward alone (net/core/filter.c, `bpf_ipv4_fib_lookup`).
fn forwards(interface: &str, backend: IpAddr) -> Result<(), KernelError> {
    let family = if backend.is_ipv4() { "ipv4" } else { "ipv6" };
    let path = format!("/proc/sys/net/{family}/conf/{interface}/forwarding");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim() == "0" => Err(KernelError::NotForwarding {
            interface: interface.to_owned(),
            setting: format!("net.{family}.conf.{interface}.forwarding"),
        }),
        // What cannot be read is not known to be wrong.
        _ => Ok(()),
    }
}

/// Checks the backends of all direct services until the answer is dropped.
pub(super) fn watch(services: &[Service], pins: &Pins) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for service in services {
        let Some(direct) = &service.direct else { continue };
        for backend in &direct.backends {
            let place = Place {
                service: service.name.clone(),
                address: backend.address,
                pins: pins.clone(),
            };
            match &direct.health {
                Some(check) => tasks
                    .spawn(place.check(check.clone(), backend.port.map_or(service.port, NonZeroU16::get))),
                None => tasks.spawn(place.keep()),
            };
        }
    }
    tasks
}

#[derive(Clone)]
struct Place {
    service: String,
    address: IpAddr,
    pins: Pins,
}

impl Place {
    async fn keep(self) {
        loop {
            if let Err(error) = ask_for(self.address) {
                tracing::debug!(service = self.service, backend = %self.address, %error, "no way to the backend");
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }

    async fn check(self, check: HealthCheck, port: u16) {
        let to = SocketAddr::new(self.address, check.port.unwrap_or(port));
        let mut streak = Streak::default();
        let seed = Addr::from(self.address);
        let mut jitter = Jitter::new(seed.high() ^ seed.low() ^ u64::from(port));
        loop {
            let result = probe(to, &check).await;
            if let Some(up) = streak.note(result.is_ok(), &check) {
                let why = result.err().map(|bad| bad.to_string()).unwrap_or_default();
                let place = self.clone();
                // Elsewhere: the lock may be held by a reload, which goes on in this thread.
                let told = tokio::task::spawn_blocking(move || place.tell(up, &why)).await;
                if !told.unwrap_or(false) {
                    // The next check counts at once, and is told anew.
                    streak = Streak::default();
                }
            }
            tokio::time::sleep(check.interval + jitter.within(check.interval)).await;
        }
    }

    /// Writes the state down; whether it could.
    fn tell(&self, up: bool, why: &str) -> bool {
        let (service, backend) = (&self.service, self.address);
        match self.change(up) {
            Ok(true) if up => tracing::info!(service, %backend, "the backend is up"),
            Ok(true) => tracing::warn!(service, %backend, why, "the backend is down"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(service, %backend, %error, "could not change the backend's state");
                return false;
            }
        }
        true
    }

    fn change(&self, up: bool) -> Result<bool, KernelError> {
        let lock = self.pins.lock()?;
        ShieldTables::open(&self.pins)?.change_backend(&lock, &self.service, self.address, Change::Up(up))
    }
}

/// `breakwater service …`.
///
/// # Errors
/// Nothing is attached, or there is no such service or backend.
pub fn service(request: &ServiceRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let pins = Pins::new(bpffs);
    let tables = ShieldTables::open(&pins)?;
    match request {
        ServiceRequest::List { format } => {
            let reports = tables.direct_reports()?;
            match format {
                Format::Json => verbs::json(&reports),
                Format::Text => Ok(table(&reports)),
            }
        }
        ServiceRequest::Drain {
            service,
            backend,
            drained,
        } => {
            let changed =
                tables.change_backend(&pins.lock()?, service, *backend, Change::Drained(*drained))?;
            let what = if *drained {
                "gets no new connections"
            } else {
                "gets new connections"
            };
            let already = if changed { "" } else { " already" };
            Ok(format!("{backend} of {service}{already} {what}"))
        }
    }
}

/// The direct services with their backends.
pub(super) fn table(reports: &[DirectReport]) -> String {
    if reports.is_empty() {
        return "no service is direct".into();
    }
    let mut out = String::new();
    for report in reports {
        let by = if report.affinity == "source" {
            ", by source"
        } else {
            ""
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "service {} ({}{by}, {} places)\n  {}",
            report.service,
            report.forward,
            report.table_size,
            BackendReport::header()
        );
        for backend in &report.backends {
            let _ = writeln!(out, "  {backend}");
        }
    }
    out.truncate(out.trim_end().len());
    out
}

/// `breakwater steer explain`.
///
/// # Errors
/// Nothing is attached, or the question makes no sense.
pub fn steer(request: &SteerRequest, bpffs: &Path) -> Result<String, LifecycleError> {
    let explained = ShieldTables::open(&Pins::new(bpffs))?.explain(&request.question)?;
    match request.format {
        Format::Json => verbs::json(&explained),
        Format::Text => Ok(explained.to_string()),
    }
}
