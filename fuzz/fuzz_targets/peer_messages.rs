#![no_main]
rookery_fuzz::program!("peer_messages");
