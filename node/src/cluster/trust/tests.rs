//! Tests of the commands around certificates.
