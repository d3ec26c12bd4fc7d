"""Running networks: sessions of ONNX Runtime, children with limits, and comparing what networks compute."""
