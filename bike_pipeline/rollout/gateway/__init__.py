"""The gateway is Envoy: its configuration is made here of the settings and of what is promoted, and it is run."""
