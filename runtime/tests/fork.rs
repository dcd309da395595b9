//! A session does not outlive a fork: it says so instead of waiting for threads that are not there.

#![cfg(unix)]
mod common;
use common::*;
use hub_abi::dtype::Dtype;
use hub_runtime::TensorView;

#[test]
fn a_forked_child_is_told() {
    if !native() {
        return;
    }
    let dir = Scratch::new("fork");
    let path = dir.write("m.hub", triple());
    let mut s = session(&path, Some("avx2"), 2);
    let data = [0u8; 64];
    let view = TensorView { dtype: Dtype::F32, dims: &[4, 4], data: &data };
    s.run(&[view]).unwrap();
    // SAFETY: the child runs a little code of ours and leaves without unwinding into the harness.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = s.run(&[view]).err().map_or(0, |e| e.code());
        drop(s);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(40 + code) };
    }
    let mut status = 0;
    // SAFETY: `child` is our child, `status` is writable.
    unsafe { libc::waitpid(child, &mut status, 0) };
    assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 42));
    s.run(&[view]).unwrap();
}
