"""NVIDIA's Python interfaces without NVIDIA's libraries.

real bindings -> inventory -> does our source fit it (usage), and fakes that refuse what they would
"""
