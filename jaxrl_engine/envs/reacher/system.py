"""The arm as an MJCF document, as a Brax system, and as that system's leaves for any body, in pure JAX.

The document is the reference for the physics: MuJoCo's C engine and Brax read the same one.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import mujoco
from jaxtyping import Array, Float

from jaxrl_engine.envs.chatter import without_chatter
from jaxrl_engine.envs.reacher.body import Body, enabled_links, link_inertia, uniform_body

with without_chatter():
    from brax.io import mjcf


def to_mjcf(body: Body, timestep: float) -> str:
    """Write one body `[links]`, all of them enabled, as an MJCF document, integrated in steps of `timestep` seconds.

    There is no gravity and nothing to collide with; the hinges turn without limits (limits cost Brax a constraint
    solver per step). Setting `matrix_inv_iterations` to 0 makes Brax invert the mass matrix exactly and integrate the
    damping implicitly, as MuJoCo's Euler integrator does.
    """
    opening, motors = [], []
    offset = 0.0
    for link in range(len(body.lengths)):
        length = float(body.lengths[link])
        opening.append(
            f'<body name="link{link}" pos="{offset!r} 0 0">'
            f'<joint name="joint{link}" type="hinge" axis="0 0 1" damping="{float(body.damping[link])!r}"'
            f' armature="{float(body.armature[link])!r}"/>'
            f'<geom type="capsule" fromto="0 0 0 {length!r} 0 0" size="{float(body.radii[link])!r}"'
            f' mass="{float(body.masses[link])!r}" contype="0" conaffinity="0"/>'
        )
        motors.append(
            f'<motor joint="joint{link}" gear="{float(body.torque[link])!r}" ctrllimited="true" ctrlrange="-1 1"/>'
        )
        offset = length
    return (
        f'<mujoco model="reacher"><option timestep="{timestep!r}" gravity="0 0 0"/>'
        '<custom><numeric name="matrix_inv_iterations" data="0"/></custom>'
        f"<worldbody>{''.join(opening)}{'</body>' * len(opening)}</worldbody>"
        f"<actuator>{''.join(motors)}</actuator></mujoco>"
    )


def mujoco_model(body: Body, timestep: float) -> Any:
    """Return the `mujoco.MjModel` of one body `[links]`, its disabled links left out."""
    return mujoco.MjModel.from_xml_string(to_mjcf(enabled_links(body), timestep))


@functools.cache
def template(slots: int, timestep: float) -> Any:
    """The `brax.System` of a chain of `slots` links; it holds arrays, never tracers, wherever it is built."""
    with without_chatter(), jax.ensure_compile_time_eval():
        return mjcf.loads(to_mjcf(uniform_body(slots, 1.0), timestep))


def to_system(body: Body, timestep: float) -> Any:
    """Return the `brax.System` of one body `[links]`: the chain's, with this body's lengths, inertias and motors.

    Pure JAX: the body may be traced and batched. Only what the generalized pipeline reads is replaced.
    """
    system = template(body.lengths.shape[-1], timestep)
    lengths = jnp.asarray(body.lengths)
    inertia = system.link.inertia.replace(
        transform=system.link.inertia.transform.replace(pos=_along(lengths / 2)),
        mass=jnp.asarray(body.masses),
        i=_principal(body),
    )
    joints = jnp.concatenate([jnp.zeros(1), lengths[:-1]])
    link = system.link.replace(transform=system.link.transform.replace(pos=_along(joints)), inertia=inertia)
    dof = system.dof.replace(damping=jnp.asarray(body.damping), armature=jnp.asarray(body.armature))
    return system.replace(link=link, dof=dof, actuator=system.actuator.replace(gear=jnp.asarray(body.torque)))


def _along(distance: Float[Array, "links"]) -> Float[Array, "links 3"]:
    """Points on the x axis of each link's frame."""
    return distance[:, None] * jnp.array([1.0, 0.0, 0.0])[None]


def _principal(body: Body) -> Float[Array, "links 3 3"]:
    """Inertia in the capsule's own frame, whose z axis runs along it: the spin about that axis never enters a plane."""
    across = link_inertia(body)
    spin = jnp.asarray(body.masses) * jnp.square(jnp.asarray(body.radii)) / 2
    return jax.vmap(jnp.diag)(jnp.stack([across, across, spin], axis=-1))
