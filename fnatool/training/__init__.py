"""Fine-tuning an ONNX network on a task, on one device or several, as a config says that is checked beforehand."""
