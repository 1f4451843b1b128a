//! Places the programs that the shield hands packets on to, each feature of theirs as far as the kernel takes it.
//!
//! Invariants: what a kernel refuses is missing alone; why is kept in the pinned table ABSENT, so that `status` and a
//! reload know it without loading anything; nothing is handed on to a program that is missing, because rules that would
//! need one are refused.

use aya::{Ebpf, maps::ProgramArray, programs::ProgramError};
use edge_common::abi::{Code, Feature, feature::WHY_BYTES};

use super::{
    KernelError, Pins, ShieldTables,
    loader::{self, Verdicts},
    mapped::Mapped,
    services::text,
    tables,
};

/// A program that packets are handed on to.
#[derive(Debug, Clone, Copy)]
pub struct Handed {
    /// As the kernel lists it.
    pub name: &'static str,
    /// What hands packets on to it.
    pub code: Code,
    /// What is missing without it; nothing works without those of none.
    pub feature: Option<Feature>,
}

/// All of them.
pub const HANDED: [Handed; Code::PROGRAMS as usize] = [
    handed("admit", Code::ADMIT, None),
    handed("steer", Code::STEER, Some(Feature::Steering)),
    handed("translate", Code::TRANSLATE, Some(Feature::Translation)),
    handed("challenge", Code::CHALLENGE, Some(Feature::Cookies)),
    handed("verify", Code::VERIFY, Some(Feature::Cookies)),
];

const fn handed(name: &'static str, code: Code, feature: Option<Feature>) -> Handed {
    Handed { name, code, feature }
}

/// Whether all programs of a feature were accepted by this kernel.
pub fn has(ebpf: &Ebpf, feature: Feature) -> bool {
    HANDED
        .iter()
        .filter(|handed| handed.feature == Some(feature))
        .all(|handed| {
            ebpf.program(handed.name)
                .is_some_and(|program| program.fd().is_ok())
        })
}

/// Puts them where the shield finds them, as far as the verifier took them; writes down what is missing.
pub(super) fn place(ebpf: &mut Ebpf, pins: &Pins, mut verdicts: Verdicts) -> Result<(), KernelError> {
    let absent: Mapped<[u8; WHY_BYTES]> = Mapped::new(&tables::open(pins, "ABSENT")?)?;
    let mut missing = [const { None }; Feature::COUNT as usize];
    for handed in HANDED {
        let error = match verdicts.remove(handed.name) {
            Some(Err(error)) => error,
            Some(Ok(())) => {
                place_one(ebpf, handed)?;
                continue;
            }
            None => return Err(loader::lacks(handed.name)),
        };
        let Some(feature) = handed.feature else {
            return Err(KernelError::program("loading the program")(error));
        };
        missing[feature as usize].get_or_insert_with(|| format!("program {}: {}", handed.name, why(&error)));
    }
    for feature in Feature::ALL {
        let words = missing[feature as usize].take().unwrap_or_default();
        if !words.is_empty() {
            tracing::warn!(
                why = words,
                "no {} on this kernel; the rest works",
                feature.name()
            );
        }
        absent.set(feature as u32, kept(&words));
    }
    Ok(())
}

/// Puts a loaded program where packets are handed on to it.
fn place_one(ebpf: &mut Ebpf, handed: Handed) -> Result<(), KernelError> {
    let fd = loader::program(ebpf, handed.name)?
        .fd()
        .map_err(KernelError::program("finding the program"))?;
    let fd = fd.try_clone().map_err(KernelError::io("keeping the program"))?;
    let map = ebpf
        .map_mut("PROGRAMS")
        .ok_or_else(|| KernelError::Unsupported("the object lacks the map PROGRAMS".into()))?;
    let mut programs = ProgramArray::try_from(map).map_err(KernelError::map("PROGRAMS"))?;
    match handed.code.handed() {
        Some(index) => programs.set(index, &fd, 0).map_err(KernelError::map("PROGRAMS")),
        None => Ok(()),
    }
}

/// One line on why a program was refused: the system's word, and the last of the verifier's before its sum.
pub(super) fn why(error: &ProgramError) -> String {
    let ProgramError::LoadError {
        io_error,
        verifier_log,
    } = error
    else {
        return error.to_string();
    };
    let log = verifier_log.to_string();
    match complaint(&log) {
        Some(line) => format!("{io_error}: {line}"),
        None => io_error.to_string(),
    }
}

/// The last line of a verifier's log before its figures (kernel/bpf/verifier.c, `print_verification_stats`).
fn complaint(log: &str) -> Option<&str> {
    const FIGURES: [&str; 3] = ["processed ", "stack depth ", "verification time "];
    log.lines()
        .rev()
        .map(str::trim)
        .find(|line| !line.is_empty() && !FIGURES.iter().any(|figure| line.starts_with(figure)))
}

/// As much of the text as there is room for.
fn kept(words: &str) -> [u8; WHY_BYTES] {
    let mut bytes = [0; WHY_BYTES];
    let end = words.floor_char_boundary(WHY_BYTES - 1);
    bytes[..end].copy_from_slice(&words.as_bytes()[..end]);
    bytes
}

impl ShieldTables {
    /// Why the kernel lacks a feature; nothing if it has it.
    pub fn why_absent(&self, feature: Feature) -> Option<String> {
        let bytes = self.absent.get(feature as u32)?;
        Some(text(&bytes)).filter(|words| !words.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_that_packets_are_handed_on_to_has_its_program() {
        let mut places: Vec<_> = HANDED.iter().filter_map(|handed| handed.code.handed()).collect();
        places.sort_unstable();
        assert_eq!(places, (0..Code::PROGRAMS).collect::<Vec<_>>());
    }

    #[test]
    fn the_complaint_is_the_last_line_before_the_figures() {
        let log = "12: (85) call unknown#204\ninvalid func unknown#204\nverification time 37 usec\nstack depth 96+0\n\
                   processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 0 peak_states 0 mark_read 0\n\n";
        assert_eq!(complaint(log), Some("invalid func unknown#204"));
        assert_eq!(complaint(""), None);
        assert_eq!(complaint("processed 1 insns (limit 1000000)\n"), None);
    }

    #[test]
    fn what_is_kept_ends_with_a_zero_and_between_characters() {
        let long = "é".repeat(WHY_BYTES);
        let bytes = kept(&long);
        assert_eq!(bytes[WHY_BYTES - 1], 0);
        let back = text(&bytes);
        assert!(long.starts_with(&back) && back.len() >= WHY_BYTES - 3, "{back}");
        assert_eq!(text(&kept("")), "");
        assert_eq!(text(&kept("no helper")), "no helper");
    }
}
