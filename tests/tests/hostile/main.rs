//! Hostile files: everything that a model, its weights or a bundle may try, given to the real
//! programs under a limit of 2 GiB and 20 seconds. Each ends in a typed error with its place and
//! the right exit code, or, where the file is a valid model after all, in the defined answer.
//!
//! The files are made here by small builders; nothing is stored.
//!
//! | what a file tries | tests |
//! |---|---|
//! | external data: `../`, absolute, symlinks (final, parent, loop), hard links, no folder in front, unknown keys, negative offset, a length of petabytes | `files::external_data`, `files::external_data_of_attributes` |
//! | sizes: 2^62 × 8, negative, zero | `onnx_graphs::tensors`, `paddle::streams_of_parameters`, `pir::missing_and_mistyped_keys` |
//! | raw data shorter or longer than the shape | `onnx_graphs::tensors`, `paddle::streams_of_parameters`, `pir::parameters` |
//! | cut files; varint and length bombs; deep nesting | `onnx_bytes`, `paddle::damaged_programs`, `paddle::blocks`, `pir::text` |
//! | functions that call themselves; a chain of 3000 | `onnx_graphs::functions` |
//! | If 30 deep; a tree of branches | `onnx_runs::branches_thirty_deep`, `blowups::a_tree_of_branches` |
//! | Tile, ConstantOfShape, Range, Expand bombs | `onnx_runs::bombs_of_memory`, `onnx_runs::bombs_that_data_ask_for`, `paddle::bombs` |
//! | group, stride, kernel, block size 0; huge pads | `onnx_graphs::attributes`, `onnx_runs::bombs_of_work`, `paddle::operators` |
//! | an axis equal to or past the rank; two −1 in Reshape | `onnx_graphs::attributes`, `onnx_graphs::operands`, `paddle::operators` |
//! | nodes without inputs, cycles, names twice, bad element types | `onnx_graphs::graphs`, `onnx_graphs::tensors`, `pir::values` |
//! | MIN / −1, division by zero, NaN to int | `onnx_runs::arithmetic_at_its_edges` |
//! | indices out of range | `onnx_runs::indices_out_of_range` |
//! | loops of 2^62 turns, of large bodies | `onnx_runs::loops`, `work::loops_of_large_bodies`, `blowups::folded_constants_do_not_raise_limits` |
//! | pickles | `files::pickles_are_not_executed` |
//! | chains of thousands of operators | `chains` |
//! | names for shells, terminals, DOT, HTML | `onnx_runs::names_of_all_kinds` |
//! | PIR: deep nesting, unknown operators, ids that dangle or repeat, no `D`, parameters too short, too long, in another order | `pir` |
//! | offsets of sequences (LoD) | `paddle::wrong_sequences` |
//! | bundles: offset and length that wrap, overlaps, holes, huge alignment | `bundles::forged_section_headers` |
//! | bundles: counts | `bundles::count_bombs`, `bundles::forged_tables` |
//! | bundles: element types and sizes confused | `bundles::a_manifest_that_lies` |
//! | bundles: a byte of every section | `bundles::a_byte_flipped_in_every_section` |
//! | bundles: signature stripped | `bundles::trust_is_asked_for`, and `sign` of the programs' own tests |
//! | bundles: another version; cut; changed while mapped | `bundles::other_versions`, `bundles::cut_and_longer_files`, `bundles::changed_while_open`, `bundles::cut_while_a_program_runs` |
//! | one change of a sound model: ranks, sizes, types, operands, attributes | `frontend/tests/mutated.rs` |

mod blowups;
mod bundles;
mod chains;
mod files;
mod harness;
mod onnx_bytes;
mod onnx_graphs;
mod onnx_runs;
mod paddle;
mod pb;
mod pir;
#[path = "../../../frontend/tests/protos/mod.rs"]
mod protos;
#[path = "../../../fuzz/src/reseal.rs"]
mod reseal;
mod work;
