//! Runs kernels as machine code and through the interpreter, on the same bytes.
#![allow(dead_code, unsafe_code)]

use hub_codegen::kir::interp::{self, Arg};
use hub_codegen::kir::{Kernel, verify};
use hub_codegen::targets::x86::{self, Refused, Target, Tier};
use hub_codegen::targets::{cuda, simt};
use hub_testrun::{Aligned, JitBuffer, ptx};

/// The tiers that this host runs; says by name which it lacks.
pub fn tiers() -> Vec<Tier> {
    let best = Target::host_tier();
    Tier::ALL
        .into_iter()
        .filter(|t| {
            let have = best.is_some_and(|b| *t <= b);
            if !have {
                eprintln!("skipped on tier {}: this host lacks it", t.name());
            }
            have
        })
        .collect()
}

/// Runs all tiles as machine code; returns the status word.
pub fn native(k: &Kernel, tier: Tier, args: &[Arg], bufs: &mut [Vec<u8>]) -> Result<u32, Refused> {
    let code = x86::emit(k, &Target::of(tier))?;
    let jit = JitBuffer::new(&code.bytes).expect("executable memory");
    let mut mem: Vec<Aligned> = bufs.iter().map(|b| Aligned::from_bytes(b)).collect();
    let mut scratch = Aligned::zeroed(k.scratch_bytes as usize);
    let mut status = [0u32; 2];
    let block: Vec<u64> = args
        .iter()
        .map(|a| match a {
            Arg::Buf { buf, offset } => mem[*buf].addr().wrapping_add_signed(*offset),
            Arg::Size(n) => *n as u64,
            Arg::Status => status.as_mut_ptr() as u64,
        })
        .collect();
    // SAFETY: the interpreter found every access of these tiles in bounds, the tier is the host's,
    // and the block matches the kernel's parameters.
    unsafe { jit.call(&block, 0, interp::tiles(k, args), scratch.addr() as *mut u8) };
    for (b, m) in bufs.iter_mut().zip(&mem) {
        b.copy_from_slice(m.bytes());
    }
    Ok(status[0])
}

/// Runs all tiles as PTX on the software GPU, watching for races; returns the status word. What is
/// `lowered` writes no byte twice, kernels made by hand or chance may.
pub fn ptx(k: &Kernel, args: &[Arg], bufs: &mut [Vec<u8>], lowered: bool) -> Result<u32, Refused> {
    let text = format!("{}{}", cuda::HEADER, cuda::emit(k)?);
    let fail = |e: ptx::Fault| -> ! {
        let line = text.lines().nth(e.line.max(1) - 1).unwrap_or("");
        panic!("{e}, `{line}`\n{text}\n{k}")
    };
    let module = ptx::Module::parse(&text).unwrap_or_else(|e| fail(e));
    let mut status = [0u8; 4];
    let at = |i: usize| (i as u64 + 1) << 32;
    let past = at(bufs.len());
    let block: Vec<u64> = args
        .iter()
        .map(|a| match a {
            Arg::Buf { buf, offset } => at(*buf).wrapping_add_signed(*offset),
            Arg::Size(n) => *n as u64,
            Arg::Status => past,
        })
        .collect();
    let regions = bufs.iter_mut().enumerate();
    let mut regions: Vec<_> =
        regions.map(|(i, b)| ptx::Region { at: at(i), bytes: &mut b[..] }).collect();
    regions.push(ptx::Region { at: past, bytes: &mut status });
    let mut mem = ptx::Memory::new(regions, true);
    mem.anyone(past);
    if !lowered {
        mem.overwritten();
    }
    let entry = &module.entries[&k.name];
    entry.run(&block, interp::tiles(k, args), &mut mem).unwrap_or_else(|e| fail(e));
    drop(mem);
    Ok(u32::from_le_bytes(status))
}

/// Runs `k` as PTX and compares with what is meant; says whether the target took it.
pub fn check_ptx(
    k: &Kernel,
    args: &[Arg],
    bufs: &[Vec<u8>],
    same: &[Same],
    want: (u32, &[Vec<u8>]),
    lowered: bool,
) -> bool {
    let mut got = bufs.to_vec();
    let status = match ptx(k, args, &mut got, lowered) {
        Ok(s) => s,
        Err(Refused::Unsupported { .. } | Refused::Registers { .. }) => return false,
        Err(e) => panic!("{e}\n{k}"),
    };
    assert_eq!(status, want.0, "status as PTX\n{k}");
    for (n, ((g, w), s)) in got.iter().zip(want.1).zip(same).enumerate() {
        let at = g.iter().zip(w).position(|(x, y)| x != y);
        assert!(agree(*s, g, w), "buffer {n} as PTX, byte {at:?}\n{k}\n{}", cuda::emit(k).unwrap());
    }
    true
}

/// How two results are compared.
#[derive(Clone, Copy, PartialEq)]
pub enum Same {
    /// Byte for byte.
    Bits,
    /// f32 by f32, any NaN equal to any other.
    F32,
    /// f64 by f64, any NaN equal to any other.
    F64,
    /// Two-byte floats: any NaN equal to any other.
    F16,
    /// As `F16`; a denormal may be a zero of its sign.
    BF16,
}

fn nan(s: Same, c: &[u8]) -> bool {
    match s {
        Same::Bits => false,
        Same::F32 => f32::from_le_bytes(c.try_into().unwrap()).is_nan(),
        Same::F64 => f64::from_le_bytes(c.try_into().unwrap()).is_nan(),
        Same::F16 => u16::from_le_bytes(c.try_into().unwrap()) & 0x7fff > 0x7c00,
        Same::BF16 => u16::from_le_bytes(c.try_into().unwrap()) & 0x7fff > 0x7f80,
    }
}

/// Whether two buffers agree.
pub fn agree(s: Same, a: &[u8], b: &[u8]) -> bool {
    let n = match s {
        Same::Bits => 1,
        Same::F16 | Same::BF16 => 2,
        Same::F32 => 4,
        Same::F64 => 8,
    };
    let small = |c: &[u8]| s == Same::BF16 && c[1] & 0x7f == 0 && c[0] & 0x80 == 0;
    let flushed = |x: &[u8], y: &[u8]| small(x) && small(y) && x[1] == y[1];
    let like = |x: &[u8], y: &[u8]| x.len() == n && ((nan(s, x) && nan(s, y)) || flushed(x, y));
    a.chunks(n).zip(b.chunks(n)).all(|(x, y)| x == y || like(x, y))
}

/// Asks others about the code: iced's tables whether operands have the roles that selection gave
/// them, and objdump whether it reads the same instructions.
pub fn foreign(k: &Kernel, tier: Tier) {
    let target = Target::of(tier);
    x86::audit(k, &target).unwrap_or_else(|e| panic!("{e}\n{k}"));
}

/// Runs `k` both ways on every tier and compares every buffer and the status. Returns how many
/// tiers took the kernel.
pub fn check(k: &Kernel, args: &[Arg], bufs: &[Vec<u8>], same: Same) -> usize {
    verify(k).unwrap_or_else(|e| panic!("{e}\n{k}"));
    let mut want = bufs.to_vec();
    let status = interp::run(k, args, &mut want, 0..interp::tiles(k, args))
        .unwrap_or_else(|e| panic!("{e}\n{k}"));
    let legal = simt::legal(k);
    verify(&legal).unwrap_or_else(|e| panic!("{e}\n{legal}"));
    check_ptx(k, args, bufs, &vec![same; bufs.len()], (status, &want), false);
    let mut ran = 0;
    for tier in tiers() {
        foreign(k, tier);
        let mut got = bufs.to_vec();
        match native(k, tier, args, &mut got) {
            Ok(s) => {
                assert_eq!(s, status, "status on {}\n{k}", tier.name());
                for (n, (g, w)) in got.iter().zip(&want).enumerate() {
                    let show = |b: &[u8]| format!("{:02x?}", &b[..b.len().min(256)]);
                    assert!(
                        agree(same, g, w),
                        "buffer {n} on {}\nnative {}\nmeant  {}\n{k}",
                        tier.name(),
                        show(g),
                        show(w)
                    );
                }
                ran += 1;
            }
            Err(Refused::Unsupported { .. } | Refused::Registers { .. }) => {}
            Err(e) => panic!("{e}\n{k}"),
        }
    }
    ran
}
