"""Other servers and quantizers, each run in a pinned environment of its own under runs/.

The scripts here import packages of that environment; `environments` creates it and runs them.
"""
