"""float ONNX + images -> observe -> ranges -> Q/DQ graph -> compiled engines + report."""
