"""Apache TVM: ONNX graphs and compiled libraries."""
