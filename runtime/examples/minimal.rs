//! The least that runs a bundle: `minimal BUNDLE` runs it once on zeros (unknown dims are their
//! least) and prints its outputs. Stripped, it is the size of a deployment.

use hub_runtime::{Error, Model, OpenOptions, Session, SessionOptions, TensorView};

fn main() {
    let path = std::env::args().nth(1).unwrap_or_default();
    if let Err(e) = run(&path) {
        eprintln!("{e}");
        std::process::exit(e.code());
    }
}

fn run(path: &str) -> Result<(), Error> {
    let model = Model::open(path, &OpenOptions::default())?;
    let m = model.manifest();
    let mut session = Session::new(&model, &SessionOptions::default())?;
    let mut inputs = vec![];
    for i in &m.inputs {
        let no_tensor = || Error::Unsupported(format!("input '{}' is no tensor", i.name));
        let t = i.ty.as_tensor().ok_or_else(no_tensor)?;
        let dims = t.dims.iter().map(|d| d.bounds(&m.syms).0.max(0) as usize);
        let dims: Vec<usize> = dims.collect();
        let len = dims.iter().try_fold(t.dtype.size(), |n, &d| n.checked_mul(d));
        let len = len.ok_or_else(|| Error::Limit(format!("input '{}' of {dims:?}", i.name)))?;
        inputs.push((t.dtype, dims, vec![0u8; len]));
    }
    let views = inputs.iter().map(|(d, dims, b)| TensorView { dtype: *d, dims, data: b });
    let views: Vec<TensorView<'_>> = views.collect();
    let outputs = session.run(&views)?;
    for (info, o) in m.outputs.iter().zip(outputs.iter()) {
        println!("{} {} {:?}", info.name, o.dtype, o.dims);
    }
    Ok(())
}
