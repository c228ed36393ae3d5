"""The two UAV worlds once more, from their rules and the radio equations: NumPy, double precision, one step at a time.

Shares no code with the package; `config` is a mapping of the world's parameters. Randomness is handed in as drawn
numbers. `step` also says how far the nearest decision was from tipping over, so that a comparison in single precision
can leave out what rounding may decide either way.
"""

import collections
import itertools
import math

import numpy as np

PHONE = 1.5  # m
STATION = 25.0  # m


def path_loss(config, uav, user, los_draw=None, shadow_draw=None):
    """Loss in dB of one link, and the margin of its decisions."""
    ground = math.hypot(uav[0] - user[0], uav[1] - user[1])
    height = uav[2]
    space = math.hypot(ground, height - PHONE)
    kind, giga = config["channel"], config["carrier_ghz"]
    if kind == "free_space":
        return 20 * math.log10(4 * math.pi * space * giga * 1e9 / 299792458), math.inf
    if kind == "urban":
        return 128.1 + 37.6 * math.log10(space / 1e3), math.inf
    if kind == "suburban":
        return 120 + 35 * math.log10(space / 1e3), math.inf
    if height > 100:
        chance = 1.0
    else:
        first, scale = max(460 * math.log10(height) - 700, 18), 4300 * math.log10(height) - 3800
        chance = 1.0 if ground <= first else first / ground + math.exp(-ground / scale) * (1 - first / ground)
    clear = 28 + 22 * math.log10(space) + 20 * math.log10(giga)
    blocked = -17.5 + (46 - 7 * math.log10(height)) * math.log10(space) + 20 * math.log10(40 * math.pi * giga / 3)
    margin = abs(height - 100) / 100 if height != 100 else math.inf
    if los_draw is None:
        return chance * clear + (1 - chance) * blocked, margin
    margin = min(margin, abs(chance - los_draw))
    if los_draw < chance:
        return clear + 4.64 * math.exp(-0.0066 * height) * shadow_draw, margin
    return blocked + 6 * shadow_draw, margin


def sinr_db(config, uavs, users, fading=None):
    """SINR of every link in dB, [uavs, users], and the margin."""
    draws = fading if fading is not None else (np.full((len(uavs), len(users)), None),) * 2
    pairs = [[path_loss(config, a, u, draws[0][i][j], draws[1][i][j]) for j, u in enumerate(users)]
             for i, a in enumerate(uavs)]  # fmt: skip
    losses, margins = np.moveaxis(np.array(pairs), -1, 0)
    received = 10 ** ((config["tx_power_dbm"] - losses) / 10)  # mW
    noise = 10 ** (config["noise_dbm"] / 10)
    found = np.empty_like(received)
    for i in range(len(uavs)):
        found[i] = received[i] / (noise + np.delete(received, i, axis=0).sum(axis=0))
    return 10 * np.log10(found), margins.min()


def greedy(strength, candidate, capacity):
    """Link by link, the strongest first; each user's UAV, -1 for none."""
    links = [(-strength[i, j], i, j) for i, j in zip(*np.nonzero(candidate), strict=True)]
    serving, room = np.full(strength.shape[1], -1), [capacity] * strength.shape[0]
    for _, uav, user in sorted(links):
        if serving[user] < 0 and room[uav] > 0:
            serving[user] = uav
            room[uav] -= 1
    return serving


def greedy_margin(strength, candidate):
    """The least gap in dB between two candidate links."""
    values = np.sort(strength[candidate])
    return np.diff(values).min() if values.size > 1 else math.inf


def links_in_range(config, nodes, fleet):
    """Capacity in Mbit/s of every link by its two ends, and how near a pair is to the limit of range."""
    noise = config["noise_dbm"] + 10 * math.log10(config["backhaul_mhz"] / config["bandwidth_mhz"])
    links, margin = collections.defaultdict(dict), math.inf
    for a, b in itertools.product(range(fleet), range(len(nodes))):
        if a == b:
            continue
        distance = math.dist(nodes[a], nodes[b])
        margin = min(margin, abs(distance - config["link_range"]))
        if distance <= config["link_range"]:
            loss = 20 * math.log10(4 * math.pi * max(distance, 1.0) * config["carrier_ghz"] * 1e9 / 299792458)
            ratio = 10 ** ((config["tx_power_dbm"] - loss - noise) / 10)
            links[a][b] = config["backhaul_mhz"] * math.log2(1 + ratio)
    return links, margin


def best_route(links, start, fleet, max_hops):
    """Hops and narrowest link of the best route, by breadth-first search over all shortest paths; (0, 0): none."""
    paths, arrived = collections.deque([((start,), math.inf)]), []
    while paths:
        path, narrowest = paths.popleft()
        if path[-1] >= fleet:
            arrived.append((len(path) - 1, -narrowest))
        elif len(path) <= (arrived[0][0] if arrived else max_hops):
            onward = [(other, rate) for other, rate in links[path[-1]].items() if other not in path]
            paths.extend(((*path, other), min(narrowest, rate)) for other, rate in onward)
    hops, narrowest = min(arrived, default=(0, 0.0))
    return hops, -narrowest


def backhaul(config, uavs):
    """Hops (0: no route) and rate in Mbit/s of every UAV, and the margin in metres."""
    count, fleet = config["num_stations"], len(uavs)
    stations = [(config["side"] * (k + 1) / (count + 1), 0.0, STATION) for k in range(count)]
    links, margin = links_in_range(config, [*map(tuple, uavs), *stations], fleet)
    routes = [best_route(links, start, fleet, config["max_hops"]) for start in range(fleet)]
    hops = np.array([found for found, _ in routes])
    return hops, np.array([rate / max(found, 1) for found, rate in routes]), margin


def fly(config, positions, action):
    """New positions, and how many action components were not legal."""
    moved, bad = np.array(positions, float), 0
    for i, wish in enumerate(np.asarray(action, float)):
        velocity = np.zeros(3)
        for axis, value in enumerate(wish):
            if math.isnan(value):
                bad += 1
                continue
            bad += abs(value) > 1
            velocity[axis] = min(max(value, -1.0), 1.0)
        velocity /= max(1.0, math.sqrt((velocity**2).sum()))
        moved[i] += velocity * config["max_speed"] * config["step_seconds"]
    low = [0, 0, config["min_altitude"]]
    return np.minimum(np.maximum(moved, low), [config["side"], config["side"], config["max_altitude"]]), bad


def stroll(config, users, headings, turns):
    """New user positions and headings, and how near to a wall the nearest user came."""
    side, length = config["side"], config["user_speed"] * config["step_seconds"]
    headings = headings + 0.3 * turns
    users = users + length * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    margin = min(np.abs(users).min(), np.abs(users - side).min())
    for user in range(len(users)):
        for axis in (0, 1):
            if not 0 <= users[user, axis] <= side:
                users[user, axis] = -users[user, axis] if users[user, axis] < 0 else 2 * side - users[user, axis]
                headings[user] = math.pi - headings[user] if axis == 0 else -headings[user]
    return users, headings, margin


def look(config, positions, users, headings, serving, load, time, routes):
    """Observations [uavs, …] and global state."""
    side, fleet = config["side"], len(positions)
    span = config["max_altitude"] - config["min_altitude"]
    box = np.array([side, side, span])
    places = 2 * (positions - [0, 0, config["min_altitude"]]) / box - 1
    clock = time / config["episode_length"]
    walking = [] if headings is None else list(np.stack([np.cos(headings), np.sin(headings)], axis=1).ravel())
    rows = []
    for me in range(fleet):
        order = [(me + k) % fleet for k in range(fleet)]
        row = [*places[me], load[me] / config["capacity"], clock]
        row += [x for other in order[1:] for x in (positions[other] - positions[me]) / box]
        row += list(((users - positions[me, :2]) / side).ravel())
        row += [0.0 if uav < 0 else (1.0 if uav == me else -1.0) for uav in serving]
        row += walking
        if routes is not None:
            count = config["num_stations"]
            row += [float(routes[0][other] > 0) for other in order]
            row += [routes[0][other] / config["max_hops"] for other in order]
            for k in range(count):
                station = np.array([side * (k + 1) / (count + 1), 0, STATION])
                row += list((station - positions[me]) / [side, side, max(config["max_altitude"], STATION)])
        rows.append(row)
    everything = [clock, *places.ravel(), *(load / config["capacity"]), *(2 * users / side - 1).ravel()]
    everything += [float(uav >= 0) for uav in serving] + walking
    if routes is not None:
        everything += [float(h > 0) for h in routes[0]] + [h / config["max_hops"] for h in routes[0]]
    return np.array(rows), np.array(everything)


def step(config, state, action, turns=None):
    """One step of `uav_coverage`, or of `uav_relay` where the parameters name a link range.

    `state` has positions, users, headings, fading (two arrays) or None, and time; `turns` are the walkers' normal
    draws. Returns a dictionary: the new state, observation, global state, reward, metrics, serving, and margins.
    """
    positions, bad = fly(config, state["positions"], action)
    users, headings, wall = state["users"], state["headings"], math.inf
    if headings is not None:
        users, headings, wall = stroll(config, users, headings, turns)
    ratio, radio_margin = sinr_db(config, positions, users, state["fading"])
    candidate = ratio >= config["min_sinr_db"]
    routes, range_margin = None, math.inf
    if "link_range" in config:
        hops, rates, range_margin = backhaul(config, positions)
        routes = hops, rates
        candidate &= (hops > 0)[:, None]
    serving = greedy(ratio, candidate, config["capacity"])
    load = np.array([(serving == i).sum() for i in range(len(positions))], float)
    quality, rate = np.zeros(len(users)), np.zeros(len(positions))
    for user, uav in enumerate(serving):
        if uav >= 0:
            quality[user] = min(max((ratio[uav, user] - config["min_sinr_db"]) / 30, 0), 1)
            rate[uav] += config["bandwidth_mhz"] / load[uav] * math.log2(1 + 10 ** (ratio[uav, user] / 10))
    coverage = (serving >= 0).mean()
    metrics = {"coverage": coverage, "quality": quality.mean()}
    if routes is None:
        height = (positions[:, 2].mean() - config["min_altitude"]) / (config["max_altitude"] - config["min_altitude"])
        metrics["throughput"] = rate.sum()
        reward = config["coverage_weight"] * coverage + config["quality_weight"] * quality.mean()
        reward -= config["height_weight"] * height
    else:
        online = hops > 0
        metrics["throughput"] = np.minimum(rate, rates).sum()
        metrics["connectivity"] = online.mean()
        metrics["mean_hops"] = hops[online].mean() if online.any() else 0.0
        enough = min(metrics["throughput"] / (config["rate_goal"] * len(users)), 1)
        reward = config["coverage_weight"] * coverage + config["quality_weight"] * quality.mean()
        reward += config["connectivity_weight"] * online.mean() + config["throughput_weight"] * enough
        reward -= config["hop_weight"] * (hops / config["max_hops"]).mean()
    observation, global_state = look(config, positions, users, headings, serving, load, state["time"] + 1, routes)
    threshold = np.abs(ratio - config["min_sinr_db"]).min()
    return {
        "positions": positions, "users": users, "headings": headings, "observation": observation,
        "global_state": global_state, "reward": reward, "metrics": metrics, "serving": serving, "invalid": bad,
        "hops": None if routes is None else hops,
        "margin_db": min(threshold, greedy_margin(ratio, candidate)), "margin_m": min(wall, range_margin),
        "margin_share": radio_margin,
    }  # fmt: skip
