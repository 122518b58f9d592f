"""Models on devices: a signed bundle, a channel of static files, and what a device runs to take and keep them.

`device.py` and `predictor.py` are shipped as they are: they import nothing of this package.
"""
