"""Models on devices: a signed bundle, a channel of static files, and what a device runs to take and keep them."""
