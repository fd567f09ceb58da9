"""Tens of thousands of requests, hostile or good, against one server process."""
