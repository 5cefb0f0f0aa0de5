"A player of MiniGrid-DoorKey: fetches the key, opens the door, goes to the goal, and errs by a share that is drawn for the episode."
from collections import deque

LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
STEPS = [(1, 0), (0, 1), (-1, 0), (0, -1)] # the directions 0 to 3: right, down, left, up
HERE, NOWHERE = -1, -2

def way_to(env, kind):
    "The first key of the shortest way to stand before a thing; HERE if one does, NOWHERE if there is no way."
    start = (*env.agent_pos, env.agent_dir)
    first, queue = {start: HERE}, deque([start])
    while queue:
        x, y, d = state = queue.popleft()
        ahead = x + STEPS[d][0], y + STEPS[d][1]
        cell = env.grid.get(*ahead)
        if cell is not None and cell.type == kind: return first[state]
        nexts = {LEFT: (x, y, (d - 1) % 4), RIGHT: (x, y, (d + 1) % 4)}
        if cell is None or cell.can_overlap(): nexts[FORWARD] = (*ahead, d)
        for key, there in nexts.items():
            if there in first: continue
            first[there] = key if state == start else first[state]
            queue.append(there)
    return NOWHERE

def plan(env, rng):
    "Key, door, goal: what is next, and the key that does it; any key where there is no way."
    door = next(cell for cell in env.grid.grid if cell is not None and cell.type == 'door')
    if door.is_open: kind, act = 'goal', FORWARD
    elif env.carrying is not None or not door.is_locked: kind, act = 'door', TOGGLE
    else: kind, act = 'key', PICKUP
    way = way_to(env, kind)
    if way == NOWHERE: kind, act, way = 'key', PICKUP, way_to(env, 'key') # it was dropped where it bars the way
    return act if way == HERE else int(rng.integers(6)) if way == NOWHERE else way

class Seeker:
    def __init__(self): self.errs = None
    def __call__(self, env, observation, rng):
        if self.errs is None: self.errs = .1 + .6 * rng.random()
        return int(rng.integers(6)) if rng.random() < self.errs else plan(env.unwrapped, rng)
