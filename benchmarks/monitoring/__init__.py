"""What `make benchmark-monitoring` is made of: traffic and its faults, our detectors, the peers' on the same rows."""
