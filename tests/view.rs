//! What subscribers are told before pretend nodes on a network of memory, under a clock that only moves when nothing else can.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;
#[path = "view/heads.rs"]
mod heads;
#[path = "view/logs.rs"]
mod logs;
#[path = "view/passthrough.rs"]
mod passthrough;
#[path = "view/schedules.rs"]
mod schedules;
#[path = "view/stage.rs"]
mod stage;
