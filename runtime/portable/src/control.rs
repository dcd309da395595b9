//! Control flow: branches and loops.

use crate::error::{ExecError, ExecFault};
use crate::exec::{Held, Machine, op_name};
use crate::program::malformed;
use crate::sequence::stack;
use crate::tensor::Tensor;
use crate::value::Value;
use hub_abi::Dtype;
use hub_abi::pgraph::{Control, PNode, RegionId, ValueId};

impl Machine<'_> {
    /// Runs a control node.
    pub(crate) fn control(
        &mut self,
        c: &Control,
        node: &PNode,
        inputs: Vec<Held>,
    ) -> Result<Vec<Held>, ExecError> {
        let name = node.name.clone();
        let at = |op: &str, fault| ExecError { node: name.clone(), op: op.into(), fault };
        match c {
            Control::If { then, orelse } => {
                let [cond] = &inputs[..] else {
                    return malformed(&node.name, "a branch has one operand".into());
                };
                let yes = truth(&cond.value).map_err(|f| at("If", f))?;
                self.region(if yes { *then } else { *orelse }, vec![])
            }
            Control::Loop { body, has_trip, has_cond, carried } => {
                let loops = LoopShape { body: *body, carried: *carried as usize };
                self.repeat(loops, [*has_trip, *has_cond], inputs, &|f| at("Loop", f))
            }
            Control::Scan { body, carried, trip, reverse } => {
                let trip = trip.eval(&self.frame.env);
                let trip = trip.map_err(|e| at("Scan", ExecFault::Prim(e.into())))?;
                let loops = LoopShape { body: *body, carried: *carried as usize };
                self.scan(loops, trip, *reverse, inputs, &|f| at("Scan", f))
            }
            _ => {
                let out = self.values(c, inputs, self.limits);
                out.map_err(|f| at(&op_name(&node.op), f))
            }
        }
    }

    /// Binds a body's params for one iteration and runs it.
    fn iteration(
        &mut self,
        body: RegionId,
        params: Vec<Held>,
        at: &dyn Fn(ExecFault) -> ExecError,
    ) -> Result<Vec<Held>, ExecError> {
        self.step().map_err(at)?;
        self.admit_params(body, &params).map_err(at)?;
        self.region(body, params)
    }

    fn repeat(
        &mut self,
        LoopShape { body, carried }: LoopShape,
        [has_trip, has_cond]: [bool; 2],
        mut inputs: Vec<Held>,
        at: &dyn Fn(ExecFault) -> ExecError,
    ) -> Result<Vec<Held>, ExecError> {
        let heads = usize::from(has_trip) + usize::from(has_cond);
        if inputs.len() != heads + carried {
            return Err(at(ExecFault::Malformed("the loop's operands do not add up".into())));
        }
        let mut state = inputs.split_off(heads);
        let trip = match has_trip {
            true => inputs[0].value.tensor().and_then(|t| Ok(t.to_i64()?)).map_err(at)?,
            false => i64::MAX,
        };
        let mut go = !has_cond || truth(&inputs[heads - 1].value).map_err(at)?;
        let mut scanned: Vec<Vec<Tensor>> = self.scans(body, 1 + carried);
        let saved = self.frame.env.clone();
        let mut i = 0;
        while go && i < trip {
            self.frame.env.clone_from(&saved);
            let mut params = vec![Held::from(Tensor::scalar(i))];
            params.append(&mut state);
            let mut results = self.iteration(body, params, at)?;
            if results.len() < 1 + carried {
                return Err(at(ExecFault::Malformed(
                    "the loop's body gives too few values".into(),
                )));
            }
            let ys = results.split_off(1 + carried);
            state = results.split_off(1);
            go = truth(&results[0].value).map_err(at)?;
            self.collect(&mut scanned, ys).map_err(at)?;
            i += 1;
        }
        self.frame.env = saved;
        self.finish(body, state, scanned, 1 + carried).map_err(at)
    }

    fn scan(
        &mut self,
        LoopShape { body, carried }: LoopShape,
        trip: i64,
        reverse: bool,
        mut inputs: Vec<Held>,
        at: &dyn Fn(ExecFault) -> ExecError,
    ) -> Result<Vec<Held>, ExecError> {
        let bad = |what: &str| at(ExecFault::Malformed(what.into()));
        if inputs.len() < carried {
            return Err(bad("the scan's operands do not add up"));
        }
        let xs = inputs.split_off(carried);
        let xs: Vec<Tensor> = xs
            .into_iter()
            .map(|h| h.value.tensor().cloned())
            .collect::<Result<_, _>>()
            .map_err(at)?;
        let Ok(trip) = usize::try_from(trip) else {
            return Err(bad("the scan's length is negative"));
        };
        if xs.iter().any(|x| x.dims().first() != Some(&trip)) {
            return Err(bad("a scanned operand's first axis is not the scan's length"));
        }
        let mut state = inputs;
        let mut scanned = self.scans(body, carried);
        let saved = self.frame.env.clone();
        for step in 0..trip {
            self.frame.env.clone_from(&saved);
            let t = if reverse { trip - 1 - step } else { step };
            for x in &xs {
                // Its storage is counted by the whole.
                let row = x.row(t).map_err(|e| at(e.into()))?;
                state.push(Held { value: row.into(), bytes: 0 });
            }
            let mut results = self.iteration(body, state, at)?;
            if results.len() < carried {
                return Err(bad("the scan's body gives too few values"));
            }
            let ys = results.split_off(carried);
            state = results;
            self.collect(&mut scanned, ys).map_err(at)?;
        }
        if reverse {
            scanned.iter_mut().for_each(|ys| ys.reverse());
        }
        self.frame.env = saved;
        self.finish(body, state, scanned, carried).map_err(at)
    }

    /// One empty list for each scanned output of a body whose results from `first` on are scanned.
    fn scans(&self, body: RegionId, first: usize) -> Vec<Vec<Tensor>> {
        let results = &self.graph.regions[body as usize].results;
        vec![vec![]; results.len().saturating_sub(first)]
    }

    fn collect(&mut self, scanned: &mut [Vec<Tensor>], ys: Vec<Held>) -> Result<(), ExecFault> {
        for (list, y) in scanned.iter_mut().zip(ys) {
            let y = y.value.tensor()?.clone();
            self.hold(y.byte_len() as u64)?;
            list.push(y);
        }
        Ok(())
    }

    /// Carried values, then scanned ones stacked on a new first axis.
    fn finish(
        &mut self,
        body: RegionId,
        mut state: Vec<Held>,
        scanned: Vec<Vec<Tensor>>,
        first: usize,
    ) -> Result<Vec<Held>, ExecFault> {
        let held: u64 = scanned.iter().flatten().map(|t| t.byte_len() as u64).sum();
        for (i, list) in scanned.into_iter().enumerate() {
            let id = self.graph.regions[body as usize].results[first + i];
            state.push(match list.is_empty() {
                true => self.no_rows(id)?.into(),
                false => {
                    let refs: Vec<&Tensor> = list.iter().collect();
                    stack(&refs, 0, self.limits)?.into()
                }
            });
        }
        self.release(held);
        Ok(state)
    }

    /// What scanning value `id` no times gives: dims that nothing bound are 0.
    fn no_rows(&self, id: ValueId) -> Result<Tensor, ExecFault> {
        let Some(ty) = self.graph.values[id as usize].as_tensor() else {
            return Err(ExecFault::Malformed("a scanned value is no tensor".into()));
        };
        let size = |d: &hub_abi::Dim| d.eval(&self.frame.env).unwrap_or(0).max(0) as usize;
        let dims: Vec<usize> = std::iter::once(0).chain(ty.dims.iter().map(size)).collect();
        if ty.dtype == Dtype::Str {
            return Ok(Tensor::strings(&dims, vec![])?);
        }
        Ok(Tensor::from_bytes(ty.dtype, &dims, &[])?)
    }
}

struct LoopShape {
    body: RegionId,
    carried: usize,
}

fn truth(v: &Value) -> Result<bool, ExecFault> {
    let t = v.tensor()?;
    match (t.dtype(), t.bytes()) {
        (Dtype::Bool, [b]) => Ok(*b != 0),
        _ => Err(ExecFault::Malformed(format!("a condition of {} {:?}", t.dtype(), t.dims()))),
    }
}
