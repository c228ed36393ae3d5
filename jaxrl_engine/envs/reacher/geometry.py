"""Distances between segments in the plane."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def point_to_segment(point: Float[Array, "2"], segment: Float[Array, "2 2"]) -> Float[Array, ""]:
    """Distance from a point to the nearest point of a segment (which may be a single point)."""
    start, way = segment[0], segment[1] - segment[0]
    along = jnp.vdot(point - start, way) / jnp.maximum(jnp.vdot(way, way), 1e-12)
    return _length(point - start - jnp.clip(along, 0.0, 1.0) * way)


def segment_to_segment(one: Float[Array, "2 2"], two: Float[Array, "2 2"]) -> Float[Array, ""]:
    """Smallest distance between two segments; 0 where they cross.

    Two segments that do not cross are nearest at an end of one of them.
    """
    ends = jnp.stack([
        point_to_segment(one[0], two), point_to_segment(one[1], two),
        point_to_segment(two[0], one), point_to_segment(two[1], one),
    ])  # fmt: skip
    return jnp.where(_cross(one, two), 0.0, ends.min())


def _cross(one: Float[Array, "2 2"], two: Float[Array, "2 2"]) -> Bool[Array, ""]:
    """Whether each segment's ends lie strictly on different sides of the other."""
    apart_one = _side(two, one[0]) * _side(two, one[1]) < 0
    apart_two = _side(one, two[0]) * _side(one, two[1]) < 0
    return apart_one & apart_two


def _side(line: Float[Array, "2 2"], point: Float[Array, "2"]) -> Float[Array, ""]:
    way, to_point = line[1] - line[0], point - line[0]
    return way[0] * to_point[1] - way[1] * to_point[0]


def _length(vector: Float[Array, "2"]) -> Float[Array, ""]:
    return jnp.sqrt(jnp.vdot(vector, vector))
