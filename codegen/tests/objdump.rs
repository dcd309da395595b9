//! Emitted code as another disassembler reads it: instruction boundaries and mnemonics agree with
//! iced's on kernels that use every instruction family. Skipped by name where objdump is absent.

mod common;
use hub_abi::Dtype;
use hub_codegen::kir::*;
use hub_codegen::targets::x86::{Target, Tier, emit};
use iced_x86::{Decoder, DecoderOptions, Formatter, GasFormatter};
use std::process::Command;

/// A kernel with a sample of everything.
fn sampler(lanes: usize) -> Kernel {
    let mut b = KernelBuilder::new("sampler");
    let src = b.ptr("s", Dtype::F32, Access::Read);
    let dst = b.ptr("d", Dtype::F32, Access::ReadWrite);
    let (n, stride) = (b.size("n"), b.size("stride"));
    let g = b.grid("g", n);
    let h = b.grid("h", 3);
    let f = RegTy::new(Elem::F32, lanes);
    let at = Addr::param(src).plus(g, stride).plus(h, 64);
    let m = b.first_lanes(lanes, n);
    let x = b.load(f, at.clone(), Dtype::F32, Some(m));
    let acc = b.copy(x);
    b.for_("k", n, 4, |b, k| {
        for i in 0..14 {
            let s = b.load_splat(f, at.clone().row(i, stride).plus(k, 4), Dtype::F32);
            b.fma_acc(acc, s, x);
        }
    });
    let e = math::erf(&mut b, acc);
    let l = math::pow(&mut b, e, x);
    let t = math::sin(&mut b, l);
    let i = b.cvt(t, Elem::I32);
    let i = b.check_index(i, n);
    let q = b.gather(f, at.clone(), i, 4, Dtype::F32, Some(m));
    let r = b.reduce(ReduceOp::Add, q);
    let r = b.splat(r, lanes);
    for d in [Dtype::F32, Dtype::F16, Dtype::BF16] {
        let v = b.load(f, at.clone().offset(128), d, None);
        let v = b.add(v, r);
        b.store(v, Addr::param(dst).plus(g, 64), d, Some(m));
        b.store_strided(v, Addr::param(dst).plus(h, 64), stride, d, None);
    }
    for d in [Dtype::I8, Dtype::U8, Dtype::I16, Dtype::U16, Dtype::I32] {
        let v = b.load(f.with(Elem::I32), at.clone().offset(128), d, None);
        let three = b.const_i(f.with(Elem::I32), 3);
        let v = b.bin(BinOp::Rem, v, three);
        b.store(v, Addr::param(dst).plus(g, 64), d, Some(m));
    }
    let wide = RegTy::new(Elem::I64, lanes / 2);
    let v = b.load(wide, at, Dtype::I64, None);
    let p = b.mul(v, v);
    let p = b.bin(BinOp::Div, p, v);
    let o = b.cvt(p, Elem::F64);
    b.store(o, Addr::param(dst).plus(g, 64), Dtype::F64, None);
    b.finish()
}

/// A mnemonic without what the two print differently: AT&T size suffixes and synonyms.
fn plain(m: &str) -> String {
    let m = m.split_whitespace().find(|w| *w != "{evex}").unwrap_or("");
    let m = match m {
        "movabs" => "mov",
        "ret" | "retq" => "ret",
        "setnb" => "setae",
        m => m,
    };
    let vector = m.starts_with('v') || m.starts_with('k') || m.starts_with("prefetch");
    let whole = ["shl", "sub", "call", "imul", "setl", "setb", "cmovl", "cmovb", "jl", "jb"];
    if vector || whole.contains(&m) {
        return m.to_string();
    }
    m.strip_suffix(['q', 'l', 'w', 'b']).unwrap_or(m).to_string()
}

#[test]
fn objdump_reads_the_same_instructions() {
    if Command::new("objdump").arg("--version").output().is_err() {
        eprintln!("skipped: objdump is not installed");
        return;
    }
    for tier in common::tiers() {
        let t = Target::of(tier);
        assert!(same(&sampler(t.lanes()), &t).len() > 300);
    }
    // What this host may lack, another disassembler reads all the same.
    let read = same(&tiles(), &Target::of(Tier::Amx));
    for m in ["ldtilecfg", "tilezero", "tileloadd", "tdpbf16ps", "tilestored", "tilerelease"] {
        assert!(read.iter().any(|i| i.contains(m)), "no {m} in {read:?}");
    }
    for m in ["vdpbf16ps", "vcvtneps2bf16"] {
        assert!(read.iter().any(|i| i == m), "no {m} in {read:?}");
    }
}

/// Tiles of two shapes at plain and stepped addresses, a dot product of pairs and a bf16 store.
fn tiles() -> Kernel {
    let mut b = KernelBuilder::new("tiles");
    let src = b.ptr("s", Dtype::BF16, Access::Read);
    let dst = b.ptr("d", Dtype::BF16, Access::Write);
    let (n, stride) = (b.size("n"), b.size("stride"));
    let g = b.grid("g", n);
    let scratch = b.scratch(1024);
    let at = Addr::param(src).plus(g, stride);
    b.inst(Inst::TileConfig { shapes: vec![(16, 64), (16, 48), (12, 64)] });
    b.inst(Inst::TileZero { tile: 0 });
    b.for_("k", n, 2, |b, k| {
        let row = at.clone().row(1, stride).plus(k, 48);
        b.inst(Inst::TileLoad { tile: 1, addr: row, stride: stride.into(), align: 1 });
        let line = at.clone().plus(k, 768).offset(64);
        b.inst(Inst::TileLoad { tile: 2, addr: line, stride: 64.into(), align: 1 });
        b.inst(Inst::TileDot2 { acc: 0, a: 1, b: 2, dtype: Dtype::BF16 });
    });
    let to = Addr::scratch().offset(scratch);
    b.inst(Inst::TileStore { tile: 0, addr: to.clone(), stride: 64.into() });
    let f = RegTy::new(Elem::F32, 16);
    let acc = b.load(f, to, Dtype::F32, None);
    let x = b.load(f.with(Elem::I32), at.clone(), Dtype::I32, None);
    let a = b.load_splat(f.with(Elem::I32), at, Dtype::I32);
    b.dot2_acc(acc, a, x);
    b.store(acc, Addr::param(dst).plus(g, 32), Dtype::BF16, None);
    b.finish()
}

/// Instructions of a kernel's code, which both disassemblers read alike.
fn same(k: &Kernel, t: &Target) -> Vec<String> {
    let tier = t.tier;
    let code = emit(k, t).unwrap();
    let path = std::env::temp_dir().join(format!(
        "hub-objdump-{}-{}.bin",
        tier.name(),
        std::process::id()
    ));
    std::fs::write(&path, &code.bytes[..code.code_len]).unwrap();
    let out = Command::new("objdump")
        .args(["-D", "-b", "binary", "-m", "i386:x86-64", "-w", "--no-show-raw-insn"])
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let theirs: Vec<(u64, String)> = text
        .lines()
        .filter_map(|l| l.trim().split_once(":\t"))
        .filter_map(|(a, i)| Some((u64::from_str_radix(a.trim(), 16).ok()?, plain(i))))
        .collect();
    let mut format = GasFormatter::new();
    let ours: Vec<(u64, String)> =
        Decoder::with_ip(64, &code.bytes[..code.code_len], 0, DecoderOptions::NONE)
            .into_iter()
            .map(|i| {
                let mut s = String::new();
                format.format(&i, &mut s);
                (i.ip(), plain(&s))
            })
            .collect();
    for (o, t) in ours.iter().zip(&theirs) {
        assert_eq!(o, t, "on {}", tier.name());
    }
    assert_eq!(ours.len(), theirs.len());
    ours.into_iter().map(|i| i.1).collect()
}
