//! Bundles made by hand, run by native kernels and by the portable interpreter.

mod common;
use common::*;
use hub_abi::dtype::Dtype;
use hub_abi::plan::{Arg, Buf, Step};
use hub_runtime::{Error, Model, OpenOptions, Session, SessionOptions, TensorView, Trust};

fn view<'a>(dtype: Dtype, dims: &'a [usize], data: &'a [u8]) -> TensorView<'a> {
    TensorView { dtype, dims, data }
}

/// Tiers to try: native where this processor has it, and portable.
fn tiers() -> Vec<&'static str> {
    if native() { vec!["avx2", "portable"] } else { vec!["portable"] }
}

#[test]
fn sizes_change_and_every_tier_and_thread_count_agrees() {
    let dir = Scratch::new("triple");
    let path = dir.write("m.hub", triple());
    for tier in tiers() {
        for threads in [1, 2, 5] {
            let mut s = session(&path, Some(tier), threads);
            assert_eq!(s.tier(), tier);
            for n in [3usize, 1, 700, 3, 2, 8, 9, 700, 3, 1000] {
                let x: Vec<f32> = (0..n * 4).map(|i| i as f32 * 0.37 - 5.0).collect();
                let want: Vec<f32> = x.iter().map(|x| x + x + x).collect();
                let mut data = vec![0u8]; // unaligned on purpose
                data.extend(bytes(&x, f32::to_le_bytes));
                let out = s.run(&[view(Dtype::F32, &[n, 4], &data[1..])]).unwrap();
                let y = out.named("out0").unwrap();
                assert_eq!((y.dims, f32s(y.data)), (&[n, 4][..], want), "{tier} {threads} {n}");
            }
        }
    }
}

#[test]
fn wrong_inputs_are_told_apart() {
    let dir = Scratch::new("wrong");
    let path = dir.write("m.hub", triple());
    let data = [0u8; 64];
    for tier in tiers() {
        let mut s = session(&path, Some(tier), 1);
        let mut say = |dtype, dims: &[usize], len: usize| {
            let e = s.run(&[view(dtype, dims, &data[..len])]).err().unwrap();
            assert_eq!(e.code(), 2, "{e}");
            assert!(e.to_string().contains("in0"), "{e}");
            e.to_string()
        };
        assert!(say(Dtype::I32, &[2, 4], 32).contains("i32"));
        assert!(say(Dtype::F32, &[2, 5], 40).contains("5"));
        assert!(say(Dtype::F32, &[2, 4, 1], 32).contains("ank"));
        assert!(say(Dtype::F32, &[0, 4], 0).contains("0"));
        say(Dtype::F32, &[1001, 4], 64);
        say(Dtype::F32, &[2, 4], 31);
        say(Dtype::F32, &[usize::MAX, 4], 64);
        assert_eq!(s.run(&[]).err().unwrap().code(), 2);
        // It still works.
        assert_eq!(s.run(&[view(Dtype::F32, &[4, 4], &data)]).unwrap().len(), 1);
    }
}

#[test]
fn an_index_out_of_range_names_the_node() {
    let dir = Scratch::new("pick");
    let path = dir.write("m.hub", pick());
    let x = bytes(&[0.5f32, 1.5, 2.5, 3.5, 4.5], f32::to_le_bytes);
    for tier in tiers() {
        let mut s = session(&path, Some(tier), 2);
        for index in [[4i64, 0, 2], [1, 5, 0], [1, 1, 1]] {
            let at = bytes(&index, i64::to_le_bytes);
            let inputs = [view(Dtype::F32, &[5], &x), view(Dtype::I64, &[3], &at)];
            match s.run(&inputs) {
                Ok(out) => {
                    let want = index.map(|i| i as f32 + 0.5);
                    assert_eq!(f32s(out.get(0).data), want);
                }
                Err(e) => {
                    assert_eq!(index[1], 5);
                    assert_eq!(e.code(), 4);
                    assert!(e.to_string().contains("node 'pick'"), "{e}");
                }
            }
        }
    }
}

#[test]
fn repetitions_bump_addresses() {
    let dir = Scratch::new("repeat");
    let path = dir.write("m.hub", sum_rows());
    for tier in tiers() {
        let mut s = session(&path, Some(tier), 2);
        for t in [3usize, 0, 7, 3] {
            let x = bytes(&(0..t * 4).map(|i| i as f32).collect::<Vec<_>>(), f32::to_le_bytes);
            let want: Vec<f32> = (0..4)
                .map(|c| 10. * (c + 1) as f32 + (0..t).map(|r| (r * 4 + c) as f32).sum::<f32>())
                .collect();
            let out = s.run(&[view(Dtype::F32, &[t, 4], &x)]).unwrap();
            assert_eq!(f32s(out.get(0).data), want, "{tier} {t}");
        }
    }
}

#[test]
fn sizes_found_while_running_place_what_follows() {
    let dir = Scratch::new("stages");
    let path = dir.write("m.hub", nonzero_twice());
    for tier in tiers() {
        let mut s = session(&path, Some(tier), 2);
        for x in [vec![0f32, 1., 0., 2., 3.], vec![0.; 7], vec![1.; 50], vec![5., 0., 0., 0., 6.]] {
            let data = bytes(&x, f32::to_le_bytes);
            let at: Vec<f32> = (0..x.len()).filter(|&i| x[i] != 0.).map(|i| i as f32).collect();
            let out = s.run(&[view(Dtype::F32, &[x.len()], &data)]).unwrap();
            let twice: Vec<f32> = at.iter().map(|a| a * 2.).collect();
            assert_eq!(out.get(0).dims, [1, at.len()], "{tier}");
            assert_eq!(f32s(out.get(0).data), twice, "{tier}");
            assert_eq!(out.get(1).dims, [1, at.len()]);
            assert_eq!(out.get(1).data.len(), at.len() * 8);
        }
    }
}

#[test]
fn plans_that_leave_their_buffers_are_refused() {
    if !native() {
        return;
    }
    let dir = Scratch::new("ranges");
    let first = |w: &mut Writer, change: &dyn Fn(&mut Vec<Arg>)| match &mut w.tiers[0].plan.steps[0]
    {
        Step::Kernel { args, .. } => change(args),
        _ => unreachable!("the first step is a kernel"),
    };
    let set = |i: usize, new: i64, what: &'static str| {
        move |args: &mut Vec<Arg>| {
            let Arg::Ptr { offset, extent, .. } = &mut args[i] else { unreachable!() };
            *(if what == "offset" { offset } else { extent }) = dim(new);
        }
    };
    for (i, change) in [
        set(0, 21, "extent"),
        set(1, 25, "extent"),
        set(2, 13, "extent"),
        set(0, 4, "offset"),
        set(0, -4, "offset"),
        set(0, i64::MAX, "offset"),
        set(0, -1, "extent"),
    ]
    .into_iter()
    .enumerate()
    {
        let mut w = pick();
        first(&mut w, &change);
        let path = dir.write("m.hub", w);
        let model = Model::open(&path, &OpenOptions::default()).unwrap();
        let options = SessionOptions { tier: Some("avx2".into()), ..Default::default() };
        let e = Session::new(&model, &options).err().unwrap_or_else(|| panic!("case {i}"));
        assert!(matches!(e, Error::Plan(_)) && e.to_string().contains("pick"), "{e}");
    }
    // An output buffer smaller than the output, and sizes that are beyond any memory.
    for (bytes, code) in [(8i64, 7), (1 << 60, 9), (-8, 7)] {
        let mut w = pick();
        w.tiers[0].plan.bufs[2] = Buf::Output { index: 0, bytes: dim(bytes) };
        let model = Model::open(dir.write("m.hub", w), &OpenOptions::default()).unwrap();
        let options = SessionOptions { tier: Some("avx2".into()), ..Default::default() };
        assert_eq!(Session::new(&model, &options).err().unwrap().code(), code);
    }
}

#[test]
fn tiers_trust_and_devices_are_chosen() {
    let dir = Scratch::new("tiers");
    let path = dir.write("m.hub", triple());
    let open = |trust| {
        Model::open(&path, &OpenOptions { trust: Some(trust), ..Default::default() }).unwrap()
    };
    let new = |m: &Model, tier: Option<&str>, device: &str| {
        let options = SessionOptions {
            tier: tier.map(String::from),
            device: device.into(),
            threads: 1,
            ..Default::default()
        };
        Session::new(m, &options)
    };
    let any = open(Trust::Any);
    assert_eq!(new(&any, Some("amx"), "").err().unwrap().code(), 3);
    assert_eq!(new(&any, None, "cuda:0").err().unwrap().code(), 3);
    assert!(new(&any, Some("portable"), "cpu").unwrap().warning().is_empty());
    for trust in [Trust::Signed, Trust::Portable] {
        let s = new(&open(trust), None, "").unwrap();
        assert_eq!(s.tier(), "portable");
        assert!(!s.warning().is_empty());
    }
    if native() {
        let s = new(&any, None, "").unwrap();
        assert_eq!((s.tier(), s.warning()), ("avx2", ""));
        assert_eq!(s.code_from(), Some(hub_runtime::CodeFrom::File));
        let copied = OpenOptions { copy_code: true, ..Default::default() };
        let s = new(&Model::open(&path, &copied).unwrap(), None, "").unwrap();
        assert_eq!(s.code_from(), Some(hub_runtime::CodeFrom::Memory));
    }
    let e = Model::open(dir.0.join("none"), &OpenOptions::default()).err().unwrap();
    assert_eq!(e.code(), 8);
    assert_eq!(Model::open(&dir.0, &OpenOptions::default()).err().unwrap().code(), 8);
    for (content, code) in [(&b""[..], 4), (b"hello", 4), (&[0x7f, b'E', b'L', b'F'], 7)] {
        std::fs::write(dir.0.join("x"), content).unwrap();
        let e = Model::open(dir.0.join("x"), &OpenOptions::default()).err().unwrap();
        assert_eq!(e.code(), code, "{e}");
    }
}

#[test]
fn sessions_say_what_they_do() {
    if !native() {
        return;
    }
    let dir = Scratch::new("describe");
    let mut s = session(&dir.write("m.hub", triple()), Some("avx2"), 1);
    let data = vec![0u8; 160];
    s.set_profile(true);
    for _ in 0..3 {
        s.run(&[view(Dtype::F32, &[10, 4], &data)]).unwrap();
    }
    let steps = s.steps();
    assert_eq!(steps.len(), 2);
    assert_eq!((&steps[1].node[..], &steps[1].kernel[..]), ("second", "add"));
    assert_eq!((steps[1].tiles, &steps[1].tier[..]), (Some(10), "avx2"));
    let p = s.profile().unwrap();
    assert_eq!((p.nanos.len(), p.runs), (2, 3));
    let m = s.summary();
    assert_eq!((m.arena, m.arena_bound, m.scratch), (352, 320, 0));
}

#[test]
fn scratch_lies_in_the_arena() {
    if !native() {
        return;
    }
    let dir = Scratch::new("scratch");
    let mut w = triple();
    w.tiers[0].plan.kernels[0].scratch = 100;
    let mut s = session(&dir.write("m.hub", w), Some("avx2"), 3);
    let data: Vec<u8> = (0..40).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let out = s.run(&[view(Dtype::F32, &[10, 4], &data)]).unwrap();
    let want: Vec<u8> = (0..40).flat_map(|i| (3.0 * i as f32).to_le_bytes()).collect();
    assert_eq!(out.get(0).data, want);
    // Two lines for each of three workers at either step, beside the output and the tensor before it.
    let m = s.summary();
    assert_eq!((m.arena, m.arena_bound, m.scratch), (736, 320, 384));
}

#[test]
fn one_flipped_byte_never_crashes() {
    let dir = Scratch::new("flip");
    let path = dir.write("m.hub", pick());
    let good = std::fs::read(&path).unwrap();
    let x = bytes(&[0.5f32, 1.5, 2.5, 3.5, 4.5], f32::to_le_bytes);
    let at = bytes(&[4i64, 0, 2], i64::to_le_bytes);
    let inputs = [view(Dtype::F32, &[5], &x), view(Dtype::I64, &[3], &at)];
    let mut caught = 0;
    for i in (0..good.len()).filter(|&i| (good[i] != 0 && i % 3 == 0) || i % 997 == 0) {
        let mut bad = good.clone();
        bad[i] ^= 0x41;
        std::fs::write(&path, &bad).unwrap();
        let opened = Model::open(&path, &OpenOptions::default()).and_then(|m| {
            let s = Session::new(&m, &SessionOptions { threads: 1, ..Default::default() });
            s.and_then(|mut s| s.run(&inputs).map(|_| ())).and_then(|()| m.verify())
        });
        let e = opened.err().unwrap_or_else(|| panic!("byte {i} went unnoticed"));
        assert!(matches!(e.code(), 4 | 7 | 9), "{e}");
        caught += 1;
    }
    assert!(caught > 300, "{caught}");
    for n in (0..good.len()).step_by(97) {
        std::fs::write(&path, &good[..n]).unwrap();
        let e = Model::open(&path, &OpenOptions::default()).err().unwrap();
        assert!(matches!(e.code(), 4 | 7), "{e}");
    }
}
