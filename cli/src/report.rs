//! What an export did, for people and for programs.

use crate::failure::{Failure, MISMATCH};
use crate::tune::Tuned;
use serde_json::json;

/// Version of the JSON that `--json` prints; it changes when a field changes its meaning.
pub const SCHEMA: u32 = 1;

/// One compiled tier.
#[derive(Clone, Debug, Default)]
pub struct TierReport {
    /// `avx512`, `avx2`…
    pub name: String,
    /// Steps of the plan.
    pub steps: usize,
    /// Distinct kernels.
    pub kernels: usize,
    /// Bytes of machine code.
    pub code: usize,
    /// Nodes left to the portable interpreter, and why.
    pub host: Vec<(String, String)>,
}

/// What a low precision took in.
#[derive(Clone, Debug, Default)]
pub struct PrecisionReport {
    /// `bf16`.
    pub name: &'static str,
    /// Convolutions and contractions whose operands are of that format.
    pub contractions: usize,
    /// Tensors between kernels that are stored in it.
    pub values: usize,
    /// Contractions that stay f32, and why.
    pub kept: Vec<(String, String)>,
}

/// One export.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The model's file.
    pub model: String,
    /// `onnx`, `paddle-pir` or `paddle-program`.
    pub format: String,
    /// Nodes as imported, constants aside.
    pub before: usize,
    /// Nodes after fusion, constants aside.
    pub after: usize,
    /// What the precision asked for took in, if it is not f32.
    pub precision: Option<PrecisionReport>,
    /// How often each rewrite fired.
    pub rules: Vec<(String, usize)>,
    /// Tiers, best first.
    pub tiers: Vec<TierReport>,
    /// The bundle's file.
    pub bundle: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// With `--tune`: what was found.
    pub tuned: Option<Tuned>,
    /// With `--verify`: tier, and its greatest difference from the reference as a share of the
    /// reference's greatest magnitude (at a low precision, one less the cosine).
    pub parity: Vec<(String, f64)>,
    /// What a user should know.
    pub warnings: Vec<String>,
}

/// Parity that `--verify` asks for, and that of a low precision, as one less the cosine.
pub const PARITY: f64 = 1e-4;
const LOW_PARITY: f64 = 1e-3;

impl PrecisionReport {
    /// Lines of the report: what was taken in, then what was not, by reason.
    fn lines(&self) -> Vec<String> {
        let (name, n, v, f) = (self.name, self.contractions, self.values, self.kept.len());
        let mut lines =
            vec![format!("  precision  {n} contractions and {v} tensors {name}, {f} stay f32")];
        let mut whys: Vec<&String> = self.kept.iter().map(|k| &k.1).collect();
        whys.sort();
        whys.dedup();
        for why in whys {
            let names: Vec<&str> =
                self.kept.iter().filter(|k| k.1 == *why).map(|k| &k.0[..]).collect();
            let more = match names.len() {
                0..=3 => String::new(),
                n => format!(" and {} more", n - 3),
            };
            let shown = names[..names.len().min(3)].join(", ");
            lines.push(format!("             f32: {} ({why})", crate::plain(&(shown + &more))));
        }
        lines
    }

    fn json(&self) -> serde_json::Value {
        let kept = self.kept.iter().map(|(n, w)| json!({ "node": n, "why": w }));
        json!({ "name": self.name, "contractions": self.contractions, "tensors": self.values,
                "f32": kept.collect::<Vec<_>>() })
    }
}

impl Report {
    /// Prints it to standard output.
    pub fn print(&self, as_json: bool) {
        if as_json {
            println!("{}", self.json());
            return;
        }
        self.warn();
        print!("{}", self.text());
    }

    /// Prints it as text to standard error, beside results on standard output.
    pub fn print_aside(&self) {
        self.warn();
        eprint!("{}", self.text());
    }

    fn warn(&self) {
        self.warnings.iter().for_each(|w| eprintln!("warning: {}", crate::plain(w)));
    }

    fn text(&self) -> String {
        let mut lines = vec![format!("{} ({})", self.model, self.format)];
        lines.push(format!("  operators  {} before, {} after", self.before, self.after));
        let rules: Vec<String> = self.rules.iter().map(|(r, n)| format!("{r} {n}")).collect();
        let rules = if rules.is_empty() { "none".into() } else { rules.join(", ") };
        lines.push(format!("  rewrites   {rules}"));
        lines.extend(self.precision.iter().flat_map(PrecisionReport::lines));
        for t in &self.tiers {
            let host = match t.host.len() {
                0 => String::new(),
                n => format!(", {n} on the host"),
            };
            let (s, k, c) = (t.steps, t.kernels, kib(t.code as u64));
            lines.push(format!("  {:<10} {s} steps, {k} kernels, {c} of code{host}", t.name));
        }
        if let Some(t) = &self.tuned {
            let (changed, share) = (t.choices.len(), 100.0 * (1.0 - t.share));
            lines.push(format!(
                "  tuning     {changed} of {} kernels changed in {} rounds, {share:.1} % less time in them",
                t.groups, t.rounds
            ));
        }
        lines.push(format!("  bundle     {}, {}", self.bundle, kib(self.bytes)));
        for (tier, e) in &self.parity {
            lines.push(format!("  parity     {tier}: {e:.1e} (at most {:.0e})", self.most()));
        }
        lines.push(format!("  time       {:.2} s\n", self.seconds));
        lines.join("\n")
    }

    fn json(&self) -> serde_json::Value {
        let tiers: Vec<_> = self
            .tiers
            .iter()
            .map(|t| {
                let host: Vec<_> =
                    t.host.iter().map(|(n, w)| json!({ "node": n, "why": w })).collect();
                json!({ "name": t.name, "steps": t.steps, "kernels": t.kernels,
                        "code_bytes": t.code, "host": host })
            })
            .collect();
        let rules: serde_json::Map<_, _> =
            self.rules.iter().map(|(r, n)| (r.clone(), json!(n))).collect();
        let parity: serde_json::Map<_, _> =
            self.parity.iter().map(|(t, e)| (t.clone(), json!(e))).collect();
        let tuned = self.tuned.as_ref().map(|t| {
            json!({ "groups": t.groups, "changed": t.choices.len(), "rounds": t.rounds,
                    "time_share": t.share })
        });
        json!({ "schema": SCHEMA, "tuned": tuned, "model": self.model, "format": self.format,
                "operators_before": self.before, "operators_after": self.after,
                "rewrites": rules, "tiers": tiers, "bundle": self.bundle,
                "bundle_bytes": self.bytes, "seconds": self.seconds, "parity": parity,
                "precision": self.precision.as_ref().map(PrecisionReport::json),
                "warnings": self.warnings })
    }

    /// Parity asked for at this precision.
    fn most(&self) -> f64 {
        if self.precision.is_some() { LOW_PARITY } else { PARITY }
    }

    /// Fails where parity was asked for and is off.
    pub fn verdict(&self) -> Result<(), Failure> {
        let most = self.most();
        let off = self.parity.iter().find(|(_, e)| e.is_nan() || *e > most);
        off.map_or(Ok(()), |(tier, e)| {
            let what = format!("{tier} differs from the reference by {e:.1e} (at most {most:.0e})");
            Err(Failure::new(MISMATCH, what).help("please report this with the model: it is a bug"))
        })
    }
}

/// Bytes for people.
pub fn kib(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

/// A session's arena in a few words: its bytes with the workers' scratch, the largest live set of
/// tensors, and what they would need without results in the room of operands.
pub fn arena(s: &hub_runtime::Summary) -> String {
    let (all, bound, apart) = (kib(s.arena), kib(s.arena_bound), kib(s.arena_apart));
    let scratch = kib(s.scratch);
    format!(
        "{all} (largest live set {bound}, {apart} without {} results in place; scratch of a step up to {scratch})",
        s.in_place
    )
}
