"""Services beside a model server that Seldon Core or KServe send each request to, as CloudEvents over HTTP."""
