//! Who may do what. Pure: no clock, no IO, no tokio.
