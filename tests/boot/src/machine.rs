//! A running emulator: its serial port as text in both directions, and its clock.

use crate::bed::{self, Host, Pace};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// An emulator that was started; it ends with this value.
pub struct Machine {
    child: Child,
    input: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    clock: Clock,
}

/// What came from the serial port.
pub enum Output {
    /// Some bytes.
    Bytes(Vec<u8>),
    /// Nothing for the time given.
    Silence,
    /// The emulator has ended.
    End,
}

impl Machine {
    /// Starts the emulator with an ISO image; its own files go to `dir`.
    pub fn start(host: &Host, iso: &Path, dir: &Path, pace: Pace) -> io::Result<Machine> {
        let log = File::create(dir.join("bed.log"))?;
        if host.bed.is_bochs() { start_bochs(host, iso, dir, pace, log) } else { start_qemu(host, iso, log) }
    }

    /// Waits this long for output.
    pub fn read(&mut self, wait: Duration) -> Output {
        match self.output.recv_timeout(wait) {
            Ok(bytes) => Output::Bytes(bytes),
            Err(RecvTimeoutError::Timeout) => Output::Silence,
            Err(RecvTimeoutError::Disconnected) => Output::End,
        }
    }

    /// Types on the serial port.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)?;
        self.input.flush()
    }

    /// Gives the serial port's input away, for another thread.
    pub fn take_input(&mut self) -> Box<dyn Write + Send> {
        std::mem::replace(&mut self.input, Box::new(io::sink()))
    }

    /// How long the emulator was ready to run while this machine ran something else.
    pub fn starved(&self) -> Duration {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).into_iter().flatten().flatten();
        let waits = tasks.filter_map(|task| waited_ns(&fs::read_to_string(task.path().join("schedstat")).ok()?));
        Duration::from_nanos(waits.max().unwrap_or(0))
    }

    /// The emulator's clock.
    pub fn clock(&mut self) -> &mut Clock {
        &mut self.clock
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself; there is nothing to do then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The second figure of a task's `schedstat`: nanoseconds of waiting for a CPU.
fn waited_ns(schedstat: &str) -> Option<u64> {
    schedstat.split_whitespace().nth(1)?.parse().ok()
}

fn start_qemu(host: &Host, iso: &Path, log: File) -> io::Result<Machine> {
    let mut child = spawn(bed::qemu(host, iso).stderr(Stdio::from(log)))?;
    let input = child.stdin.take().expect("the command pipes it");
    let output = child.stdout.take().expect("the command pipes it");
    Ok(Machine { child, input: Box::new(input), output: pump(output), clock: Clock::Wall(Instant::now()) })
}

fn start_bochs(host: &Host, iso: &Path, dir: &Path, pace: Pace, log: File) -> io::Result<Machine> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut command = bed::bochs(host, iso, dir, listener.local_addr()?.port(), pace)?;
    let mut child = spawn(command.stderr(Stdio::from(log)))?;
    let serial = accept(&listener, &mut child)?;
    let input = serial.try_clone()?;
    let path = dir.join("ticks");
    let ticks = Ticks { path, per_s: host.ticks_per_s, file: None, rest: String::new(), lines: Vec::new(), now: 0 };
    Ok(Machine { child, input: Box::new(input), output: pump(serial), clock: Clock::Ticks(ticks) })
}

fn spawn(command: &mut Command) -> io::Result<Child> {
    command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", command.get_program().display())))
}

/// Waits for Bochs to call, as long as it lives.
fn accept(listener: &TcpListener, child: &mut Child) -> io::Result<TcpStream> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => {}
        }
        if child.try_wait()?.is_some() {
            return Err(io::Error::other("Bochs ended before it opened its serial port"));
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads on a thread of its own until the other side ends.
fn pump(mut from: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    receiver
}

/// The emulated time.
pub enum Clock {
    /// QEMU's guests see the time of this machine.
    Wall(Instant),
    /// Bochs counts instructions and notes them in a file.
    Ticks(Ticks),
}

/// The file in which Bochs notes the time: `l TICKS` for each line sent, `t TICKS` now and then.
pub struct Ticks {
    path: PathBuf,
    per_s: u64,
    file: Option<File>,
    rest: String,
    lines: Vec<u64>,
    now: u64,
}

impl Clock {
    /// When the line of this number (from 0) was sent, in seconds since the start.
    pub fn of_line_s(&mut self, number: usize) -> f64 {
        match self {
            Clock::Wall(start) => start.elapsed().as_secs_f64(),
            Clock::Ticks(ticks) => {
                ticks.update();
                ticks.lines.get(number).copied().unwrap_or(ticks.now) as f64 / ticks.per_s as f64
            }
        }
    }

    /// Instructions so far, where the emulator counts them.
    pub fn instructions(&mut self) -> Option<u64> {
        match self {
            Clock::Wall(_) => None,
            Clock::Ticks(ticks) => {
                ticks.update();
                Some(ticks.now)
            }
        }
    }
}

impl Ticks {
    fn update(&mut self) {
        if self.file.is_none() {
            self.file = File::open(&self.path).ok();
        }
        // A read goes on where the last one ended; Bochs may be writing meanwhile.
        let Some(Ok(_)) = self.file.as_mut().map(|file| file.read_to_string(&mut self.rest)) else { return };
        while let Some(end) = self.rest.find('\n') {
            let line: String = self.rest.drain(..=end).collect();
            self.note(line.trim());
        }
    }

    fn note(&mut self, line: &str) {
        let Some((what, ticks)) = line.split_once(' ') else { return };
        let Ok(ticks) = ticks.parse() else { return };
        self.now = ticks;
        if what == "l" {
            self.lines.push(ticks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_waiting_is_the_second_figure() {
        assert_eq!(waited_ns("1900 42 7\n"), Some(42));
        assert_eq!(waited_ns(""), None);
    }
}
