"""The command line's groups, one a file; each is imported only when it is called."""
