//! The trace accepts what is right and refuses every way of overwriting a live value.

use hub_abi::dim::{Dim, SymEnv};
use hub_abi::plan::{Arg, Block, Buf, KernelInfo, OutputSource, Plan, Step};
use hub_abi::trace::{Clash, Spot, place_and_trace, trace};

fn arena(bytes: i64, first: u32, last: u32, over: Option<u32>) -> Buf {
    Buf::Arena { bytes: bytes.into(), first, last, over }
}

fn ptr(buf: u32, write: bool) -> Arg {
    at(buf, 0, 64, write)
}

fn at(buf: u32, offset: i64, extent: i64, write: bool) -> Arg {
    Arg::Ptr { buf, offset: offset.into(), extent: extent.into(), write, bump: 0i64.into() }
}

fn step(args: Vec<Arg>) -> Step {
    let one = || Dim::from(1i64);
    let node = "n".to_string();
    Step::Kernel { kernel: 0, args, tiles: one(), cost: one(), flops: one(), bytes: one(), node }
}

/// Input 0 → buffer 1 → buffer 2 in its room → buffer 3 = 1 + 2 where `both`, else 2 → output 4.
fn plan() -> Plan {
    let kernel = KernelInfo {
        name: "k".into(),
        offset: 0,
        len: 1,
        schedule: String::new(),
        shares: vec![(0, 1)],
        scratch: 0,
    };
    Plan {
        tier: "t".into(),
        bufs: vec![
            Buf::Input(0),
            arena(64, 0, 1, None),
            arena(64, 1, 2, Some(1)),
            arena(64, 2, 3, None),
            Buf::Output { index: 0, bytes: 64i64.into() },
        ],
        kernels: vec![kernel],
        steps: vec![
            step(vec![ptr(0, false), ptr(1, true)]),
            step(vec![ptr(1, false), ptr(2, true)]),
            step(vec![ptr(2, false), ptr(3, true)]),
            step(vec![ptr(3, false), ptr(4, true)]),
        ],
        outputs: vec![OutputSource::Buf(4)],
    }
}

fn args(p: &mut Plan, i: usize) -> &mut Vec<Arg> {
    let Step::Kernel { args, .. } = &mut p.steps[i] else { panic!("a kernel") };
    args
}

fn run(p: &Plan) -> Result<u64, Clash> {
    place_and_trace(p, &SymEnv::default()).map(|(_, placed)| placed.total)
}

/// Refused, for a reason that holds these words.
fn refused(what: &str, words: &str, change: impl FnOnce(&mut Plan)) {
    let mut p = plan();
    change(&mut p);
    let e = run(&p).expect_err(what).to_string();
    assert!(e.contains(words), "{what}: {e}");
}

#[test]
fn what_is_taken_over_needs_no_room() {
    let mut p = plan();
    assert_eq!(run(&p), Ok(128));
    p.bufs[2] = arena(64, 1, 2, None);
    p.bufs[3] = arena(64, 2, 3, Some(2));
    assert_eq!(run(&p), Ok(128));
    p.bufs[2] = arena(64, 1, 2, Some(1));
    assert_eq!(run(&p), Ok(64));
}

#[test]
fn a_value_that_is_read_again_may_not_be_overwritten() {
    refused("read later", "where 2 was written", |p| args(p, 2).push(ptr(1, false)));
    refused("read at the end", "output 0", |p| {
        p.outputs[0] = OutputSource::Buf(1);
        p.bufs[1] = arena(64, 0, 3, None);
    });
    refused("read by a repetition's next round", "where 2 was written", |p| {
        let body = p.steps.drain(1..3).collect();
        let body = Block { region: 0, steps: body };
        p.steps.insert(1, Step::Repeat { trip: 3i64.into(), body });
        p.bufs[1] = arena(64, 0, 2, None);
        p.bufs[3] = arena(64, 1, 2, None);
    });
}

#[test]
fn only_what_a_kernel_says_may_share() {
    refused("no kernel says so", "is written where", |p| p.kernels[0].shares.clear());
    refused("the other argument", "is written where", |p| {
        args(p, 1).insert(0, ptr(3, false));
        args(p, 0).insert(0, ptr(0, false));
        args(p, 0).push(ptr(3, true));
        p.bufs[3] = arena(64, 0, 3, None);
    });
}

#[test]
fn addresses_must_be_alike() {
    refused("another start", "is written where", |p| args(p, 1)[0] = at(1, 4, 60, false));
    refused("another extent", "is written where", |p| args(p, 1)[1] = at(2, 0, 32, true));
    refused("past the end", "which has 64", |p| args(p, 1)[1] = at(2, 4, 64, true));
}

#[test]
fn what_is_read_must_have_been_written() {
    refused("no writer", "before it is written", |p| args(p, 0)[1] = ptr(4, true));
    refused("an input", "read-only", |p| args(p, 1)[1] = ptr(0, true));
}

#[test]
fn a_wrong_placement_shows_without_lives() {
    let mut p = plan();
    p.bufs[2] = arena(64, 1, 2, None);
    let spots = |ats: [u64; 3]| {
        let s = |at| Some(Spot { at, len: 64 });
        [None, s(ats[0]), s(ats[1]), s(ats[2]), None]
    };
    let go = |p: &Plan, ats| trace(p, &SymEnv::default(), &spots(ats));
    assert_eq!(go(&p, [0, 64, 0]), Ok(()));
    let e = go(&p, [0, 32, 64]).expect_err("they overlap").to_string();
    assert!(e.contains("is written where"), "{e}");
    // Buffer 1 lives on to step 2, which writes buffer 3 over it.
    args(&mut p, 3).push(ptr(1, false));
    let e = go(&p, [0, 64, 0]).expect_err("it is overwritten").to_string();
    assert!(e.contains("where 3 was written"), "{e}");
}

#[test]
fn two_results_in_one_place_are_refused() {
    let mut p = plan();
    args(&mut p, 1).push(ptr(3, true));
    let s = |at| Some(Spot { at, len: 64 });
    let e = trace(&p, &SymEnv::default(), &[None, s(0), s(64), s(96), None]);
    assert!(e.expect_err("they overlap").what.contains("at one place"));
}
