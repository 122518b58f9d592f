"""Kubeflow Pipelines and Vertex AI: the compiled spec, what runs in its containers, and a run without a cluster."""
