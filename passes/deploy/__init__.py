"""What goes around a network for deployment: pre-processing in front of it, post-processing behind it, in ONNX's own
operators.
"""
