"""TensorRT engines, and engines built of ONNX graphs."""
