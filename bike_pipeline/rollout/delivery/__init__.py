"""Progressive delivery: a version gets a share of the requests, is judged, and gets more, all of them, or none."""
