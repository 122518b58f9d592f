"""How a pushed model comes to serve: TF Serving's configuration, warm-up, validation, promotion and rollback."""
