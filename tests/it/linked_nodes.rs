//! Nodes with a WebSocket, on a network of memory under a simulated clock: heads as they come,
//! links that are lost or mute, and nodes that have nothing but their WebSocket.

mod check;
mod heads;
mod only;
mod refusing;
