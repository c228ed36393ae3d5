"""The arm's physics in closed form: a planar serial chain, one to two orders of magnitude faster than an engine.

With absolute headings φ = cumsum(θ), and for link k its mass m_k, length l_k, centre c_k = l_k / 2 and inertia I_k
about that centre, the kinetic energy is ½ Σ_ij K_ij cos(φ_i − φ_j) φ̇_i φ̇_j, where

    K_ij = l_i s_j  (i < j),    K_ii = I_i + m_i c_i² + l_i² Σ_{k>i} m_k,    s_j = m_j c_j + l_j Σ_{k>j} m_k.

Motors, damping d and rotor inertia (armature) a act on the relative angles θ. Written for φ they are differences of
neighbours, and add a tridiagonal matrix to the mass matrix:

    (M + T) φ̈ = Δ(τ − d θ̇) − h,   M_ij = K_ij cos(φ_i − φ_j),   h_i = Σ_j K_ij sin(φ_i − φ_j) φ̇_j²,
    T = Cᵀ⁻¹ diag(a + δ d) C⁻¹,    (Δu)_i = u_i − u_{i+1},       φ = C θ.

The term δ d (δ the time step) makes the damping implicit, as in MuJoCo's Euler integrator and in Brax's with the exact
inverse; then θ̇ += δ θ̈ and θ += δ θ̇. A disabled link (no length, no mass) leaves its armature in the matrix, so that
it stays regular, and its joint stays at rest.

Source: Featherstone 2008, Rigid Body Dynamics Algorithms, ch. 3 (Lagrangian form); MuJoCo, Computation: Numerical
integration.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxrl_engine.core.struct import Struct
from jaxrl_engine.core.types import Leaf
from jaxrl_engine.envs.reacher.body import Body, link_inertia


class Chain(Struct):
    """What of a body the equations need; constant over an episode."""

    coupling: Float[Leaf, "*batch links links"]  # K, kg m²
    tridiagonal: Float[Leaf, "*batch links"]  # a + δ d, kg m²
    torque: Float[Leaf, "*batch links"]  # N m at action 1
    damping: Float[Leaf, "*batch links"]  # N m s/rad


def make_chain(body: Body, timestep: float) -> Chain:
    """Return the constants of one body `[links]` for steps of `timestep` seconds."""
    lengths, masses = jnp.asarray(body.lengths), jnp.asarray(body.masses)
    beyond = jnp.cumsum(masses[::-1])[::-1] - masses
    static_moment = masses * lengths / 2 + lengths * beyond
    own = link_inertia(body) + masses * jnp.square(lengths) / 4 + jnp.square(lengths) * beyond
    upper = jnp.triu(lengths[:, None] * static_moment[None, :], 1)
    damping = jnp.asarray(body.damping)
    return Chain(
        coupling=upper + upper.T + jnp.diag(own),
        tridiagonal=jnp.asarray(body.armature) + timestep * damping,
        torque=jnp.asarray(body.torque),
        damping=damping,
    )


def step(
    chain: Chain,
    angles: Float[Array, "links"],
    velocities: Float[Array, "links"],
    effort: Float[Array, "links"],
    timestep: float,
) -> tuple[Float[Array, "links"], Float[Array, "links"]]:
    """Advance one arm by `timestep` seconds under motors at `effort` of their torque; returns θ (rad) and θ̇ (rad/s)."""
    headings, turning = jnp.cumsum(angles), jnp.cumsum(velocities)
    cosine, sine = jnp.cos(headings), jnp.sin(headings)
    cos_between = cosine[:, None] * cosine[None, :] + sine[:, None] * sine[None, :]
    sin_between = sine[:, None] * cosine[None, :] - cosine[:, None] * sine[None, :]
    centrifugal = (chain.coupling * sin_between * jnp.square(turning)[None, :]).sum(axis=1)
    motors = chain.torque * effort - chain.damping * velocities
    force = motors - jnp.append(motors[1:], 0.0) - centrifugal
    headings_acceleration = solve(chain.coupling * cos_between, chain.tridiagonal, force)
    before = jnp.concatenate([jnp.zeros(1), headings_acceleration[:-1]])
    velocities = velocities + timestep * (headings_acceleration - before)
    return angles + timestep * velocities, velocities


def solve(
    mass: Float[Array, "links links"], tridiagonal: Float[Array, "links"], force: Float[Array, "links"]
) -> Float[Array, "links"]:
    """Solve (M + T) x = f by L D Lᵀ without pivoting: the matrix is symmetric and positive definite.

    Written out for scalars: batched, each is one vector, and a whole solve becomes a few fused loops. A general solver
    calls LAPACK once per arm.
    """
    size = mass.shape[0]
    rows = [[mass[i, j] for j in range(i + 1)] for i in range(size)]
    for i in range(size):
        rows[i][i] = rows[i][i] + tridiagonal[i] + (tridiagonal[i + 1] if i + 1 < size else 0.0)
        if i:
            rows[i][i - 1] = rows[i][i - 1] - tridiagonal[i]
    x = [force[i] for i in range(size)]
    inverse_pivots = []
    for k in range(size):
        inverse_pivots.append(1.0 / rows[k][k])
        for i in range(k + 1, size):
            factor = rows[i][k] * inverse_pivots[k]
            x[i] = x[i] - factor * x[k]
            rows[i][k + 1 :] = [rows[i][j] - factor * rows[j][k] for j in range(k + 1, i + 1)]
    for k in reversed(range(size)):
        known = sum((rows[i][k] * x[i] for i in range(k + 1, size)), jnp.zeros(()))
        x[k] = (x[k] - known) * inverse_pivots[k]
    return jnp.stack(x)
