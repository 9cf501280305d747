#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lanrage_proto_fuzz::stream(bytes));
