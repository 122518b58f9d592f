"""Why a model answers what it answers: one request, the model as a whole, and where it errs most."""
