"""The command line: thin commands over `compactor`."""
