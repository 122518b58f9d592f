"""What `make benchmark-quality` is made of: protocols, columns, peers, the served model and scores."""
