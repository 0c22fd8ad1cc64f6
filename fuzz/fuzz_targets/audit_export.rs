#![no_main]
rookery_fuzz::program!("audit_export");
