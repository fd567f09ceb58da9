"""The detector on a Ray cluster: an ingress answers HTTP and asks each variant's workers.

plan -> distribution (the model folder, once to a node) -> workers, a deployment for each variant ->
ingress
"""
