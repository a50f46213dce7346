//! What runs on a stream of a node.

use std::mem::size_of_val;

use crate::proto::select::Listener;
use crate::stream::{Next, StreamIo, StreamMachine};

/// What runs on a stream.
pub(super) enum Machine {
    /// Every stream of the peer begins with it: it has no allocation of its own.
    Listener(Listener),
    Protocol(Box<dyn StreamMachine>),
}

impl Machine {
    pub(super) fn drive(&mut self, io: &mut StreamIo<'_>) -> Next {
        match self {
            Machine::Listener(listener) => listener.drive(io),
            Machine::Protocol(machine) => machine.drive(io),
        }
    }

    /// Allocated bytes that it keeps, about.
    pub(super) fn held(&self) -> u64 {
        match self {
            Machine::Listener(listener) => listener.held(),
            Machine::Protocol(machine) => (size_of_val(&**machine) as u64).saturating_add(machine.held()),
        }
    }
}
