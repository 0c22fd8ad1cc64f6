#![no_main]
rookery_fuzz::program!("cluster_commands");
