"""Other servers and quantizers, each run in a pinned environment of its own under runs/.

The scripts here import what only that environment has; `environments` makes it and runs them.
"""
