"""The embedded model server: TF Serving's protocols over gRPC and REST, without TensorFlow if an export answers."""
