"""Replay: a sum tree that lives on the device, and a prioritised buffer of chunks on top of it. Imports core only."""
