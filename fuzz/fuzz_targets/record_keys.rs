#![no_main]
rookery_fuzz::program!("record_keys");
