"""Learn how long things take: train the edge models, calibrate them, and write each as one ONNX graph."""
