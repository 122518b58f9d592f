"""What can be done with a workspace, one module a use case: settings and plain values in, results out.

Commands, notebooks, schedulers and retraining call the same functions. They need no terminal, print nothing, and raise
`BikePipelineError` for whatever a user can act on. Results are frozen dataclasses: `dataclasses.asdict` makes JSON of
them (`json.dumps(…, default=str)`: some hold a moment in time).
"""
