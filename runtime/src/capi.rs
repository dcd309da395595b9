//! The C interface of `include/hub.h`. Panics end at this border as status 70.

use crate::error::Error;
use crate::model::{Model, OpenOptions};
use crate::session::{Session, SessionOptions};
use crate::tensor::{Given, Room};
use hub_abi::Dtype;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// `hub_model` of the header.
#[allow(non_camel_case_types)]
pub struct hub_model(Model);

/// `hub_session` of the header.
#[allow(non_camel_case_types)]
pub struct hub_session {
    session: Session,
    dims: Vec<[usize; 8]>,
    rooms: Vec<Room>,
}

/// `hub_tensor` of the header.
#[repr(C)]
#[derive(Clone, Copy)]
#[allow(non_camel_case_types)]
pub struct hub_tensor {
    /// ONNX's number of the element type.
    pub dtype: i32,
    /// Number of axes, at most 8.
    pub rank: i32,
    /// Sizes of the axes.
    pub dims: [i64; 8],
    /// Elements.
    pub data: *mut c_void,
    /// Size of `data`.
    pub bytes: usize,
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

fn note(e: &Error) -> i32 {
    let text = e.to_string().replace('\0', " ");
    LAST.with(|l| *l.borrow_mut() = CString::new(text).unwrap_or_default());
    e.code()
}

/// Runs `f`, turning errors and panics into statuses.
pub(crate) fn guard(f: impl FnOnce() -> Result<(), Error>) -> i32 {
    match catch_unwind(AssertUnwindSafe(f)) {
        Ok(Ok(())) => 0,
        Ok(Err(e)) => note(&e),
        Err(p) => {
            let what = p.downcast_ref::<String>().map(String::as_str);
            let what = what.or(p.downcast_ref::<&str>().copied()).unwrap_or("a panic");
            let status = note(&Error::Internal(what.into()));
            // Dropping the payload may panic in turn.
            std::mem::forget(p);
            status
        }
    }
}

pub(crate) fn usage<T>(what: &str) -> Result<T, Error> {
    Err(Error::Usage(what.into()))
}

/// Opens a bundle.
///
/// # Safety
/// `path` is NULL or a C string, `out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_model_open(path: *const c_char, out: *mut *mut hub_model) -> i32 {
    // SAFETY: by the caller's promise.
    guard(|| unsafe { open_model(path, &OpenOptions::default(), out) })
}

/// # Safety
/// As [`hub_model_open`].
pub(crate) unsafe fn open_model(
    path: *const c_char,
    options: &OpenOptions,
    out: *mut *mut hub_model,
) -> Result<(), Error> {
    if path.is_null() || out.is_null() {
        return usage("hub_model_open: path or out is NULL");
    }
    // SAFETY: not null, so writable by the caller's promise.
    unsafe { *out = std::ptr::null_mut() };
    // SAFETY: not null, so a C string by the caller's promise.
    let path = unsafe { CStr::from_ptr(path) };
    let model = Model::open(os_path(path)?, options)?;
    // SAFETY: as above.
    unsafe { *out = Box::into_raw(Box::new(hub_model(model))) };
    Ok(())
}

/// # Safety
/// `p` is NULL or a C string.
pub(crate) unsafe fn text(p: *const c_char) -> Option<String> {
    // SAFETY: not null, so a C string by the caller's promise.
    (!p.is_null()).then(|| unsafe { CStr::from_ptr(p) }.to_string_lossy().into_owned())
}

#[cfg(unix)]
fn os_path(path: &CStr) -> Result<&std::path::Path, Error> {
    use std::os::unix::ffi::OsStrExt;
    Ok(std::path::Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())))
}

#[cfg(not(unix))]
fn os_path(path: &CStr) -> Result<&std::path::Path, Error> {
    let path = path.to_str().map_err(|_| Error::Usage("the path is not UTF-8".into()))?;
    Ok(std::path::Path::new(path))
}

/// Checks every hash of a bundle.
///
/// # Safety
/// `model` is NULL or from [`hub_model_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_model_verify(model: *const hub_model) -> i32 {
    guard(|| {
        // SAFETY: by the caller's promise.
        match unsafe { model.as_ref() } {
            Some(m) => m.0.verify(),
            None => usage("hub_model_verify: the model is NULL"),
        }
    })
}

/// Gives a model back.
///
/// # Safety
/// `model` is NULL or from [`hub_model_open`] and not closed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_model_close(model: *mut hub_model) {
    if !model.is_null() {
        // SAFETY: made by `Box::into_raw` and not freed yet, by the caller's promise.
        let model = unsafe { Box::from_raw(model) };
        guard(move || {
            drop(model);
            Ok(())
        });
    }
}

/// Describes an input or output.
///
/// # Safety
/// `model` is NULL or open; `name` and `spec` are NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_model_io(
    model: *const hub_model,
    is_output: i32,
    index: usize,
    name: *mut *const c_char,
    spec: *mut hub_tensor,
) -> i32 {
    guard(|| {
        // SAFETY: by the caller's promise.
        let Some(m) = (unsafe { model.as_ref() }) else {
            return usage("hub_model_io: the model is NULL");
        };
        let manifest = m.0.manifest();
        let (list, first) = match is_output {
            0 => (&manifest.inputs, 0),
            _ => (&manifest.outputs, manifest.inputs.len()),
        };
        let Some(info) = list.get(index) else {
            return usage("hub_model_io: the index is past the end");
        };
        if !name.is_null() {
            // SAFETY: not null, so writable; the names live as long as the model.
            unsafe { *name = m.0.0.names[first + index].as_ptr() };
        }
        if spec.is_null() {
            return Ok(());
        }
        let Some(t) = info.ty.as_tensor().filter(|t| t.rank() <= 8) else {
            let what = format!("'{}' is no tensor of rank up to 8", info.name);
            return Err(Error::Unsupported(what));
        };
        let mut dims = [0; 8];
        dims.iter_mut().zip(&t.dims).for_each(|(d, x)| *d = x.as_const().unwrap_or(-1));
        let dtype = t.dtype as i32;
        let data = std::ptr::null_mut();
        // SAFETY: not null, so writable by the caller's promise.
        unsafe { *spec = hub_tensor { dtype, rank: t.rank() as i32, dims, data, bytes: 0 } };
        Ok(())
    })
}

/// Makes a session.
///
/// # Safety
/// `model` is NULL or open, `device` NULL or a C string, `out` NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_session_new(
    model: *const hub_model,
    device: *const c_char,
    threads: i32,
    out: *mut *mut hub_session,
) -> i32 {
    guard(|| {
        // SAFETY: by the caller's promise.
        let device = unsafe { text(device) }.unwrap_or_default();
        let threads = threads.max(0) as usize;
        let options = SessionOptions { threads, device, ..SessionOptions::default() };
        // SAFETY: by the caller's promise.
        unsafe { make_session(model, &options, out) }
    })
}

/// # Safety
/// `model` is NULL or open, `out` NULL or writable.
pub(crate) unsafe fn make_session(
    model: *const hub_model,
    options: &SessionOptions,
    out: *mut *mut hub_session,
) -> Result<(), Error> {
    // SAFETY: by the caller's promise.
    let (Some(m), false) = (unsafe { model.as_ref() }, out.is_null()) else {
        return usage("hub_session_new: model or out is NULL");
    };
    // SAFETY: not null, so writable by the caller's promise.
    unsafe { *out = std::ptr::null_mut() };
    let session = Session::new(&m.0, options)?;
    if !session.warning().is_empty() {
        eprintln!("hub: warning: {}", session.warning());
    }
    let manifest = m.0.manifest();
    let session = hub_session {
        session,
        dims: vec![[0; 8]; manifest.inputs.len()],
        rooms: vec![Room::NONE; manifest.outputs.len()],
    };
    // SAFETY: as above.
    unsafe { *out = Box::into_raw(Box::new(session)) };
    Ok(())
}

/// Frees a session.
///
/// # Safety
/// `session` is NULL or from [`hub_session_new`] and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_session_free(session: *mut hub_session) {
    if !session.is_null() {
        // SAFETY: made by `Box::into_raw` and not freed yet, by the caller's promise.
        let session = unsafe { Box::from_raw(session) };
        guard(move || {
            drop(session);
            Ok(())
        });
    }
}

/// What went wrong last on this thread.
#[unsafe(no_mangle)]
pub extern "C" fn hub_last_error() -> *const c_char {
    LAST.with(|l| l.borrow().as_ptr())
}

/// Runs the model.
///
/// # Safety
/// `session` is NULL or live and used by no other thread; `input` and `output` have `n_in` and
/// `n_out` elements, whose `data` are NULL or have `bytes` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hub_session_run(
    session: *mut hub_session,
    input: *const hub_tensor,
    n_in: usize,
    output: *mut hub_tensor,
    n_out: usize,
) -> i32 {
    guard(|| {
        // SAFETY: by the caller's promise.
        let Some(s) = (unsafe { session.as_mut() }) else {
            return usage("hub_session_run: the session is NULL");
        };
        if (n_in, n_out) != (s.dims.len(), s.rooms.len()) {
            let what = format!(
                "{n_in} inputs and {n_out} outputs given, the model has {} and {}",
                s.dims.len(),
                s.rooms.len()
            );
            return Err(Error::Usage(what));
        }
        if (input.is_null() && n_in > 0) || (output.is_null() && n_out > 0) {
            return usage("hub_session_run: the tensors are NULL");
        }
        // SAFETY: not null where not empty, and that long by the caller's promise.
        let (input, output) = unsafe { (slice(input, n_in), slice_mut(output, n_out)) };
        for (room, o) in s.rooms.iter_mut().zip(output.iter()) {
            let at = o.data.cast::<u8>();
            *room = Room { at, len: if at.is_null() { 0 } else { o.bytes } };
        }
        // SAFETY: by the caller's promise.
        let result = unsafe { run(s, input) };
        match result {
            Ok(()) => report(s, output, true),
            Err(e @ Error::TooSmall { .. }) => report(s, output, false).and(Err(e)),
            Err(e) => Err(e),
        }
    })
}

/// # Safety
/// Not null where `n > 0`; valid for `n` elements.
unsafe fn slice<'a, T>(p: *const T, n: usize) -> &'a [T] {
    // SAFETY: by the caller's promise.
    if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(p, n) } }
}

/// # Safety
/// Not null where `n > 0`; valid and exclusive for `n` elements.
unsafe fn slice_mut<'a, T>(p: *mut T, n: usize) -> &'a mut [T] {
    // SAFETY: by the caller's promise.
    if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(p, n) } }
}

/// # Safety
/// Tensors' data and the session's rooms are valid as `hub_session_run` says.
unsafe fn run(s: &mut hub_session, input: &[hub_tensor]) -> Result<(), Error> {
    for (i, (dims, t)) in s.dims.iter_mut().zip(input).enumerate() {
        if !(0..=8).contains(&t.rank) {
            return Err(Error::Usage(format!("input {i} has rank {}", t.rank)));
        }
        for (d, &x) in dims.iter_mut().zip(&t.dims[..t.rank as usize]) {
            *d = usize::try_from(x).map_err(|_| Error::Usage(format!("input {i}: dim {x}")))?;
        }
    }
    let given = |i: usize| -> Result<Option<Given<'_>>, Error> {
        let t = &input[i];
        let bad = || Error::Usage(format!("input {i} has unknown dtype {}", t.dtype));
        let g = Given {
            dtype: Dtype::from_onnx(t.dtype).ok_or_else(bad)?,
            dims: &s.dims[i][..t.rank as usize],
            at: t.data.cast::<u8>().cast_const(),
            len: t.bytes,
        };
        if t.data.is_null() && g.need() != Some(0) {
            return Err(Error::Usage(format!("input {i} has no data")));
        }
        Ok(Some(Given { len: if t.data.is_null() { 0 } else { g.len }, ..g }))
    };
    const FEW: usize = 16;
    let (mut few, mut many) = ([None; FEW], vec![]);
    let all = match input.len() {
        n @ 0..=FEW => {
            for (i, f) in few[..n].iter_mut().enumerate() {
                *f = given(i)?;
            }
            &few[..n]
        }
        n => {
            for i in 0..n {
                many.push(given(i)?);
            }
            &many[..]
        }
    };
    // SAFETY: by the caller's promise.
    unsafe { s.session.run_raw(all, &s.rooms) }
}

/// Describes outputs to the caller; where memory was not given, points it at the session's if `ran`.
fn report(s: &hub_session, output: &mut [hub_tensor], ran: bool) -> Result<(), Error> {
    for (o, m) in output.iter_mut().zip(s.session.made()) {
        if m.dims.len() > 8 {
            return Err(Error::Unsupported(format!("an output of rank {}", m.dims.len())));
        }
        o.dtype = m.dtype as i32;
        o.rank = m.dims.len() as i32;
        o.dims = [0; 8];
        o.dims.iter_mut().zip(&m.dims).for_each(|(d, &x)| *d = x as i64);
        o.bytes = m.len;
        if o.data.is_null() && ran {
            o.data = m.at.cast_mut().cast();
        }
    }
    Ok(())
}
