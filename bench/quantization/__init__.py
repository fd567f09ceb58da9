"""Accuracy, speed and cost of quantizing, beside NNCF and ONNX Runtime."""
