#![no_main]
rookery_fuzz::program!("page_token");
