"""The command line: qyolo build | serve | up | detect | eval | bench."""
