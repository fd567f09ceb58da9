"""bytes -> decode_image -> preprocess -> Engine.infer -> postprocess -> boxes in source pixels."""
