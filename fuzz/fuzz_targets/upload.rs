#![no_main]
rookery_fuzz::program!("upload");
