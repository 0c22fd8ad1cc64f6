#![no_main]
rookery_fuzz::program!("file_header");
