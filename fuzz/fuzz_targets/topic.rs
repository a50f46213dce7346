#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| strait_wire::fuzz_entry::topic(bytes));
