#![no_main]
rookery_fuzz::program!("join_token");
