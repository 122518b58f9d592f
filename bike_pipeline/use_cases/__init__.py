"""What can be done with a workspace: settings and plain values in, results out.

Commands, notebooks, schedulers and retraining call the same functions. They need no terminal, print no answers, and
raise `BikePipelineError` for whatever a user can act on. Results are frozen dataclasses: `dataclasses.asdict` makes
JSON of them (`json.dumps(…, default=str)`: some hold a moment in time).

Arguments of several functions: `model` names a served version, a model's number as `models` lists it, or a pushed
folder; None is the model that serves. `cluster` reads the records in the store of kubeflow.metadata. A function that
needs records raises MetadataError if there is no store, one that needs a model ModelError if there is no such model.
"""
