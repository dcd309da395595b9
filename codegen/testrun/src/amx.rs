//! AMX on processors without it: [`install`] makes the process execute the six instructions that
//! kernels use by software, when the processor refuses them (SIGILL). For tests of emitted code.
//!
//! Written from Intel's manual, sharing nothing with the code generator: bytes are decoded by hand.

use std::cell::RefCell;

/// A tile register.
#[derive(Clone, Copy)]
struct Tile {
    rows: usize,
    bytes: usize,
    data: [[u8; 64]; 16],
}

const EMPTY: Tile = Tile { rows: 0, bytes: 0, data: [[0; 64]; 16] };

thread_local! {
    static TILES: RefCell<[Tile; 8]> = const { RefCell::new([EMPTY; 8]) };
    static COUNT: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Tile instructions that this thread has executed by software.
pub fn executed() -> u64 {
    COUNT.get()
}

/// Executes AMX by software from now on, in this process.
pub fn install() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        // SAFETY: `refused` has the signature that SA_SIGINFO asks for and lives forever.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = refused as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
            libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut());
        }
    });
}

extern "C" fn refused(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel hands the interrupted context, whose rip points at readable code.
    unsafe {
        let regs = &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let at = regs[libc::REG_RIP as usize] as usize as *const u8;
        match execute(at, regs) {
            Some(len) => {
                COUNT.set(COUNT.get() + 1);
                regs[libc::REG_RIP as usize] += len as i64;
            }
            None => libc::abort(),
        }
    }
}

/// General registers by number.
const REGS: [i32; 16] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSP,
    libc::REG_RBP,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// A decoded memory operand: base plus displacement, the index register's value, bytes decoded.
struct Operand {
    base: i64,
    index: i64,
    len: usize,
}

/// Executes the instruction at `p`; its length, or none where it is no tile instruction.
///
/// # Safety
/// `p` points at 16 readable bytes, memory operands at what the instruction may touch.
unsafe fn execute(p: *const u8, regs: &[i64; 23]) -> Option<usize> {
    // SAFETY: upheld by the caller.
    let byte = |i: usize| unsafe { *p.add(i) };
    // Three-byte VEX, map 0F38.
    if byte(0) != 0xc4 || byte(1) & 0x1f != 2 {
        return None;
    }
    let (extend, vex, op, modrm) = (!byte(1) >> 5, byte(2), byte(3), byte(4));
    let (pp, other) = (vex & 3, (!vex >> 3) & 15);
    let (kind, reg, rm) = (modrm >> 6, (modrm >> 3 & 7) as usize, (modrm & 7) as usize);
    // SAFETY: as for `byte`: `p` is at a whole instruction, whose operand these bytes name.
    let memory = || unsafe { operand(p, regs, extend) };
    TILES.with_borrow_mut(|tiles| match (op, pp, kind) {
        (0x49, 0, 3) if modrm == 0xc0 => {
            *tiles = [EMPTY; 8];
            Some(5)
        }
        (0x49, 0, _) => {
            let m = memory();
            // SAFETY: `ldtilecfg` reads 64 bytes.
            let c = unsafe { *((m.base + m.index) as *const [u8; 64]) };
            for (t, tile) in tiles.iter_mut().enumerate() {
                *tile = EMPTY;
                tile.bytes = u16::from_le_bytes([c[16 + 2 * t], c[17 + 2 * t]]) as usize;
                tile.rows = c[48 + t] as usize;
            }
            (c[0] == 1).then_some(m.len)
        }
        (0x49, 3, 3) => {
            tiles[reg].data = [[0; 64]; 16];
            Some(5)
        }
        (0x4b, 3, _) | (0x4b, 2, _) => {
            let m = memory();
            let t = &mut tiles[reg];
            for row in 0..t.rows {
                let at = (m.base + m.index * row as i64) as *mut u8;
                let line = t.data[row].as_mut_ptr();
                // SAFETY: the instruction moves `bytes` bytes of each row.
                unsafe {
                    match pp {
                        3 => std::ptr::copy_nonoverlapping(at, line, t.bytes),
                        _ => std::ptr::copy_nonoverlapping(line, at, t.bytes),
                    }
                }
            }
            Some(m.len)
        }
        (0x5c, 2, 3) => {
            let (a, b) = (tiles[rm], tiles[other as usize]);
            dot(&mut tiles[reg], &a, &b).then_some(5)
        }
        _ => None,
    })
}

/// The memory operand behind a three-byte VEX prefix and an opcode.
///
/// # Safety
/// `p` points at 16 readable bytes.
unsafe fn operand(p: *const u8, regs: &[i64; 23], extend: u8) -> Operand {
    // SAFETY: upheld by the caller.
    let byte = |i: usize| unsafe { *p.add(i) };
    let word = |i: usize| i32::from_le_bytes(std::array::from_fn(|k| byte(i + k))) as i64;
    let value = |n: u8| regs[REGS[n as usize] as usize];
    let (kind, rm) = (byte(4) >> 6, byte(4) & 7);
    let rip = regs[libc::REG_RIP as usize];
    if kind == 0 && rm == 5 {
        return Operand { base: rip + 9 + word(5), index: 0, len: 9 };
    }
    let (mut at, mut index) = (5, 0);
    let mut base = value(rm | (extend & 1) << 3);
    if rm == 4 {
        let sib = byte(5);
        at = 6;
        let (scale, i, b) = (sib >> 6, (sib >> 3 & 7) | (extend >> 1 & 1) << 3, sib & 7);
        base = if b == 5 && kind == 0 { 0 } else { value(b | (extend & 1) << 3) };
        index = if i == 4 { 0 } else { value(i) << scale };
        if b == 5 && kind == 0 {
            return Operand { base: word(at), index, len: at + 4 };
        }
    }
    match kind {
        1 => Operand { base: base + byte(at) as i8 as i64, index, len: at + 1 },
        2 => Operand { base: base + word(at), index, len: at + 4 },
        _ => Operand { base, index, len: at },
    }
}

fn flush(x: f32) -> f32 {
    if x.is_subnormal() { 0f32.copysign(x) } else { x }
}

/// `tdpbf16ps`; false where the shapes make it fault.
fn dot(acc: &mut Tile, a: &Tile, b: &Tile) -> bool {
    let half = |line: &[u8; 64], i: usize| {
        flush(f32::from_bits(u32::from(u16::from_le_bytes([line[2 * i], line[2 * i + 1]])) << 16))
    };
    if acc.rows == 0 || acc.rows != a.rows || acc.bytes != b.bytes || a.bytes != 4 * b.rows {
        return false;
    }
    for m in 0..acc.rows {
        let mut sums = [0f32; 32];
        for k in 0..a.bytes / 4 {
            for n in 0..acc.bytes / 4 {
                for h in 0..2 {
                    let (x, y) = (half(&a.data[m], 2 * k + h), half(&b.data[k], 2 * n + h));
                    sums[2 * n + h] = flush(x.mul_add(y, sums[2 * n + h]));
                }
            }
        }
        for n in 0..acc.bytes / 4 {
            let at = &mut acc.data[m][4 * n..4 * n + 4];
            let old = f32::from_le_bytes([at[0], at[1], at[2], at[3]]);
            let sum = flush(flush(old) + flush(sums[2 * n] + sums[2 * n + 1]));
            at.copy_from_slice(&sum.to_le_bytes());
        }
    }
    true
}
