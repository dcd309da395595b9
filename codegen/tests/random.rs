//! Random small kernels: nested loops with constant, bound and computed extents, unrolling,
//! branches, accumulators, masked and indexed memory, stores between loads. A kernel is grown from
//! a list of decisions, so that proptest shrinks it.

mod common;
use common::{Same, check};
use hub_abi::Dtype;
use hub_codegen::kir::interp::Arg;
use hub_codegen::kir::*;
use proptest::prelude::*;

const TILE: i64 = 16384;

struct Grow {
    script: std::vec::IntoIter<u32>,
    b: KernelBuilder,
    lanes: usize,
    src: ParamId,
    out: ParamId,
    stride: ParamId,
    small: ParamId,
    tiles: Vec<AxisId>,
    axes: Vec<AxisId>,
    /// Registers defined here, by kind.
    vecs: Vec<Reg>,
    ints: Vec<Reg>,
    scalars: Vec<Reg>,
    index: Vec<Reg>,
    masks: Vec<Reg>,
    left: u32,
}

impl Grow {
    fn pick(&mut self, n: usize) -> usize {
        self.script.next().unwrap_or(0) as usize % n
    }

    fn one(&mut self, v: &[Reg]) -> Reg {
        let i = self.pick(v.len());
        v[v.len() - 1 - i]
    }

    fn v(&mut self) -> Reg {
        let v = self.vecs.clone();
        self.one(&v)
    }

    fn f(&self) -> RegTy {
        RegTy::new(Elem::F32, self.lanes)
    }

    /// Terms that move an address by at most a few thousand bytes.
    fn walk(&mut self, mut a: Addr) -> Addr {
        for x in self.axes.clone() {
            match self.pick(4) {
                0 => {}
                1 => a = a.plus(x, 4),
                2 => a = a.plus(x, 64 * self.pick(4) as i64),
                _ => a = a.plus(x, self.stride),
            }
        }
        if self.pick(2) == 1 {
            let n = self.pick(14) as i64;
            a = a.row(n, self.stride);
        }
        if self.pick(4) == 1 {
            let r = self.index.clone();
            let r = self.one(&r);
            match self.pick(3) {
                0 => a = a.plus(r, 8),
                1 => a = a.plus(r, 12),
                _ => a = a.plus(r, self.stride),
            }
        }
        a.offset(4 * self.pick(200) as i64)
    }

    fn read(&mut self) -> Addr {
        if self.pick(3) == 1 {
            return self.own();
        }
        let a = Addr::param(self.src);
        self.walk(a)
    }

    /// An address in this tile's part of the output.
    fn own(&mut self) -> Addr {
        let a = Addr::param(self.out).plus(self.tiles[0], 3 * TILE).plus(self.tiles[1], TILE);
        self.walk(a)
    }

    fn mask(&mut self) -> Option<Reg> {
        (self.pick(3) == 1).then(|| {
            let m = self.masks.clone();
            self.one(&m)
        })
    }

    fn block(&mut self, depth: u32) {
        let sizes = [
            self.vecs.len(),
            self.ints.len(),
            self.scalars.len(),
            self.index.len(),
            self.masks.len(),
        ];
        let n = 1 + self.pick(6);
        for _ in 0..n {
            if self.left == 0 {
                break;
            }
            self.left -= 1;
            self.stmt(depth);
        }
        self.vecs.truncate(sizes[0]);
        self.ints.truncate(sizes[1]);
        self.scalars.truncate(sizes[2]);
        self.index.truncate(sizes[3]);
        self.masks.truncate(sizes[4]);
    }

    fn stmt(&mut self, depth: u32) {
        match self.pick(16) {
            0 | 1 => {
                let (a, m) = (self.read(), self.mask());
                let r = self.b.load(self.f(), a, Dtype::F32, m);
                self.vecs.push(r);
            }
            2 => {
                let a = self.read();
                let r = self.b.load_splat(self.f(), a, Dtype::F32);
                self.vecs.push(r);
            }
            3 | 4 => {
                let (a, m, v) = (self.own(), self.mask(), self.v());
                self.b.store(v, a, Dtype::F32, m);
            }
            5 | 6 => {
                let (acc, x, y) = (self.v(), self.v(), self.v());
                self.b.fma_acc(acc, x, y);
            }
            7 => {
                let (x, y, z) = (self.v(), self.v(), self.v());
                let r = self.b.fma(x, y, z);
                self.vecs.push(r);
            }
            8 => {
                let (x, y, d) = (self.v(), self.v(), self.v());
                let op = [BinOp::Add, BinOp::Sub, BinOp::Mul, BinOp::Min, BinOp::Max][self.pick(5)];
                if self.pick(2) == 0 {
                    self.b.bin_to(op, d, x, y);
                } else {
                    let k = self.b.const_f(self.f(), 0.5);
                    let r = self.b.bin(op, x, k);
                    self.vecs.push(r);
                }
            }
            9 => {
                let (d, x) = (self.v(), self.v());
                self.b.copy_to(d, x);
            }
            10 => {
                let (x, y) = (self.v(), self.v());
                let m = self.b.cmp(CmpOp::Lt, x, y);
                self.masks.push(m);
                let r = self.b.select(m, y, x);
                self.vecs.push(r);
            }
            11 => self.index_stmt(),
            12 => {
                let d = self.v();
                let s = self.scalars.clone();
                let s = self.one(&s);
                let r = self.b.splat(s, self.lanes);
                self.b.bin_to(BinOp::Add, d, d, r);
                let x = self.v();
                let r = self.b.reduce(ReduceOp::Max, x);
                self.scalars.push(r);
            }
            13 if depth < 3 => {
                let r = self.index.clone();
                let a = self.one(&r);
                let op = [CmpOp::Lt, CmpOp::Eq, CmpOp::Ge][self.pick(3)];
                let k = self.pick(4) as i64;
                self.b.begin();
                self.block(depth + 1);
                let then = self.b.end();
                self.b.begin();
                if self.pick(2) == 1 {
                    self.block(depth + 1);
                }
                let els = self.b.end();
                let cond = Cond { op, a: a.into(), b: k.into() };
                self.b.push(Stmt::If { cond, then, els });
            }
            14 | 15 if depth < 3 => self.for_stmt(depth),
            _ => {
                let a = self.read();
                self.b.prefetch(a, 1);
            }
        }
    }

    fn index_stmt(&mut self) {
        let mut at = Affine::constant(self.pick(3) as i64 - 1);
        for x in self.axes.clone() {
            at = at.plus(x, self.pick(3) as i64);
        }
        let old = self.index.clone();
        let old = self.one(&old);
        at = at.plus(old, 1);
        let i = self.b.index(at);
        let n = 1 + self.pick(5) as i64;
        let i = self.b.check_index(i, n);
        if self.pick(2) == 0 {
            self.index.push(i);
        } else {
            self.b.copy_to(old, i);
        }
        let count = self.pick(self.lanes + 1) as i64;
        let m = self.b.first_lanes(self.lanes, count);
        self.masks.push(m);
    }

    fn for_stmt(&mut self, depth: u32) {
        let extent = match self.pick(3) {
            0 => Scalar::Const(self.pick(6) as i64),
            1 => Scalar::Param(self.small),
            _ => {
                let r = self.index.clone();
                Scalar::Reg(self.one(&r))
            }
        };
        let unroll = self.pick(5) as u32;
        let name = format!("i{depth}_{}", self.left);
        let axis = self.b.axis(name);
        self.b.begin();
        self.axes.push(axis);
        self.block(depth + 1);
        self.axes.pop();
        let body = self.b.end();
        self.b.push(Stmt::For { axis, extent, unroll, body });
    }
}

fn grow(script: Vec<u32>, lanes: usize) -> Kernel {
    let mut b = KernelBuilder::new("random");
    let src = b.ptr("src", Dtype::F32, Access::Read);
    let out = b.ptr("out", Dtype::F32, Access::ReadWrite);
    let (stride, small) = (b.size("stride"), b.size("small"));
    b.status();
    let g0 = b.grid("g0", 2);
    let g1 = b.grid("g1", small);
    let f = RegTy::new(Elem::F32, lanes);
    let start = b.load(f, Addr::param(src).plus(g1, 256).plus(g0, 64), Dtype::F32, None);
    let zero = b.zero(f);
    let one = b.const_f(f, 1.25);
    let s = b.load(RegTy::new(Elem::F32, 1), Addr::param(src).plus(g0, 4), Dtype::F32, None);
    let i = b.index(Affine::constant(0).plus(g0, 1).plus(g1, 1));
    let m = b.first_lanes(lanes, 3);
    let mut g = Grow {
        script: script.into_iter(),
        b,
        lanes,
        src,
        out,
        stride,
        small,
        tiles: vec![g0, g1],
        axes: vec![],
        vecs: vec![start, one, zero],
        ints: vec![],
        scalars: vec![s],
        index: vec![i],
        masks: vec![m],
        left: 40,
    };
    g.block(0);
    g.block(0);
    g.block(0);
    for (n, r) in [start, one, zero].into_iter().enumerate() {
        let at = Addr::param(out).plus(g0, 3 * TILE).plus(g1, TILE).offset(15_000 + 64 * n as i64);
        g.b.store(r, at, Dtype::F32, None);
    }
    g.b.finish()
}

fn run_one(script: Vec<u32>, lanes: usize, small: i64) {
    let k = grow(script, lanes);
    let src: Vec<u8> = (0..8192u32)
        .flat_map(|i| (((i * 37 + 11) % 101) as f32 / 64.0 - 0.7).to_le_bytes())
        .collect();
    let out: Vec<u8> = (0..6 * TILE / 4)
        .flat_map(|i| (((i * 13 + 5) % 97) as f32 / 80.0 - 0.5).to_le_bytes())
        .collect();
    let buf = |buf| Arg::Buf { buf, offset: 0 };
    let args = [buf(0), buf(1), Arg::Size(192), Arg::Size(small), Arg::Status];
    let ran = check(&k, &args, &[src, out], Same::F32);
    if std::env::var_os("HUB_SHOW").is_some() {
        println!("ran {ran}, {} lines", k.to_string().lines().count());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn random_kernels_agree_with_the_interpreter(
        script in proptest::collection::vec(0u32..1000, 10..400),
        wide in 0usize..3,
        small in 1i64..4,
    ) {
        run_one(script, [4, 8, 16][wide], small);
    }
}
