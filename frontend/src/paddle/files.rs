//! Which files hold a program's parameters, and their contents.

use super::params::{self, Tensor};
use super::program::Param;
use crate::sniff::read_file;
use crate::{FrontendError, Limits};
use std::path::{Component, Path, PathBuf};

/// Reads all parameters of the program in `model`: from one combined file beside it
/// (`X.pdmodel`/`X.json` + `X.pdiparams`, `__model__` + `__params__`, `model` + `params`), else from
/// one file for each, called by its name.
pub fn read(model: &Path, params: &[Param], limits: &Limits) -> Result<Vec<Tensor>, FrontendError> {
    if params.is_empty() {
        return Ok(vec![]);
    }
    let dir = model.parent().unwrap_or(Path::new(""));
    let candidates = candidates(model);
    if let Some(file) = candidates.iter().map(|c| dir.join(c)).find(|p| p.is_file()) {
        let bytes = read_file(&file, limits)?;
        return params::combined(&bytes, params, limits).map_err(|e| e.in_file(&file));
    }
    let none_there = params.iter().all(|p| inside(dir, &p.name).is_ok_and(|f| !f.is_file()));
    if none_there {
        return Err(FrontendError::invalid(format!(
            "the program has {} parameters, but no parameter file lies beside it",
            params.len()
        ))
        .advise(format!("put {} beside the program, or one file for each", candidates[0])));
    }
    let one = |p: &Param| {
        let file = inside(dir, &p.name)?;
        let bytes = read_file(&file, limits).map_err(|e| e.at(&p.name))?;
        params::single(&bytes, p, limits).map_err(|e| e.in_file(&file))
    };
    params.iter().map(one).collect()
}

fn candidates(model: &Path) -> Vec<String> {
    let name = model.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = ["pdmodel", "json"].iter().find_map(|e| name.strip_suffix(&format!(".{e}")));
    match stem {
        Some("__model__") | None => vec![
            "__params__".into(),
            "params".into(),
            format!("{name}.pdiparams"),
            format!("{}.pdiparams", stem.unwrap_or(&name)),
        ],
        Some(stem) => vec![format!("{stem}.pdiparams"), format!("{stem}.params")],
    }
}

/// The file of a parameter, which must lie in the model's folder whatever its name says.
fn inside(dir: &Path, name: &str) -> Result<PathBuf, FrontendError> {
    let plain = Path::new(name).components().all(|c| matches!(c, Component::Normal(_)));
    if name.is_empty() || name.contains('\0') || !plain {
        return Err(
            FrontendError::invalid("a parameter's name leads out of the model's folder").at(name)
        );
    }
    let file = dir.join(name);
    let here = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    // A link may lead anywhere; what it leads to must still lie here.
    if let (Ok(real), Ok(root)) = (file.canonicalize(), here.canonicalize())
        && !real.starts_with(root)
    {
        return Err(
            FrontendError::invalid("a parameter's file lies outside the model's folder").at(name)
        );
    }
    Ok(file)
}
