"""Fakes of TensorRT and CUDA that accept only what NVIDIA's real bindings accept.

real bindings -> Interface (names, signatures, enums) -> fakes that check each call against it
"""
