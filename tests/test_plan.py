"What a planner and the dreams that it spreads refuse"
import pytest, torch
from oniris.agents.plan import Planner, plan_worth
from oniris.diffusion.edm import Denoiser
from oniris.dream.imagine import LatentDreamer
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run
from oniris.nn.unet import UNet

def small(**more): return LatentDreamer(Denoiser(UNet(8, 3, 3, model_channels=8, channel_mult=(1,), window=4, **more)), steps=1)

@pytest.mark.parametrize('given, said', [(dict(horizon=0), 'horizon'), (dict(number=1), 'number'), (dict(rounds=0), 'rounds'), (dict(every=0), 'every'),
    (dict(horizon=3, every=4), 'every: expected at most the horizon'), (dict(number=4, flown=5), 'flown: expected at most 4'), (dict(flown=2), 'policy: expected one'),
    (dict(flown=-1), 'flown'), (dict(lead=-1), 'lead')])
def test_numbers(given, said):
    run = load_run('lander', 'cpu')
    with pytest.raises(ValueError, match=said): Planner(run, RewardHead(8, (16, 16), 4), **given)

def test_spread():
    d = small(cond_dim=2)
    with pytest.raises(RuntimeError, match='before reset'): d.spread(2)
    z, actions, cond = torch.randn(2, 3, 3, 8, 8), torch.eye(3)[torch.tensor([[0, 1, 2], [2, 1, 0]])], torch.tensor([[1., 0], [0, 1]])
    other = d.reset(z, actions, cond, 0).spread(3)
    assert other.b == 6 and other.cond[:, 0].tolist() == [1, 1, 1, 0, 0, 0] and d.b == 2
    before = {k: v.clone() for k, v in d.cache.tensors().items()}
    other.step(torch.eye(3)[[0, 1, 2, 0, 1, 2]])
    assert all(torch.equal(v, before[k]) for k, v in d.cache.tensors().items()) # the one it came from is as it was
    assert len(other.ages) == 6 and set(other.ages) == {4} and d.ages == [3, 3]

def test_worth_cut_anywhere():
    reward, over = torch.randn(5, 9), torch.rand(5, 9)
    whole = plan_worth(reward, over, .9, torch.ones(5))
    for t in range(1, 9):
        then = plan_worth(reward[:, t:], over[:, t:], .9, torch.ones(5))
        torch.testing.assert_close(plan_worth(reward[:, :t], over[:, :t], .9, then), whole)
