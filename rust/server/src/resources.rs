//! What the process may use: cores, memory, file descriptors. Read once at the start.

use std::fs;
use std::num::NonZero;
use std::path::Path;

/// The lowest priority (`nice`): what has it runs when nothing else wants to.
const LOWEST_PRIORITY: i32 = 19;

/// Cores, by affinity and cgroup quota, not what the host has.
pub(crate) fn cores() -> usize {
    // The standard library reads the affinity mask and both cgroup versions' quotas.
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Bytes of memory: the least limit of the process's cgroups, or what the machine has.
pub(crate) fn memory_bytes() -> usize {
    cgroup_memory_bytes().into_iter().chain(machine_memory_bytes()).min().unwrap_or(1 << 30)
}

/// File descriptors that the process may open.
pub(crate) fn open_files() -> usize {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)).and_then(|soft| soft.parse().ok()).unwrap_or(1_024)
}

/// Bytes of memory that the process holds now.
pub(crate) fn resident_bytes() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    kilobytes(&status, "VmRSS:").unwrap_or(0)
}

/// Lets every other thread go before the present one. For good: raising a priority needs a privilege.
///
/// On Linux a thread has a priority of its own, which threads that it makes inherit. ONNX Runtime's do not
/// ([`mlserve_ort::Runtime::load`], to be called before).
pub(crate) fn lower_priority() {
    // Of no process: of the caller, which to Linux is the thread.
    if let Err(error) = rustix::process::setpriority_process(None, LOWEST_PRIORITY) {
        tracing::warn!(%error, "the priority of this thread cannot be lowered");
    }
}

fn machine_memory_bytes() -> Option<usize> {
    kilobytes(&fs::read_to_string("/proc/meminfo").ok()?, "MemTotal:")
}

fn kilobytes(text: &str, label: &str) -> Option<usize> {
    let line = text.lines().find(|line| line.starts_with(label))?;
    line.split_whitespace().nth(1)?.parse::<usize>().ok()?.checked_mul(1_024)
}

fn cgroup_memory_bytes() -> Vec<usize> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut limits = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or("/"));
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            "memory" => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            _ => continue,
        };
        // A limit on any ancestor holds as well.
        let mut folder = Path::new(root).join(path.trim_start_matches('/'));
        while folder.starts_with(root) {
            limits
                .extend(fs::read_to_string(folder.join(file)).ok().and_then(|text| text.trim().parse::<usize>().ok()));
            if !folder.pop() {
                break;
            }
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn priority() -> i32 {
        rustix::process::getpriority_process(None).expect("a thread has a priority")
    }

    #[test]
    fn only_the_thread_that_asks_gets_the_lowest_priority() {
        let before = priority();
        let lowered = std::thread::spawn(|| {
            lower_priority();
            priority()
        });
        assert_eq!(lowered.join().expect("ends"), LOWEST_PRIORITY);
        assert_eq!(priority(), before);
    }
}
