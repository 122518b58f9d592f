"""The embedded model server: TF Serving's protocols over gRPC and REST, without TensorFlow where an export answers."""
