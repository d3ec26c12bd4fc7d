"""ONNX on disk: read, written whole or not at all, with the folders that runs keep."""
