"""float ONNX + images -> calibration -> Q/DQ graph -> compiled engines + report."""
