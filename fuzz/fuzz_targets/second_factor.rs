#![no_main]
rookery_fuzz::program!("second_factor");
