"""An elite's body for other programs and for people."""

from pathlib import Path

import numpy as np

from jaxrl_engine.core.errors import UserError
from jaxrl_engine.envs.reacher.body import Body, enabled_links
from jaxrl_engine.envs.reacher.system import to_mjcf
from jaxrl_engine.modes.policy import SavedPolicy
from jaxrl_engine.runtime.errors import RunError, one_line


def describe_body(body: Body) -> str:
    """Say how many links a body has and how long they are."""
    lengths = np.asarray(body.lengths)[np.asarray(body.mask)]
    return f"{len(lengths)} links of {', '.join(f'{length:.3f}' for length in lengths)} m, {lengths.sum():.3f} m in all"


def export_mjcf(policy: SavedPolicy, path: Path) -> None:
    """Write the body that a policy moves as MJCF, its disabled links left out.

    Raises:
        UserError: the run has no bodies.
        RunError: the file cannot be written.
    """
    body = policy.built.env_params
    if policy.elite is None:
        raise UserError("export_mjcf: this run has no repertoire of bodies")
    config = policy.built.config
    env = policy.built.env
    timestep = env.step_seconds / env.substeps  # type: ignore[attr-defined]
    try:
        path.write_text(to_mjcf(enabled_links(body), timestep))
    except OSError as error:
        raise RunError(f"{path}: {one_line(error)}") from error
    print(f"wrote {path}: the body of elite {policy.elite} of {config.env}")
