//! Starts a damaged node by itself.
