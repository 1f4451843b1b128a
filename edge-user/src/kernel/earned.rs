//! Exact limiter state for sources that earned it, by completing a handshake with the gateway.

use std::{collections::HashSet, net::IpAddr};

use edge_common::abi::{Addr, Earned, hint};

use super::{KernelError, ShieldTables};

impl ShieldTables {
    /// Gives `source` exact state, unless it has it. Returns whether it has it now; a full table gives none.
    ///
    /// # Errors
    /// The table cannot be written.
    pub fn earn(&mut self, source: IpAddr) -> Result<bool, KernelError> {
        let addr = Addr::from(source);
        let bits = hint::host_prefix(addr.family());
        let host = addr.masked(bits);
        let seen = self.clock.now() as u32;
        let state = match self.earned.get(&host, 0) {
            // Rewriting the cells would race with the program; an entry is left as it is.
            Ok(_) => return Ok(true),
            Err(_) => Earned { cells: [0; 3], seen },
        };
        let (word, shift) = hint::place(hint::prefix(&host, bits, &self.params), &self.params);
        match self.earned.insert(host, state, 0) {
            Ok(()) => {
                self.hints.set_bits(word, hint::EARNED << shift);
                Ok(true)
            }
            Err(aya::maps::MapError::SyscallError(_)) => Ok(false),
            Err(error) => Err(KernelError::map("writing EARNED")(error)),
        }
    }

    /// Forgets every earned source but those of `recent`, with their hints.
    pub fn forget_earned(&mut self, recent: &HashSet<IpAddr>) {
        let keep: HashSet<Addr> = recent
            .iter()
            .map(|source| {
                let addr = Addr::from(*source);
                addr.masked(hint::host_prefix(addr.family()))
            })
            .collect();
        let all: Vec<Addr> = self.earned.keys().flatten().collect();
        let place = |host: &Addr| {
            hint::place(
                hint::prefix(host, hint::host_prefix(host.family()), &self.params),
                &self.params,
            )
        };
        let needed: HashSet<(u32, u32)> = all.iter().filter(|host| keep.contains(host)).map(place).collect();
        let gone: Vec<Addr> = all.into_iter().filter(|host| !keep.contains(host)).collect();
        for host in &gone {
            let at = place(host);
            if !needed.contains(&at) {
                self.hints.clear_bits(at.0, hint::EARNED << at.1);
            }
        }
        for host in &gone {
            _ = self.earned.remove(host);
        }
    }

    /// Number of sources with exact state.
    pub fn count_earned(&self) -> usize {
        self.earned.keys().flatten().count()
    }
}
