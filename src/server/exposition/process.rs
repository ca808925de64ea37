//! The metrics of the process, under the names that all client libraries of Prometheus use.

use std::fmt;
use std::time::Duration;

use procfs::process::{LimitValue, Process, Stat};
use procfs::{ProcResult, boot_time_secs, page_size, ticks_per_second};

use super::families::Families;

/// Writes the metrics that the system can tell.
pub(super) fn encode(families: &mut Families<'_>) -> fmt::Result {
    let process = Process::myself();
    let Ok((process, stat)) = process.and_then(|process| {
        let stat = process.stat()?;
        Ok((process, stat))
    }) else {
        return Ok(());
    };
    families.seconds(
        "process_cpu_seconds",
        "Processor time of the process.",
        duration(stat.utime + stat.stime).as_secs_f64(),
    )?;
    families.gauge(
        "process_resident_memory_bytes",
        "Memory of the process that is in use.",
        stat.rss * page_size(),
    )?;
    families.gauge(
        "process_virtual_memory_bytes",
        "Memory that the process has reserved.",
        stat.vsize,
    )?;
    if let Ok(started) = started(&stat) {
        families.gauge(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970.",
            started,
        )?;
    }
    if let Ok(open) = process.fd_count() {
        families.gauge(
            "process_open_fds",
            "The open file descriptors.",
            open as u64,
        )?;
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        families.gauge(
            "process_max_fds",
            "The most file descriptors that may be open.",
            most,
        )?;
    }
    Ok(())
}

fn started(stat: &Stat) -> ProcResult<f64> {
    let booted = Duration::from_secs(boot_time_secs()?);
    Ok((booted + duration(stat.starttime)).as_secs_f64())
}

fn duration(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 1_000 / ticks_per_second())
}
