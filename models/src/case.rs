//! Whole models with their answers: `paddle_formats/`, `digits/`, and every fixture beside them.

use crate::{Error, Fixture, NamedTensor, Result, TensorFile, Tensors, inputs_of, read};
use std::path::{Path, PathBuf};

/// A model on disk, what goes in, and what must come out.
#[derive(Debug, Clone)]
pub struct Case {
    /// A name that no other case has, such as `resnet50_pir`, `paddle_formats/pir/ifnet` or `digits/legacy`.
    pub name: String,
    /// The file to export.
    pub model: PathBuf,
    /// The inputs by name.
    pub inputs: Tensors,
    /// `out:NAME` for each output; see [`crate::compare`].
    pub golden: TensorFile,
    /// The fixture that this is, for one of the seeded ones.
    pub fixture: Option<Fixture>,
}

/// Every case: the seeded fixtures (written to the build folder if they are not there yet), then [`formats`].
pub fn cases() -> Result<Vec<Case>> {
    let mut cases = Fixture::all()?.into_iter().map(Case::of).collect::<Result<Vec<_>>>()?;
    cases.extend(formats()?);
    Ok(cases)
}

/// Every model of `paddle_formats/` that has a golden, and `digits` in its three formats on its test images.
pub fn formats() -> Result<Vec<Case>> {
    let root = crate::root();
    let mut goldens = Vec::new();
    find_goldens(&root.join("paddle_formats"), &mut goldens)?;
    goldens.sort();
    let mut cases = Vec::new();
    for path in goldens {
        let stem = path.to_string_lossy().trim_end_matches(SUFFIX).to_owned();
        let model = ["json", "pdmodel"].map(|e| PathBuf::from(format!("{stem}.{e}")));
        let model = model.into_iter().chain([PathBuf::from(&stem)]).find(|p| p.is_file());
        let model =
            model.ok_or_else(|| Error::malformed(&path)("there is no model beside this golden"))?;
        let name = Path::new(&stem).strip_prefix(&root).unwrap_or(Path::new(&stem));
        let golden = read(&path)?;
        let name = name.to_string_lossy().into_owned();
        cases.push(Case { name, model, inputs: inputs_of(&golden), golden, fixture: None });
    }
    cases.extend(Digits::load()?.cases());
    Ok(cases)
}

const SUFFIX: &str = ".golden.safetensors";

fn find_goldens(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir).map_err(Error::io(dir))? {
        let path = entry.map_err(Error::io(dir))?.path();
        if path.is_dir() {
            find_goldens(&path, found)?;
        } else if path.to_string_lossy().ends_with(SUFFIX) {
            found.push(path);
        }
    }
    Ok(())
}

impl Case {
    /// The case of a fixture, whose files are written if they are not there yet.
    pub fn of(fixture: Fixture) -> Result<Case> {
        Ok(Case {
            name: fixture.name.clone(),
            model: fixture.materialised()?,
            inputs: fixture.inputs()?,
            golden: fixture.golden()?,
            fixture: Some(fixture),
        })
    }
}

/// Handwritten digits, 8×8 pixels, and the classifier trained on them.
#[derive(Debug, Clone)]
pub struct Digits {
    /// `F32[1257, 1, 8, 8]`, the images that the classifier was trained on.
    pub train_image: NamedTensor,
    /// `I64[1257]`, 0 to 9.
    pub train_label: NamedTensor,
    /// `F32[540, 1, 8, 8]`, held out.
    pub test_image: NamedTensor,
    /// `I64[540]`, 0 to 9.
    pub test_label: NamedTensor,
    /// `F32[540, 10]`, what Paddle answers for the test images.
    pub test_logits: NamedTensor,
}

impl Digits {
    /// The input of all three models, `F32[N, 1, 8, 8]`.
    pub const INPUT: &str = "image";

    /// The models: their names, files within `digits/`, and the names of their output `F32[N, 10]`.
    pub const MODELS: [(&str, &str, &str); 3] = [
        ("digits/onnx", "model.onnx", "fetch_name_0"),
        ("digits/pir", "pir/inference.json", "fetch_name_0"),
        ("digits/legacy", "legacy/inference.pdmodel", "linear_0.tmp_1"),
    ];

    /// Reads `digits/digits.safetensors`.
    pub fn load() -> Result<Digits> {
        let path = crate::root().join("digits/digits.safetensors");
        let mut file = read(&path)?;
        let mut take = |name: &str| {
            file.tensors
                .remove(name)
                .ok_or_else(|| Error::malformed(&path)(format!("it holds no {name:?}")))
        };
        Ok(Digits {
            train_image: take("train_image")?,
            train_label: take("train_label")?,
            test_image: take("test_image")?,
            test_label: take("test_label")?,
            test_logits: take("test_logits")?,
        })
    }

    /// The three models on the test images.
    pub fn cases(&self) -> Vec<Case> {
        let case = |(name, file, output): (&str, &str, &str)| Case {
            name: name.to_owned(),
            model: crate::root().join("digits").join(file),
            inputs: [(Self::INPUT.to_owned(), self.test_image.clone())].into(),
            golden: Tensors::from([(format!("out:{output}"), self.test_logits.clone())]).into(),
            fixture: None,
        };
        Self::MODELS.map(case).into()
    }

    /// The share of test images whose greatest logit is at their label. `None` unless `logits` is `F32[540, 10]`.
    pub fn accuracy(&self, logits: &NamedTensor) -> Option<f64> {
        let labels = self.test_label.as_i64()?;
        let values = logits.as_f32().filter(|_| logits.shape == [labels.len(), 10])?;
        let best = |row: &[f32]| (0..row.len()).reduce(|a, b| if row[b] > row[a] { b } else { a });
        let right = |pair: &(&[f32], &i64)| best(pair.0).is_some_and(|k| k as i64 == *pair.1);
        Some(
            values.chunks_exact(10).zip(&labels).filter(right).count() as f64 / labels.len() as f64,
        )
    }
}
