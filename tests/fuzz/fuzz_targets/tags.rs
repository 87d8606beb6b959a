#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bbh_fuzz::tags(data));
