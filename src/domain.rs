//! Values of the field: no I/O, no tokio.
