//! Baseline JPEG (ITU-T T.81, sequential, 8 bits, Huffman) to the bit as ONNX's ImageDecoder wants it:
//! the accurate integer inverse transform and the smooth chroma upsampling of libjpeg. What this does
//! not read (progressive files, other colour spaces) gives nothing, and is left to the image crate.

/// Order of coefficients in a block's stream.
const ZIGZAG: [usize; 64] = [
    0, 1, 8, 16, 9, 2, 3, 10, 17, 24, 32, 25, 18, 11, 4, 5, 12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6, 7, 14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59,
    52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
];

/// Codes by length: the first code, how many there are, where their symbols start.
#[derive(Clone, Default)]
struct Huffman {
    rows: Vec<(i32, i32, usize)>,
    symbols: Vec<u8>,
}

impl Huffman {
    fn new(counts: &[u8], symbols: &[u8]) -> Huffman {
        let (mut code, mut at, mut rows) = (0, 0, vec![]);
        for &n in counts {
            rows.push((code, i32::from(n), at));
            at += usize::from(n);
            code = (code + i32::from(n)) << 1;
        }
        Huffman { rows, symbols: symbols.to_vec() }
    }
}

/// One colour component: sampling factors, tables, and its samples in whole blocks.
#[derive(Clone, Default)]
struct Component {
    id: u8,
    h: usize,
    v: usize,
    quant: usize,
    dc: usize,
    ac: usize,
    /// Samples that belong to the image.
    width: usize,
    height: usize,
    stride: usize,
    samples: Vec<u8>,
    last_dc: i32,
}

#[derive(Default)]
struct Decoder {
    width: usize,
    height: usize,
    parts: Vec<Component>,
    quant: [Option<[i32; 64]>; 4],
    dc: [Huffman; 4],
    ac: [Huffman; 4],
    restart: usize,
    /// Adobe's colour transform, where the file names one.
    transform: Option<u8>,
}

/// The bits of a scan; past its end come zeros.
struct Bits<'a> {
    data: &'a [u8],
    at: usize,
    hold: u32,
    have: u32,
}

impl Bits<'_> {
    fn bit(&mut self) -> i32 {
        if self.have == 0 {
            let byte = match (self.data.get(self.at), self.data.get(self.at + 1)) {
                (Some(0xff), Some(0)) => {
                    self.at += 2;
                    0xff
                }
                // A marker ends the data.
                (Some(0xff), _) | (None, _) => 0,
                (Some(&b), _) => {
                    self.at += 1;
                    b
                }
            };
            (self.hold, self.have) = (byte.into(), 8);
        }
        self.have -= 1;
        (self.hold >> self.have & 1) as i32
    }

    fn symbol(&mut self, t: &Huffman) -> Option<u8> {
        let mut code = 0;
        for &(first, n, at) in &t.rows {
            code |= self.bit();
            if code - first < n && code >= first {
                return t.symbols.get(at + (code - first) as usize).copied();
            }
            code <<= 1;
        }
        None
    }

    /// A signed number of `n` bits.
    fn number(&mut self, n: u8) -> i32 {
        let v = (0..n).fold(0, |v, _| v << 1 | self.bit());
        if n > 0 && v < 1 << (n - 1) { v - (1 << n) + 1 } else { v }
    }

    /// Past the next restart marker, on a byte's edge.
    fn restart(&mut self) {
        self.have = 0;
        while let (Some(&a), Some(&b)) = (self.data.get(self.at), self.data.get(self.at + 1)) {
            if a == 0xff && (0xd0..=0xd7).contains(&b) {
                self.at += 2;
                return;
            }
            if a == 0xff && b != 0 && b != 0xff {
                return;
            }
            self.at += 1;
        }
    }
}

/// Width, height and RGB bytes; a grey image has all three the same.
pub(crate) fn decode(data: &[u8], most: u64) -> Option<(usize, usize, Vec<u8>)> {
    let mut d = Decoder::default();
    let mut at = 2;
    if data.get(..2)? != [0xff, 0xd8] {
        return None;
    }
    loop {
        let marker = *data.get(at + 1)?;
        if data[at] != 0xff {
            return None;
        }
        if marker == 0xff {
            at += 1;
            continue;
        }
        let len = usize::from(u16::from_be_bytes([*data.get(at + 2)?, *data.get(at + 3)?]));
        let body = data.get(at + 4..at + 2 + len)?;
        at += 2 + len;
        match marker {
            0xc0 | 0xc1 => d.frame(body, most)?,
            0xc4 => d.huffman(body)?,
            0xdb => d.quantisation(body)?,
            0xdd => d.restart = usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?])),
            0xee if body.starts_with(b"Adobe") => d.transform = body.get(11).copied(),
            0xda => {
                d.scan(body, &data[at..])?;
                return d.image();
            }
            0xc2..=0xcf => return None,
            _ => {}
        }
    }
}

impl Decoder {
    fn quantisation(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = body.split_first() {
            let wide = head >> 4 != 0;
            let size = if wide { 128 } else { 64 };
            let values = rest.get(..size)?;
            let mut table = [0; 64];
            for (i, &z) in ZIGZAG.iter().enumerate() {
                table[z] = match wide {
                    true => i32::from(u16::from_be_bytes([values[2 * i], values[2 * i + 1]])),
                    false => values[i].into(),
                };
            }
            *self.quant.get_mut(usize::from(head & 15))? = Some(table);
            body = &rest[size..];
        }
        Some(())
    }

    fn huffman(&mut self, mut body: &[u8]) -> Option<()> {
        while let Some((&head, rest)) = body.split_first() {
            let counts = rest.get(..16)?;
            let n: usize = counts.iter().map(|&c| usize::from(c)).sum();
            let table = Huffman::new(counts, rest.get(16..16 + n)?);
            let tables = if head >> 4 == 0 { &mut self.dc } else { &mut self.ac };
            *tables.get_mut(usize::from(head & 15))? = table;
            body = &rest[16 + n..];
        }
        Some(())
    }

    fn frame(&mut self, body: &[u8], most: u64) -> Option<()> {
        let &[bits, h1, h0, w1, w0, n, ref rest @ ..] = body else { return None };
        (self.height, self.width) =
            (usize::from(u16::from_be_bytes([h1, h0])), usize::from(u16::from_be_bytes([w1, w0])));
        let sound = bits == 8 && matches!(n, 1 | 3) && rest.len() == 3 * usize::from(n);
        if !sound || !self.parts.is_empty() || self.width == 0 || self.height == 0 {
            return None;
        }
        if (self.width as u64 + 64) * (self.height as u64 + 64) * 3 > most {
            return None;
        }
        for c in rest.chunks_exact(3) {
            let (h, v) = (usize::from(c[1] >> 4), usize::from(c[1] & 15));
            if !(1..=2).contains(&h) || !(1..=2).contains(&v) || c[2] > 3 {
                return None;
            }
            self.parts.push(Component {
                id: c[0],
                h,
                v,
                quant: c[2].into(),
                ..Component::default()
            });
        }
        if let [only] = &mut self.parts[..] {
            (only.h, only.v) = (1, 1);
        }
        let (hm, vm) = self.most();
        let (mw, mh) = (self.width.div_ceil(8 * hm), self.height.div_ceil(8 * vm));
        for p in &mut self.parts {
            p.width = (self.width * p.h).div_ceil(hm);
            p.height = (self.height * p.v).div_ceil(vm);
            p.stride = mw * p.h * 8;
            p.samples = vec![0; p.stride * mh * p.v * 8];
        }
        Some(())
    }

    fn most(&self) -> (usize, usize) {
        let h = self.parts.iter().map(|p| p.h).max().unwrap_or(1);
        (h, self.parts.iter().map(|p| p.v).max().unwrap_or(1))
    }

    /// The one scan of an interleaved file.
    fn scan(&mut self, head: &[u8], data: &[u8]) -> Option<()> {
        let n = self.parts.len();
        if n == 0 || usize::from(*head.first()?) != n || head.len() != 4 + 2 * n {
            return None;
        }
        for (p, c) in self.parts.iter_mut().zip(head[1..].chunks_exact(2)) {
            if c[0] != p.id || c[1] >> 4 > 3 || c[1] & 15 > 3 {
                return None;
            }
            (p.dc, p.ac) = (usize::from(c[1] >> 4), usize::from(c[1] & 15));
            self.quant[p.quant]?;
        }
        let (hm, vm) = self.most();
        let (across, down) = (self.width.div_ceil(8 * hm), self.height.div_ceil(8 * vm));
        let mut bits = Bits { data, at: 0, hold: 0, have: 0 };
        for unit in 0..across * down {
            if self.restart > 0 && unit > 0 && unit.is_multiple_of(self.restart) {
                bits.restart();
                self.parts.iter_mut().for_each(|p| p.last_dc = 0);
            }
            for i in 0..n {
                let (h, v) = (self.parts[i].h, self.parts[i].v);
                for block in 0..h * v {
                    let x = unit % across * h + block % h;
                    let y = unit / across * v + block / h;
                    self.block(i, &mut bits, x, y)?;
                }
            }
        }
        Some(())
    }

    fn block(&mut self, i: usize, bits: &mut Bits<'_>, x: usize, y: usize) -> Option<()> {
        let p = &mut self.parts[i];
        let quant = self.quant[p.quant].as_ref()?;
        let mut coef = [0i32; 64];
        let n = bits.symbol(&self.dc[p.dc])?;
        if n > 15 {
            return None;
        }
        p.last_dc = p.last_dc.wrapping_add(bits.number(n));
        coef[0] = p.last_dc.wrapping_mul(quant[0]);
        let mut k = 1;
        while k < 64 {
            let s = bits.symbol(&self.ac[p.ac])?;
            let (run, n) = (usize::from(s >> 4), s & 15);
            if n == 0 {
                if run < 15 {
                    break;
                }
                k += 16;
                continue;
            }
            k += run;
            let z = *ZIGZAG.get(k)?;
            coef[z] = bits.number(n).wrapping_mul(quant[z]);
            k += 1;
        }
        let pixels = inverse(&coef);
        for (row, line) in pixels.chunks_exact(8).enumerate() {
            let at = (y * 8 + row) * p.stride + x * 8;
            p.samples.get_mut(at..at + 8)?.copy_from_slice(line);
        }
        Some(())
    }

    fn image(&self) -> Option<(usize, usize, Vec<u8>)> {
        let (hm, vm) = self.most();
        let planes: Vec<Vec<u8>> = self
            .parts
            .iter()
            .map(|p| self.upsampled(p, hm / p.h, vm / p.v))
            .collect::<Option<_>>()?;
        let ids: Vec<u8> = self.parts.iter().map(|p| p.id).collect();
        let plain = self.transform.map_or(ids == *b"RGB", |t| t == 0);
        let mut out = Vec::with_capacity(self.width * self.height * 3);
        for i in 0..self.width * self.height {
            match &planes[..] {
                [y] => out.extend([y[i]; 3]),
                [r, g, b] if plain => out.extend([r[i], g[i], b[i]]),
                [y, cb, cr] => out.extend(colour(y[i], cb[i], cr[i])),
                _ => return None,
            }
        }
        Some((self.width, self.height, out))
    }

    /// A component at the image's size.
    fn upsampled(&self, p: &Component, h: usize, v: usize) -> Option<Vec<u8>> {
        let row = |y: usize| p.samples.get(y * p.stride..y * p.stride + p.width);
        // Too narrow an image is not smoothed.
        let smooth = h == 1 || p.width > 2;
        let mut out = Vec::with_capacity(self.width * self.height);
        for y in 0..self.height {
            let near = row(y / v)?;
            let line = if v == 1 {
                match h {
                    1 => near.to_vec(),
                    _ if smooth => across(near, i32::from, [1, 2], 2),
                    _ => near.iter().flat_map(|&s| [s; 2]).collect(),
                }
            } else {
                let up = y.is_multiple_of(2);
                let far =
                    if up { (y / v).saturating_sub(1) } else { (y / v + 1).min(p.height - 1) };
                let pairs = near.iter().zip(row(far)?);
                let sums: Vec<i32> =
                    pairs.map(|(&a, &b)| 3 * i32::from(a) + i32::from(b)).collect();
                match h {
                    1 => sums.iter().map(|&s| ((s + if up { 1 } else { 2 }) >> 2) as u8).collect(),
                    _ if smooth => across(&sums, |s| s, [8, 7], 4),
                    _ => near.iter().flat_map(|&s| [s; 2]).collect(),
                }
            };
            out.extend_from_slice(line.get(..self.width)?);
        }
        Some(out)
    }
}

/// Twice as many samples: each lies at a quarter between two, three parts of the nearer; rounding up
/// and down in turn.
fn across<T: Copy>(row: &[T], wide: impl Fn(T) -> i32, round: [i32; 2], shift: u32) -> Vec<u8> {
    let n = row.len();
    let mut out = Vec::with_capacity(2 * n);
    for i in 0..n {
        let own = wide(row[i]);
        let (left, right) = (wide(row[i.saturating_sub(1)]), wide(row[(i + 1).min(n - 1)]));
        out.push(((3 * own + left + round[0]) >> shift) as u8);
        out.push(((3 * own + right + round[1]) >> shift) as u8);
    }
    out
}

/// ITU-R 601's colours, in 16 bits of fraction.
fn colour(y: u8, cb: u8, cr: u8) -> [u8; 3] {
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let half = 1 << 15;
    let r = y + ((91881 * cr + half) >> 16);
    let g = y + ((-22554 * cb - 46802 * cr + half) >> 16);
    let b = y + ((116130 * cb + half) >> 16);
    [r, g, b].map(|v| v.clamp(0, 255) as u8)
}

/// One dimension of the inverse transform (Loeffler, Ligtenberg and Moschytz), 13 bits of fraction.
fn transform(x: [i32; 8], shift: u32) -> [i32; 8] {
    let m = |a: i32, b: i32| a.wrapping_mul(b);
    let [x0, x1, x2, x3, x4, x5, x6, x7] = x;
    let z = m(x2.wrapping_add(x6), 4433);
    let (e2, e3) = (z.wrapping_sub(m(x6, 15137)), z.wrapping_add(m(x2, 6270)));
    let (e0, e1) = (m(x0.wrapping_add(x4), 1 << 13), m(x0.wrapping_sub(x4), 1 << 13));
    let even = [e0.wrapping_add(e3), e1.wrapping_add(e2), e1.wrapping_sub(e2), e0.wrapping_sub(e3)];
    let z5 = m(x7.wrapping_add(x3).wrapping_add(x5).wrapping_add(x1), 9633);
    let (z1, z2) = (m(x7.wrapping_add(x1), -7373), m(x5.wrapping_add(x3), -20995));
    let z3 = m(x7.wrapping_add(x3), -16069).wrapping_add(z5);
    let z4 = m(x5.wrapping_add(x1), -3196).wrapping_add(z5);
    let odd = [
        m(x1, 12299).wrapping_add(z1).wrapping_add(z4),
        m(x3, 25172).wrapping_add(z2).wrapping_add(z3),
        m(x5, 16819).wrapping_add(z2).wrapping_add(z4),
        m(x7, 2446).wrapping_add(z1).wrapping_add(z3),
    ];
    let round = |v: i32| v.wrapping_add(1 << (shift - 1)) >> shift;
    let mut out = [0; 8];
    for i in 0..4 {
        out[i] = round(even[i].wrapping_add(odd[i]));
        out[7 - i] = round(even[i].wrapping_sub(odd[i]));
    }
    out
}

/// A block of coefficients as samples.
fn inverse(coef: &[i32; 64]) -> [u8; 64] {
    let mut work = [0i32; 64];
    for c in 0..8 {
        let column = std::array::from_fn(|r| coef[r * 8 + c]);
        for (r, v) in transform(column, 11).into_iter().enumerate() {
            work[r * 8 + c] = v;
        }
    }
    let mut out = [0u8; 64];
    for r in 0..8 {
        let row = std::array::from_fn(|c| work[r * 8 + c]);
        for (c, v) in transform(row, 18).into_iter().enumerate() {
            out[r * 8 + c] = v.saturating_add(128).clamp(0, 255) as u8;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_block_is_flat() {
        let mut coef = [0; 64];
        coef[0] = 80;
        assert_eq!(inverse(&coef), [138; 64]);
    }

    #[test]
    fn chroma_lies_at_quarters() {
        let row = across(&[0u8, 100, 200], i32::from, [1, 2], 2);
        assert_eq!(row, [0, 25, 75, 125, 175, 200]);
    }

    #[test]
    fn cut_and_bent_files_give_nothing_or_an_image() {
        let head: &[u8] = &[
            0xff, 0xd8, 0xff, 0xc0, 0, 11, 8, 0, 8, 0, 8, 1, 1, 0x11, 0, 0xff, 0xda, 0, 8, 1, 1, 0,
            0, 63, 0,
        ];
        for n in 0..head.len() {
            assert!(decode(&head[..n], 1 << 20).is_none());
        }
        // Without tables there is nothing to read by.
        assert!(decode(head, 1 << 20).is_none());
    }
}
