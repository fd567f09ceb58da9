"""Export a trained detector (.pt) to ONNX, in the environment that has Ultralytics and PyTorch.

    export_ultralytics.py WEIGHTS.pt OUT.onnx

Loading weights runs code that is in them. The first releases of YOLOv12 compute queries and keys in
one convolution and values in another; Ultralytics has one for all three, so they are joined.
"""

import sys
from pathlib import Path

import torch
from ultralytics import YOLO
from ultralytics.nn.modules.block import AAttn
from ultralytics.nn.modules.conv import Conv

SIZE = 640


def joined(attention: AAttn) -> Conv:
    """One convolution that returns the queries, keys and values of each head in turn."""
    parts = (attention.qk, attention.v)
    heads, width = attention.num_heads, attention.head_dim
    order = torch.arange(3 * heads * width).reshape(3, heads, width).transpose(0, 1).ravel()
    conv = Conv(parts[0].conv.in_channels, len(order), 1, act=False)
    conv.conv.weight.data = torch.cat([part.conv.weight for part in parts])[order]
    for name in ("weight", "bias", "running_mean", "running_var"):
        values = torch.cat([getattr(part.bn, name) for part in parts])[order]
        getattr(conv.bn, name).data = values
    conv.bn.eps = parts[0].bn.eps
    return conv


if __name__ == "__main__":
    weights, out = map(Path, sys.argv[1:])
    model = YOLO(weights)
    for module in model.model.modules():
        if isinstance(module, AAttn) and not hasattr(module, "qkv"):
            module.qkv = joined(module)
            del module.qk, module.v
    Path(model.export(format="onnx", imgsz=SIZE, opset=17, simplify=False)).rename(out)
