//! The entry around a kernel's body: declarations, arguments, and which tile a warp does.

use super::ptx::Renderer;
use super::table;
use crate::kir::*;
use std::fmt::Write;

impl Renderer<'_> {
    /// The entry around the body.
    pub(super) fn finish(self, warps: u64) -> String {
        let (k, mut out) = (self.k, String::new());
        for (i, t) in self.tables.iter().enumerate() {
            let bytes: Vec<String> = t.iter().map(u8::to_string).collect();
            let _ = writeln!(
                out,
                ".const .align 4 .b8 {}_sel{i}[{}] = {{{}}};",
                k.name,
                t.len(),
                bytes.join(", ")
            );
        }
        if k.team.is_some() {
            let _ = writeln!(out, "// hub tiles_per_block 1");
        }
        let n = 8 * k.params.len().max(1);
        let _ = writeln!(out, ".visible .entry {}(.param .align 8 .b8 args[{n}])", k.name);
        // One block a processor is enough: left to itself ptxas spills to make room for more.
        let _ = writeln!(out, ".reqntid {}, 1, 1\n.minnctapersm 1\n{{", 32 * warps);
        self.declare(&mut out, warps);
        self.prologue(&mut out, warps);
        out.push_str(&self.body);
        out.push_str("DONE:\n\tret;\n}\n");
        out
    }

    fn declare(&self, out: &mut String, warps: u64) {
        let k = self.k;
        let elems = [Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask];
        let half = ("h", "b16", true);
        let of = elems.map(|e| (table::letter(e), table::kind(e), false));
        for (letter, kind, temps_only) in of.into_iter().chain([half]) {
            let temps = self.temps.get(letter).copied();
            let used = !temps_only && k.regs.iter().any(|t| table::letter(t.elem) == letter);
            if let Some(n) = temps.or(used.then_some(k.regs.len() as u32)) {
                let _ = writeln!(out, "\t.reg .{kind} %{letter}<{n}>;");
            }
        }
        let _ = writeln!(out, "\t.reg .b64 %a<{}>;", k.params.len().max(1));
        let _ = writeln!(out, "\t.reg .b64 %x<{}>;", k.axes.len().max(1));
        let _ = writeln!(out, "\t.reg .b64 %scratch, %n;");
        let _ = writeln!(out, "\t.reg .b32 %zero, %thread, %warp, %tile, %tiles, %rest, %t;");
        let _ = writeln!(out, "\t.reg .pred %past;");
        for n in &self.lanes {
            let _ = writeln!(out, "\t.reg .b32 %lane{n};");
        }
        if self.fragments {
            let _ = writeln!(out, "\t.reg .b32 %group, %member;");
        }
        for n in &self.stores {
            let _ = writeln!(out, "\t.reg .pred %first{n};");
        }
        if k.scratch_bytes > 0 {
            let bytes = if k.team.is_some() { 1 } else { warps } * k.scratch_bytes;
            let _ = writeln!(out, "\t.shared .align 64 .b8 room[{bytes}];");
        }
    }

    /// Arguments, the thread's place, and which tile this warp does.
    fn prologue(&self, out: &mut String, warps: u64) {
        let k = self.k;
        let mut line = |text: String| {
            let _ = writeln!(out, "\t{text};");
        };
        for i in 0..k.params.len() {
            line(format!("ld.param.b64 %a{i}, [args+{}]", 8 * i));
        }
        line("mov.b32 %zero, 0".into());
        line("mov.u32 %t, %tid.x".into());
        line("and.b32 %thread, %t, 31".into());
        line("shr.u32 %warp, %t, 5".into());
        line("mov.u32 %t, %ctaid.x".into());
        match k.team {
            Some(team) => {
                line("mov.b32 %tile, %t".into());
                line(format!("cvt.u64.u32 %x{}, %warp", team.axis.0));
            }
            None => line(format!("mad.lo.s32 %tile, %t, {warps}, %warp")),
        }
        // Tiles are fewer than 2^32: no more blocks than 2^31 are ever launched.
        line("mov.b32 %tiles, 1".into());
        for g in &k.grid {
            match (g.extent.param, g.extent.mul) {
                (Some(p), _) => {
                    line(format!("max.s64 %n, %a{}, 0", p.0));
                    line("cvt.u32.u64 %t, %n".into());
                    line("mul.lo.s32 %tiles, %tiles, %t".into());
                }
                (None, n) => line(format!("mul.lo.s32 %tiles, %tiles, {}", n.max(0))),
            }
        }
        line("setp.ge.u32 %past, %tile, %tiles".into());
        line("@%past bra.uni DONE".into());
        line("mov.b32 %rest, %tile".into());
        for (i, g) in k.grid.iter().enumerate().rev() {
            let x = format!("%x{}", g.axis.0);
            if i == 0 {
                line(format!("cvt.u64.u32 {x}, %rest"));
                continue;
            }
            let n = match (g.extent.param, g.extent.mul) {
                (Some(p), _) => {
                    line(format!("cvt.u32.u64 %t, %a{}", p.0));
                    "%t".to_string()
                }
                (None, n) => n.to_string(),
            };
            line(format!("rem.u32 %tile, %rest, {n}"));
            line(format!("cvt.u64.u32 {x}, %tile"));
            line(format!("div.u32 %rest, %rest, {n}"));
        }
        for n in &self.lanes {
            line(format!("and.b32 %lane{n}, %thread, {}", n - 1));
        }
        for n in &self.stores {
            line(format!("setp.lt.u32 %first{n}, %thread, {n}"));
        }
        if k.scratch_bytes > 0 {
            line("mov.b64 %scratch, room".into());
        }
        if self.fragments {
            line("shr.u32 %group, %thread, 2".into());
            line("and.b32 %member, %thread, 3".into());
        }
        if k.scratch_bytes > 0 && k.team.is_none() {
            line(format!("mad.wide.s32 %scratch, %warp, {}, %scratch", k.scratch_bytes));
        }
    }
}
