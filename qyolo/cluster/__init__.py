"""The detector on a Ray cluster: fronts answer HTTP, each variant's replicas answer fronts.

plan -> shipment (the model folder, once a node) -> workers, one deployment a variant -> fronts
"""
