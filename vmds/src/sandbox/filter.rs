//! The filter of system calls, made of the tables in [`syscalls`](super::syscalls).

use std::collections::BTreeMap;

use libc::c_long;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads,
};

use super::syscalls::{ALLOWED, Argument, HOSTILE, Syscall};

/// Filters the system calls of all threads, and of those to come.
///
/// What nobody but an intruder calls ends the process: somebody should know. Everything else that is not allowed does
/// not exist (ENOSYS), as on a kernel older than the library that tries it: libraries know how to do without.
pub(super) fn apply() -> Result<(), seccompiler::Error> {
    let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
    // Of two filters the stricter answer counts. The allow-list comes last: it does not allow a further one.
    let hostile: Vec<Syscall> = HOSTILE.iter().map(|&number| (number, [].as_slice())).collect();
    apply_filter_all_threads(&program(&hostile, SeccompAction::KillProcess, SeccompAction::Allow)?)?;
    apply_filter_all_threads(&program(ALLOWED, SeccompAction::Allow, missing)?)
}

fn program(
    table: &[Syscall],
    matching: SeccompAction,
    otherwise: SeccompAction,
) -> Result<BpfProgram, BackendError> {
    let rules: Result<BTreeMap<c_long, Vec<SeccompRule>>, BackendError> =
        table.iter().map(|&(number, arguments)| Ok((number, rules(arguments)?))).collect();
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(rules?, otherwise, matching, architecture)?.try_into()
}

/// One rule per combination of allowed values; none if any arguments will do.
fn rules(arguments: &[Argument]) -> Result<Vec<SeccompRule>, BackendError> {
    if arguments.is_empty() {
        return Ok(Vec::new());
    }
    let mut combinations: Vec<Vec<SeccompCondition>> = vec![Vec::new()];
    for argument in arguments {
        let choices = conditions(argument)?;
        let extended = combinations.iter().flat_map(|earlier| {
            choices.iter().map(|choice| earlier.iter().chain([choice]).cloned().collect::<Vec<_>>())
        });
        combinations = extended.collect();
    }
    combinations.into_iter().map(SeccompRule::new).collect()
}

/// Conditions of which one must hold.
fn conditions(argument: &Argument) -> Result<Vec<SeccompCondition>, BackendError> {
    let equal = |index, value| {
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, u64::from(value))
    };
    let masked = |index, mask, value| {
        let compare = SeccompCmpOp::MaskedEq(u64::from(mask));
        SeccompCondition::new(index, SeccompCmpArgLen::Dword, compare, u64::from(value))
    };
    match *argument {
        Argument::OneOf(index, values) => values.iter().map(|&value| equal(index, value)).collect(),
        Argument::With(index, bits) => Ok(vec![masked(index, bits, bits)?]),
        Argument::Without(index, bits) => Ok(vec![masked(index, bits, 0u32)?]),
        Argument::OwnProcess(index) => Ok(vec![equal(index, std::process::id())?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_make_programs_and_do_not_contradict_each_other() {
        assert!(!program(ALLOWED, SeccompAction::Allow, SeccompAction::KillProcess).unwrap().is_empty());
        let mut numbers: Vec<c_long> = ALLOWED.iter().map(|&(number, _)| number).collect();
        numbers.extend(HOSTILE);
        let all = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "a system call is listed twice");
    }

    #[test]
    fn each_combination_of_values_is_a_rule() {
        let choices = [Argument::OneOf(0, &[1, 2]), Argument::With(1, 4), Argument::OneOf(2, &[5, 6, 7])];
        assert_eq!(rules(&choices).unwrap().len(), 6);
        assert!(rules(&[]).unwrap().is_empty());
    }
}
