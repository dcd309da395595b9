"""Detectors: boxes, suppression, proposals, pooling of regions."""
from goldens import Lod, f, i, np, op

I32 = lambda *v: np.array(v, "int32")  # noqa: E731


def boxes(*lead, size=20.0):
    """Boxes x1 <= x2, y1 <= y2 on a grid of quarters."""
    a = np.round(f(*lead, 4, lo=0, hi=1) * size * 4) / 4
    lo, hi = np.minimum(a[..., :2], a[..., 2:]), np.maximum(a[..., :2], a[..., 2:])
    return np.concatenate([lo, hi + 1], -1).astype("float32")


for at in ({}, {"clip_bbox": False, "conf_thresh": 0.5}, {"scale_x_y": 1.05, "downsample_ratio": 16}):
    op("yolo_box", {"X": f(1, 14, 2, 3), "ImgSize": I32([64, 96])}, {"anchors": [10, 13, 16, 30], "class_num": 2, "conf_thresh": 0.3,
                                                                      "downsample_ratio": 32, **at})
op("yolo_box", {"X": f(1, 16, 2, 2), "ImgSize": I32([64, 64])}, {"anchors": [10, 13, 16, 30], "class_num": 2, "conf_thresh": 0.1,
                                                                  "downsample_ratio": 32, "iou_aware": True, "iou_aware_factor": 0.4})
for at in ({}, {"flip": True, "clip": True}, {"max_sizes": [9.0], "flip": True}, {"max_sizes": [9.0], "min_max_aspect_ratios_order": True, "step_w": 4.0, "step_h": 5.0, "offset": 0.25}):
    op("prior_box", {"Input": f(1, 2, 2, 3), "Image": f(1, 3, 8, 12)}, {"min_sizes": [4.0], "aspect_ratios": [1.0, 2.0], "variances": [0.1, 0.1, 0.2, 0.2], **at})
op("density_prior_box", {"Input": f(1, 2, 2, 2), "Image": f(1, 3, 8, 8)}, {"fixed_sizes": [4.0], "fixed_ratios": [1.0], "densities": [2], "variances": [0.1, 0.1, 0.2, 0.2]}, old=True)
op("anchor_generator", {"Input": f(1, 2, 2, 3)}, {"anchor_sizes": [32.0, 64.0], "aspect_ratios": [0.5, 1.0], "variances": [0.1, 0.1, 0.2, 0.2], "stride": [16.0, 16.0]}, pir=False)
op("anchor_generator", {"Input": f(1, 2, 2, 2)}, {"anchor_sizes": [32.0], "aspect_ratios": [0.5, 1.0, 2.0], "variances": [1.0, 1.0, 1.0, 1.0], "stride": [8.0, 16.0], "offset": 0.0}, pir=False)
pb, pv, tb = boxes(3), f(3, 4, lo=0.1, hi=1), boxes(2)
op("box_coder", {"PriorBox": pb, "PriorBoxVar": pv, "TargetBox": tb}, {"code_type": "encode_center_size"})
op("box_coder", {"PriorBox": pb, "TargetBox": tb}, {"code_type": "encode_center_size", "box_normalized": False, "variance": [0.1, 0.2, 0.3, 0.4]})
op("box_coder", {"PriorBox": pb, "TargetBox": tb}, {"code_type": "encode_center_size"})
deltas = f(3, 2, 4, lo=-0.5, hi=0.5)
op("box_coder", {"PriorBox": pb, "PriorBoxVar": pv, "TargetBox": deltas}, {"code_type": "decode_center_size", "axis": 1})
op("box_coder", {"PriorBox": pb[:2], "PriorBoxVar": pv[:2], "TargetBox": deltas}, {"code_type": "decode_center_size"})
op("box_coder", {"PriorBox": pb[:2], "TargetBox": deltas}, {"code_type": "decode_center_size", "box_normalized": False, "variance": [0.1, 0.1, 0.2, 0.2]})
op("box_coder", {"PriorBox": pb[:2], "TargetBox": deltas}, {"code_type": "decode_center_size"})
op("box_clip", {"Input": Lod(f(4, 4, lo=-10, hi=60), [0, 1, 4]), "ImInfo": np.array([[30, 40, 1], [20, 50, 2]], "float32")}, pir=False)
op("box_clip", {"Input": Lod(f(2, 3, 4, lo=-10, hi=60), [0, 1, 2]), "ImInfo": np.array([[30, 40, 1], [20, 50, 2]], "float32")}, pir=False)
op("iou_similarity", {"X": boxes(3), "Y": boxes(2)}, old=True)
op("iou_similarity", {"X": boxes(3), "Y": boxes(2)}, {"box_normalized": False}, old=True)
op("polygon_box_transform", {"Input": f(1, 4, 2, 2)}, outs="Output", old=True)
bb = boxes(1, 8)
sc = f(1, 3, 8, lo=0, hi=1)
base = {"background_label": 0, "score_threshold": 0.2, "nms_top_k": 6, "keep_top_k": 5, "nms_threshold": 0.3}
for at in ({}, {"background_label": -1, "keep_top_k": -1, "nms_top_k": -1}, {"normalized": False, "nms_threshold": 0.5}, {"nms_eta": 0.9, "nms_threshold": 0.6}):
    op("multiclass_nms3", {"BBoxes": bb, "Scores": sc}, {**base, **at}, outs="Out Index NmsRoisNum")
    op("multiclass_nms", {"BBoxes": bb, "Scores": sc}, {**base, **at}, pir=False)
op("multiclass_nms2", {"BBoxes": bb, "Scores": sc}, base, outs="Out Index", old=True)
op("multiclass_nms3", {"BBoxes": boxes(2, 8), "Scores": f(2, 3, 8, lo=0, hi=1)}, base, outs="Out Index NmsRoisNum")
op("multiclass_nms3", {"BBoxes": boxes(2, 8), "Scores": f(2, 1, 8, lo=0, hi=1)}, {**base, "background_label": -1}, outs="Out Index NmsRoisNum")
op("multiclass_nms3", {"BBoxes": bb, "Scores": sc}, {**base, "score_threshold": 2.0}, outs="Index NmsRoisNum")
op("multiclass_nms3", {"BBoxes": boxes(8, 3), "Scores": f(8, 3, lo=0, hi=1), "RoisNum": I32(5, 3)}, base, outs="Out Index NmsRoisNum")
for at in ({}, {"use_gaussian": True, "gaussian_sigma": 2.0}, {"normalized": False, "background_label": -1, "keep_top_k": -1, "nms_top_k": -1}):
    op("matrix_nms", {"BBoxes": bb, "Scores": sc}, {"background_label": 0, "score_threshold": 0.2, "post_threshold": 0.1, "nms_top_k": 6, "keep_top_k": 5, **at}, outs="Out Index RoisNum")
op("matrix_nms", {"BBoxes": boxes(2, 8), "Scores": f(2, 2, 8, lo=0, hi=1)}, {"background_label": -1, "score_threshold": 0.2, "post_threshold": 0.1, "nms_top_k": 6, "keep_top_k": 5}, outs="Out Index RoisNum")
op("nms", {"Boxes": boxes(8)}, {"iou_threshold": 0.2})
x = f(2, 2, 8, 8)
rois = boxes(3, size=12.0)
for at in ({}, {"sampling_ratio": 2}, {"aligned": True}, {"sampling_ratio": 1, "aligned": True, "spatial_scale": 0.5}):
    op("roi_align", {"X": x, "ROIs": rois, "RoisNum": I32(1, 2)}, {"pooled_height": 2, "pooled_width": 3, "spatial_scale": 0.5, **at})
op("roi_align", {"X": x, "ROIs": Lod(rois, [0, 1, 3])}, {"pooled_height": 2, "pooled_width": 2, "spatial_scale": 0.5, "sampling_ratio": 2}, pir=False)
op("roi_pool", {"X": x, "ROIs": rois, "RoisNum": I32(1, 2)}, {"pooled_height": 2, "pooled_width": 2, "spatial_scale": 0.5}, outs="Out")
op("roi_pool", {"X": x, "ROIs": Lod(rois, [0, 2, 3])}, {"pooled_height": 3, "pooled_width": 2, "spatial_scale": 0.25}, outs="Out", pir=False)
op("psroi_pool", {"X": f(1, 8, 6, 6), "ROIs": boxes(2, size=8.0), "RoisNum": I32(2)}, {"pooled_height": 2, "pooled_width": 2, "output_channels": 2, "spatial_scale": 0.5})
an, va = boxes(2, 3, 2, size=30.0), np.ones((2, 3, 2, 4), "float32")
prop = {"pre_nms_topN": 10, "post_nms_topN": 5, "nms_thresh": 0.5, "min_size": 2.0, "eta": 1.0}
pin = {"Scores": (np.random.RandomState(5).permutation(24).reshape(2, 2, 2, 3) / 32).astype("float32"), "BboxDeltas": f(2, 8, 2, 3, lo=-0.5, hi=0.5), "Anchors": an, "Variances": va}
op("generate_proposals_v2", {**pin, "ImShape": np.array([[40, 50], [30, 30]], "float32")}, prop, outs="RpnRois RpnRoiProbs RpnRoisNum")
op("generate_proposals_v2", {**pin, "ImShape": np.array([[40, 50], [30, 30]], "float32")}, {**prop, "pixel_offset": False, "nms_thresh": 0.3, "pre_nms_topN": 6}, outs="RpnRois RpnRoiProbs RpnRoisNum")
op("generate_proposals", {**pin, "ImInfo": np.array([[40, 50, 1], [30, 30, 2]], "float32")}, prop, outs="RpnRois RpnRoiProbs RpnRoisNum", pir=False)
fr = np.concatenate([boxes(3, size=500.0), boxes(3, size=60.0)]).astype("float32")
op("distribute_fpn_proposals", {"FpnRois": fr, "RoisNum": I32(2, 4)}, {"min_level": 2, "max_level": 4, "refer_level": 3, "refer_scale": 112},
   outs={"MultiFpnRois": 3, "RestoreIndex": 1, "MultiLevelRoIsNum": 3})
op("distribute_fpn_proposals", {"FpnRois": fr, "RoisNum": I32(2, 4)}, {"min_level": 2, "max_level": 4, "refer_level": 3, "refer_scale": 112, "pixel_offset": False},
   outs={"MultiFpnRois": 3, "RestoreIndex": 1, "MultiLevelRoIsNum": 3})
op("distribute_fpn_proposals", {"FpnRois": Lod(fr, [0, 2, 6])}, {"min_level": 2, "max_level": 3, "refer_level": 3, "refer_scale": 112},
   outs={"MultiFpnRois": 2, "RestoreIndex": 1}, pir=False)
op("collect_fpn_proposals", {"MultiLevelRois": [boxes(3), boxes(4)], "MultiLevelScores": [f(3, 1, lo=0, hi=1), f(4, 1, lo=0, hi=1)],
                             "MultiLevelRoIsNum": [I32(1, 2), I32(2, 2)]}, {"post_nms_topN": 4}, outs="FpnRois RoisNum")
op("collect_fpn_proposals", {"MultiLevelRois": [Lod(boxes(3), [0, 1, 3]), Lod(boxes(4), [0, 2, 4])], "MultiLevelScores": [Lod(f(3, 1, lo=0, hi=1), [0, 1, 3]), Lod(f(4, 1, lo=0, hi=1), [0, 2, 4])]},
   {"post_nms_topN": 10}, outs="FpnRois", pir=False)
op("bipartite_match", {"DistMat": f(3, 4, lo=0, hi=1)}, pir=False)
op("bipartite_match", {"DistMat": f(3, 4, lo=0, hi=1)}, {"match_type": "per_prediction", "dist_threshold": 0.3}, pir=False)
op("bipartite_match", {"DistMat": Lod(f(7, 3, lo=0, hi=1), [0, 3, 7])}, {"match_type": "per_prediction", "dist_threshold": 0.2}, pir=False)
op("multiclass_nms", {"BBoxes": Lod(boxes(7, 3), [0, 3, 7]), "Scores": Lod(f(7, 3, lo=0, hi=1), [0, 3, 7])}, base, pir=False)
op("multiclass_nms3", {"BBoxes": boxes(8, 3), "Scores": f(8, 3, lo=0, hi=1), "RoisNum": I32(5, 3)}, {**base, "keep_top_k": -1, "nms_top_k": -1, "background_label": -1}, outs="Out Index NmsRoisNum")
