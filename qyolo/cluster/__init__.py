"""The detector on a Ray cluster: an ingress answers HTTP and calls the workers of each variant.

plan -> distribution of the model folder to the nodes -> workers (a deployment for each variant) ->
ingress
"""
