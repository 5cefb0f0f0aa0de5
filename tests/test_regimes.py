"""The regimes of recipes/regimes: one objective is another at another price, no future leaks, runs go on; and the world of recipes/memory."""
import pytest
import torch
from oniris.core import generator
from oniris.recipes.memory import FRONT, asked, lessons, named, recalled, remembering
from oniris.recipes.regimes import REGIMES, STACK, make_regime, stacks, step_seconds, train_for

NET = dict(model_channels=16, channel_mult=(1, 2), video_attn=(2,), head_dim=16)
CAUSAL = [n for n in REGIMES if n != 'whole video']

def clips(n=4, t=18):
    g = generator(0, stream='test')
    return torch.randn(n, t, 3, 4, 4, generator=g), torch.randn(n, t, 2, generator=g)

def make(name, **changes): return make_regime(name, *clips(), net=NET, **changes)

def shaken(name, **changes): # weights at which every gate and every layer says something
    r = make(name, **changes)
    with torch.no_grad():
        for p in r.world.parameters(): p += .1 * torch.randn(p.shape, generator=generator(1, stream='test'))
    return r

def test_a_context_for_each_target_is_two_copies():
    two, own = shaken('two copies'), make('own context')
    own.world = two.world
    x, actions = two.windows(3)
    noisy, sigma = two.loss.noised(x, two.draw(3, 'noise'))
    l = two.losses(x, actions, two.draw(3, 'noise'))[1]
    each = torch.cat([own.target(x, actions, noisy, sigma, i)[1] for i in range(own.length)], 1)
    assert torch.allclose(l, each, rtol=1e-4, atol=1e-5)

def test_diffusion_forcing_is_asked_about_a_clean_past_by_two_copies():
    r, (x, a) = shaken('diffusion forcing'), clips(2, 10)
    level, s = torch.full(x.shape[:2], .05), torch.full(x.shape[:2], 2.)
    asked = r.next_frame(x, 2 * x, x, s, level, a)
    for i in (0, 4, 9):
        one = torch.cat([x[:, :i], 2 * x[:, i:i + 1]], 1), torch.cat([level[:, :i], s[:, i:i + 1]], 1)
        alone = r.world(*(v[:, None] for v in one), a[:, :i + 1])[:, 0, -1]
        assert torch.allclose(asked[:, i], alone, atol=1e-5)

@pytest.mark.parametrize('name', CAUSAL)
def test_an_action_changes_nothing_before_its_frame(name):
    r, (x, a) = shaken(name), clips(2, 14)
    other = a.clone()
    other[:, 11:] += 1
    one, two = r.dream(x[:, :8], a), r.dream(x[:, :8], other)
    assert torch.equal(one[:, :3], two[:, :3]) and not torch.equal(one[:, 3], two[:, 3])

def test_whole_video_wants_its_actions_at_once():
    r, (x, a) = shaken('whole video'), clips(2, 14)
    other = a.clone()
    other[:, 11:] += 1
    assert not torch.equal(r.dream(x[:, :8], a)[:, 0], r.dream(x[:, :8], other)[:, 0])
    with pytest.raises(ValueError, match='past of at least 8'): r.dream(x[:, :4], a)

@pytest.mark.parametrize('name', CAUSAL)
def test_a_frame_is_not_told_what_comes_after_it(name):
    r, (x, a) = shaken(name), clips(2, 12)
    s, level = torch.full(x.shape[:2], 1.), torch.full(x.shape[:2], .05)
    eps = torch.randn(x.shape, generator=generator(2))
    other = x.clone()
    other[:, 9:] += 1
    one, two = (r.next_frame(v, v + eps, v, s, level, a) for v in (x, other))
    n = one.shape[1] - 3
    assert torch.equal(one[:, :n], two[:, :n])

def test_stacks_hold_the_four_before_each_frame():
    v = torch.arange(10.)[None]
    assert stacks(v).tolist()[0][0] == [0, 1, 2, 3] and stacks(v).tolist()[0][-1] == [5, 6, 7, 8]
    assert stacks(v, 1).tolist()[0][0] == [1, 2, 3, 4] and stacks(v).shape == (1, 10 - STACK, STACK)

@pytest.mark.parametrize('name', ['two copies', 'frame stacking', 'whole video'])
def test_a_run_that_was_killed_goes_on(name, tmp_path):
    def run(**kw):
        r = make(name, seed=5)
        return train_for(r, 4, 1e-2, clips(2, 16), marks=2, **kw), r.world.state_dict()
    curve, whole = run()
    run(out=tmp_path / 'a.pt', every=2)
    state = torch.load(tmp_path / 'a.pt', weights_only=True)
    assert state['step'] == 4
    again, same = run(out=tmp_path / 'a.pt')
    assert curve == again and all(torch.equal(v, same[k]) for k, v in whole.items())

def test_all_regimes_learn_from_the_same_windows_and_cost_something():
    regimes = {n: make(n) for n in ('two copies', 'diffusion forcing')}
    assert torch.equal(regimes['two copies'].windows(7)[0], make('two copies').windows(7)[0])
    assert all(v > 0 for v in step_seconds(regimes, 1).values())

def test_what_cannot_be():
    with pytest.raises(ValueError, match='regime: expected one of'): make('cross attention')
    r, (x, a) = make('frame stacking'), clips(1, 12)
    with pytest.raises(ValueError, match='frames'): r.rollout(x[0], a)
    with pytest.raises(ValueError, match='actions'): r.rollout(x[:, :8], a.expand(3, -1, -1))

# ---- memory
def test_histories_look_alike_and_differ():
    x, actions, colour = asked(5)
    assert x.shape == (16, FRONT + 7, 3, 2, 2) and actions.sum() == 32
    assert torch.equal(x[0, FRONT + 1:-1], x[3, FRONT + 1:-1]) and not torch.equal(x[0], x[3])
    assert torch.equal(named(x[:, -1], torch.arange(16) // 4), colour)
    with pytest.raises(ValueError, match='gap'): asked(-1)

def test_lessons_are_a_function_of_the_seed():
    one, two = lessons(8, 20, 3), lessons(8, 20, 3)
    assert all(torch.equal(a, b) for a, b in zip(one, two)) and not torch.equal(one[1], lessons(8, 20, 4)[1])
    assert (one[1][:, :FRONT] == 0).all() and (one[1][:, FRONT] == 1).all()

def test_a_stack_cannot_know_what_is_further_back():
    stack, (x, actions, _) = remembering('stack', 12), asked(6)
    stack.seed = 4
    one, two = (stack.dream(x[i:i + 1, :-1], actions[i:i + 1]) for i in (0, 3))
    assert torch.equal(one[:, -1], two[:, -1])
    assert 0 <= recalled(stack, 6, 1) <= 1
