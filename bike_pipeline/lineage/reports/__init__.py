"""Pages, drawings and texts for people, made of what the queries answer."""
