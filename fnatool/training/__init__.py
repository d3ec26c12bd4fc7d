"""Fine-tuning an ONNX network on one of the four tasks, on one device or several, as a config says that is checked beforehand."""
