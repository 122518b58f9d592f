"""Where rows come from, how they are checked and how they are versioned."""
