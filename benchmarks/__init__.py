"""Measurements of the engine, and of its peers under the same conditions."""
