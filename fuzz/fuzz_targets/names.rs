#![no_main]
rookery_fuzz::program!("names");
