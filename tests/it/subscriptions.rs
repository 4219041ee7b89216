//! What subscribers are told before pretend nodes on a network of memory, under a clock that only moves when nothing else can.

mod heads;
mod logs;
mod passthrough;
mod schedules;
mod setup;
