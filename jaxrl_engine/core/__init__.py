"""The types everything else is written in. No behaviour; importing `core.config` does not import jax."""
