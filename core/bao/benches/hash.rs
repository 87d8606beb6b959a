//! Tree hashing against plain BLAKE3 on one thread, and the work on one slice.

use bbh_bao::{Hasher, encode_slice, verify_slice};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

fn hashing(c: &mut Criterion) {
    let data: Vec<u8> = (0..32_u32 << 20).map(|i| (i ^ (i >> 11)) as u8).collect();
    let mut group = c.benchmark_group("hash 32 MiB");
    group.throughput(Throughput::Bytes(data.len() as u64)).sample_size(20);
    group.bench_function("blake3", |b| {
        b.iter(|| {
            let mut hasher = blake3::Hasher::new();
            data.chunks(1 << 20).for_each(|piece| {
                hasher.update(piece);
            });
            hasher.finalize()
        });
    });
    group.bench_function("tree", |b| {
        b.iter(|| {
            let mut hasher = Hasher::new();
            data.chunks(1 << 20).for_each(|piece| hasher.update(piece));
            hasher.finalize()
        });
    });
    group.finish();

    let mut hasher = Hasher::new();
    hasher.update(&data);
    let (id, outboard) = hasher.finalize();
    let (size, range) = (data.len() as u64, 1 << 20..(1 << 20) + (64 << 10));
    let part = &data[1 << 20..(1 << 20) + (64 << 10)];
    let slice = encode_slice(size, range.clone(), &outboard, part).expect("the range lies in the file");
    let mut group = c.benchmark_group("slice of 64 KiB");
    group.throughput(Throughput::Bytes(64 << 10));
    group.bench_function("encode", |b| b.iter(|| encode_slice(size, range.clone(), &outboard, part)));
    group.bench_function("verify", |b| b.iter(|| verify_slice(&id, size, range.clone(), &slice)));
    group.finish();
}

criterion_group!(benches, hashing);
criterion_main!(benches);
