#![no_main]
rookery_fuzz::program!("database_commands");
