//! A link that can be cut: forwards a port's connections to another port until it is told to stop.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// The link. Dropped, it is cut.
#[derive(Clone)]
pub struct Link {
    pub address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    streams: Vec<TcpStream>,
    is_cut: bool,
}

impl Link {
    /// A link to a port of this machine.
    pub fn to(target: SocketAddr) -> std::io::Result<Link> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let link = Link { address: listener.local_addr()?, state: Arc::default() };
        let state = link.state.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().flatten() {
                let Ok(far) = TcpStream::connect(target) else { continue };
                let mut state = state.lock().unwrap();
                if state.is_cut {
                    continue;
                }
                for (mut from, mut to) in [(&near, &far), (&far, &near)]
                    .map(|(a, b)| (a.try_clone().expect("a socket"), b.try_clone().expect("a socket")))
                {
                    std::thread::spawn(move || {
                        let mut bytes = [0; 1 << 16];
                        while let Ok(n) = from.read(&mut bytes)
                            && n > 0
                            && to.write_all(&bytes[..n]).is_ok()
                        {}
                        // Half a connection is none.
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
                state.streams.extend([near, far]);
            }
        });
        Ok(link)
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
