"""Where the pipeline runs. A runner never says what runs: that is bike_pipeline.pipeline."""
