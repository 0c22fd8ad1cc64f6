#![no_main]
rookery_fuzz::program!("sealed_record");
