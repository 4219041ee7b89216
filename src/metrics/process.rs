//! The process itself, by the names that Prometheus' own libraries give: read from `/proc` at each
//! scrape. Where there is no `/proc`, there are no such series.

use std::{fs, path::Path};

use prometric::prometheus::{
    Counter, Gauge, Opts,
    core::Collector,
    proto::{MetricFamily, MetricType},
};
use rustix::{
    param::{clock_ticks_per_second, page_size},
    process::{Resource, getrlimit},
};

/// The system's account of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Reading {
    cpu_seconds: f64,
    threads: f64,
    start_seconds: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
    open_fds: f64,
    /// `None`: no limit.
    max_fds: Option<f64>,
}

/// A metric: its name, its help, its type, and its value.
type Row = (&'static str, &'static str, MetricType, fn(&Reading) -> Option<f64>);

const ROWS: [Row; 7] = [
    (
        "process_cpu_seconds_total",
        "Time that the process has had of the processors, in user and in system mode.",
        MetricType::COUNTER,
        |reading| Some(reading.cpu_seconds),
    ),
    ("process_max_fds", "File descriptors that the process may have open.", MetricType::GAUGE, |reading| {
        reading.max_fds
    }),
    ("process_open_fds", "File descriptors that are open.", MetricType::GAUGE, |reading| Some(reading.open_fds)),
    (
        "process_resident_memory_bytes",
        "Memory of the process that is in the machine's memory.",
        MetricType::GAUGE,
        |reading| Some(reading.resident_bytes),
    ),
    ("process_start_time_seconds", "When the process began, in seconds since 1970.", MetricType::GAUGE, |reading| {
        Some(reading.start_seconds)
    }),
    ("process_threads", "Threads of the process.", MetricType::GAUGE, |reading| Some(reading.threads)),
    (
        "process_virtual_memory_bytes",
        "Addresses that the process has taken, most of them without memory behind.",
        MetricType::GAUGE,
        |reading| Some(reading.virtual_bytes),
    ),
];

/// The metrics of this process.
pub(super) fn families() -> Vec<MetricFamily> {
    let Some(mut reading) = read(Path::new("/proc"), clock_ticks_per_second() as f64, page_size() as f64) else {
        return Vec::new();
    };
    reading.max_fds = getrlimit(Resource::Nofile).current.map(|limit| limit as f64);
    ROWS.iter()
        .flat_map(|(name, help, kind, value)| Some(family(name, help, *kind, value(&reading)?)))
        .flatten()
        .collect()
}

fn family(name: &str, help: &str, kind: MetricType, value: f64) -> Vec<MetricFamily> {
    const RIGHT: &str = "the names are constants";
    if kind == MetricType::COUNTER {
        let counter = Counter::with_opts(Opts::new(name, help)).expect(RIGHT);
        counter.inc_by(value);
        counter.collect()
    } else {
        let gauge = Gauge::with_opts(Opts::new(name, help)).expect(RIGHT);
        gauge.set(value);
        gauge.collect()
    }
}

/// Reads all but the limit from the files below `proc`.
fn read(proc: &Path, ticks: f64, page: f64) -> Option<Reading> {
    let stat = fs::read_to_string(proc.join("self/stat")).ok()?;
    // The name of the program, in brackets, may hold anything.
    let (_, after) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    // Numbered as in proc(5), where the field after the name is the third.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let system = fs::read_to_string(proc.join("stat")).ok()?;
    let booted: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    // The listing itself has a descriptor open.
    let open = fs::read_dir(proc.join("self/fd")).ok()?.count().saturating_sub(1);
    Some(Reading {
        cpu_seconds: (field(14)? + field(15)?) / ticks,
        threads: field(20)?,
        start_seconds: booted + field(22)? / ticks,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)? * page,
        open_fds: open as f64,
        max_fds: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_a_process_are_read_by_their_fields() {
        let proc = std::env::temp_dir().join(format!("steadfast-process-{}", std::process::id()));
        fs::create_dir_all(proc.join("self/fd")).unwrap();
        for fd in ["0", "1", "2", "3"] {
            fs::write(proc.join("self/fd").join(fd), "").unwrap();
        }
        let stat =
            "77 (a) name) S 1 77 77 0 -1 4194560 1 2 3 4 250 150 5 6 20 0 9 0 1000 4096000 30 18446744073709551615 1";
        fs::write(proc.join("self/stat"), stat).unwrap();
        fs::write(proc.join("stat"), "cpu  1 2 3\nbtime 1700000000\nprocesses 5\n").unwrap();
        let read = read(&proc, 100.0, 4096.0);
        let _ = fs::remove_dir_all(&proc);
        let expected = Reading {
            cpu_seconds: 4.0,
            threads: 9.0,
            start_seconds: 1_700_000_010.0,
            virtual_bytes: 4_096_000.0,
            resident_bytes: 122_880.0,
            open_fds: 3.0,
            max_fds: None,
        };
        assert_eq!(read, Some(expected));
        assert_eq!(super::read(Path::new("/nowhere"), 100.0, 4096.0), None);
    }

    #[test]
    fn this_process_is_told_truly() {
        let reading = super::read(Path::new("/proc"), clock_ticks_per_second() as f64, page_size() as f64).unwrap();
        // The wall clock, by the time of a file that is written now.
        let file = std::env::temp_dir().join(format!("steadfast-now-{}", std::process::id()));
        fs::write(&file, "").unwrap();
        let now = fs::metadata(&file).unwrap().modified().unwrap();
        let _ = fs::remove_file(&file);
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(reading.threads >= 1.0 && reading.open_fds >= 3.0, "{reading:?}");
        assert!((now - 3600.0..now + 2.0).contains(&reading.start_seconds), "{reading:?} at {now}");
        let megabyte = f64::from(1 << 20);
        assert!(reading.resident_bytes > megabyte && reading.virtual_bytes > reading.resident_bytes, "{reading:?}");
        let held: Vec<_> = (0..20).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let more = super::read(Path::new("/proc"), 100.0, 4096.0).unwrap();
        assert!(more.open_fds >= reading.open_fds.min(20.0), "{more:?}");
        drop(held);
        let names: Vec<String> = families().iter().map(|family| family.name().to_owned()).collect();
        assert!(names.len() >= ROWS.len() - 1, "{names:?}");
    }
}
