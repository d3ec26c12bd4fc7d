"""fnatool: adapt a pretrained CNN, ONNX in and ONNX out, to another task, shape and budget."""

__version__ = "0.1.0"
