//! A link that goes wrong: forwards a port's connections to another port, slowly or in pieces if it is told to,
//! until it is cut.
//!
//! ```text
//! near ─▶ one thread: pieces, pauses, and the point at which it breaks ─▶ far
//! near ◀─ another ────────────────────────────────────────────────────── far
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use socket2::SockRef;

/// Chunks that are on their way over a link with a delay.
const CHUNKS_UNDER_WAY_MAX: usize = 1 << 12;

/// How a link carries bytes.
#[derive(Debug, Clone, Copy)]
pub struct Manner {
    /// The most bytes at once.
    pub piece_bytes: usize,
    /// After each piece.
    pub pause: Duration,
    /// Of each piece; others may be under way.
    pub delay: Duration,
}

impl Manner {
    /// As fast as the machine does it.
    pub const QUICK: Manner = Manner { piece_bytes: 1 << 16, pause: Duration::ZERO, delay: Duration::ZERO };
}

/// The link. Cheap to clone.
#[derive(Clone)]
pub struct Link {
    pub address: SocketAddr,
    manner: Manner,
    state: Arc<Mutex<State>>,
    connections: Arc<AtomicUsize>,
}

#[derive(Default)]
struct State {
    streams: Vec<TcpStream>,
    is_cut: bool,
    /// Bytes from the far end until the link breaks.
    left: Option<u64>,
    has_broken: bool,
}

impl Link {
    /// A link to a port of this machine.
    pub fn to(target: SocketAddr) -> std::io::Result<Link> {
        Link::with(target, Manner::QUICK)
    }

    /// A link that carries bytes in its own manner.
    pub fn with(target: SocketAddr, manner: Manner) -> std::io::Result<Link> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Link {
            address: listener.local_addr()?,
            manner,
            state: Arc::default(),
            connections: Arc::default(),
        };
        let forwarding = link.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                forwarding.connect(near, far);
            }
        });
        Ok(link)
    }

    fn connect(&self, near: TcpStream, far: TcpStream) {
        let mut state = self.state.lock().unwrap();
        if state.is_cut {
            return;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        let copy = |stream: &TcpStream| stream.try_clone().expect("a socket");
        for (from, to, is_from_far) in [(&near, &far, false), (&far, &near, true)] {
            // Small pieces are not to be joined again.
            let _ = to.set_nodelay(true);
            let (link, from, to) = (self.clone(), copy(from), copy(to));
            std::thread::spawn(move || link.forward(from, to, is_from_far));
        }
        state.streams.extend([near, far]);
    }

    fn forward(&self, mut from: TcpStream, to: TcpStream, is_from_far: bool) {
        let (sender, receiver) = sync_channel(CHUNKS_UNDER_WAY_MAX);
        let end = to.try_clone().expect("a socket");
        let delay = self.manner.delay;
        let writer = std::thread::spawn(move || write_later(receiver, to, delay));
        self.read(&mut from, &sender, is_from_far);
        drop(sender);
        let _ = writer.join();
        if !self.has_broken() {
            // Half a connection is none.
            let _ = end.shutdown(Shutdown::Both);
            let _ = from.shutdown(Shutdown::Both);
        }
    }

    fn read(&self, from: &mut TcpStream, to: &SyncSender<(Instant, Vec<u8>)>, is_from_far: bool) {
        let mut bytes = vec![0; self.manner.piece_bytes];
        while let Ok(n) = from.read(&mut bytes)
            && n > 0
        {
            if is_from_far && self.breaks(n as u64) {
                return self.reset();
            }
            if to.send((Instant::now(), bytes[..n].to_vec())).is_err() {
                return;
            }
            if !self.manner.pause.is_zero() {
                std::thread::sleep(self.manner.pause);
            }
        }
    }

    /// Whether the link breaks with these bytes, which are not forwarded then.
    fn breaks(&self, bytes: u64) -> bool {
        let mut state = self.state.lock().unwrap();
        match &mut state.left {
            Some(left) if *left < bytes => {
                (state.left, state.has_broken) = (None, true);
                true
            }
            Some(left) => {
                *left -= bytes;
                false
            }
            None => false,
        }
    }

    /// Resets all connections: neither end gets what is under way, nor a goodbye.
    fn reset(&self) {
        for stream in self.state.lock().unwrap().streams.drain(..) {
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            // Wakes the threads, which let go of the sockets.
            let _ = stream.shutdown(Shutdown::Read);
        }
    }

    /// After so many more bytes from the far end all connections are reset; new ones are let through.
    pub fn break_after(&self, bytes: u64) {
        self.state.lock().unwrap().left = Some(bytes);
    }

    /// Whether it broke at the point that it was told.
    pub fn has_broken(&self) -> bool {
        self.state.lock().unwrap().has_broken
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Cuts what goes over the link now; new connections are let through.
    pub fn interrupt(&self) {
        for stream in self.state.lock().unwrap().streams.drain(..) {
            // It may be over already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Cuts the link for good.
    pub fn cut(&self) {
        self.state.lock().unwrap().is_cut = true;
        self.interrupt();
    }
}

fn write_later(chunks: Receiver<(Instant, Vec<u8>)>, mut to: TcpStream, delay: Duration) {
    for (read_at, bytes) in chunks {
        std::thread::sleep((read_at + delay).saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            // Whoever reads for it notices with the next chunk.
            return;
        }
    }
}
