"""bytes -> decode_image -> prepare -> Engine.infer -> decode -> NMS -> boxes in source pixels."""
