//! Operators of detectors.

use crate::paddle::ctx::{Ctx, Res};
use hub_ir::ops::detection::YoloBox;

/// yolo_box.
pub fn yolo_box(c: &mut Ctx<'_, '_>) -> Res {
    let (x, size) = (c.tensor("X")?, c.tensor("ImgSize")?);
    let iou = c.flag("iou_aware", false);
    let op = YoloBox {
        anchors: c.ints("anchors").unwrap_or_default(),
        classes: c.int("class_num", 1),
        threshold: c.float("conf_thresh", 0.01),
        downsample: c.int("downsample_ratio", 32),
        clip: c.flag("clip_bbox", true),
        scale_xy: c.float("scale_x_y", 1.0),
        iou_aware: iou.then(|| c.float("iou_aware_factor", 0.5)),
    };
    let outs = c.b.source_n(op, &[x, size])?;
    c.put("Boxes", outs[0]);
    c.put("Scores", outs[1]);
    Ok(())
}
