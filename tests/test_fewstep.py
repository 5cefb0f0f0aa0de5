"Consistency's loss in parts, saved, and given what it cannot use. Run: pytest tests/test_fewstep.py"
from functools import partial
import pytest, torch
from torch import nn
from oniris.core import generator
from oniris.diffusion.edm import Denoiser
from oniris.diffusion.sampler import karras_sigmas
from oniris.recipes.fewstep import ConsistencyLoss, consistency

class Points(nn.Module): # looks at nothing but a point and its level
    def __init__(self):
        super().__init__()
        self.config = {}
        self.body = nn.Sequential(nn.Linear(3, 16), nn.SiLU(), nn.Linear(16, 2))
    def forward(self, x, c_noise):
        h = self.body(torch.cat([x[:, -1:, ..., 0, 0], c_noise[:, -1:, :, None]], -1))
        return torch.cat([0*x[:, :-1], h[..., None, None]], 1)

@pytest.fixture
def D():
    torch.manual_seed(0)
    return Denoiser(Points())

@pytest.fixture
def z(): return torch.randn(6, 3, 2, 1, 1, generator=generator(0))

def test_parts_make_up_the_whole(D, z):
    loss = ConsistencyLoss(huber=.1, fit=False)
    halves = [loss(D, z[3*i:3*i + 3], generator=generator(2), microbatch=(i, 2))[0] for i in range(2)]
    assert torch.allclose(sum(halves)/2, loss(D, z, generator=generator(2))[0], atol=1e-5)

def test_a_saved_loss_continues_at_its_gap(D, z):
    shrinking = partial(ConsistencyLoss, last=.125, over=20)
    saved, other = shrinking(), shrinking()
    logs = saved(D, z, generator=generator(1))[1]
    for _ in range(7): saved.update(logs)
    other.load_state_dict(saved.state_dict())
    assert saved.gap < .4 and (other.gap, other.step) == (saved.gap, 7) and torch.allclose(other.fit.coef, saved.fit.coef)

def test_levels_below_the_floor_are_clean():
    assert ConsistencyLoss(fit=False).lower(torch.tensor([.05, 2.])).tolist() == [0., 1.]
    assert ConsistencyLoss(first=1, last=.25, over=4).gap == 1

@pytest.mark.parametrize('wrong', [dict(first=0.), dict(first=1.5), dict(last=.9), dict(over=0), dict(huber=-1.), dict(floor=0.)])
def test_numbers(wrong):
    with pytest.raises(ValueError, match=list(wrong)[0]): ConsistencyLoss(**wrong)

def test_shapes_and_what_is_not_finite(D, z):
    loss = ConsistencyLoss(fit=False)
    with pytest.raises(ValueError): loss(D, z[0])
    assert loss(D, z/0*z, generator=generator(1))[0].isnan()

def test_the_sampler_refuses():
    with pytest.raises(TypeError): consistency(lambda x, s: x, torch.zeros(3), [1., 0.])
    assert torch.equal(consistency(lambda x, s: x, torch.ones(3), karras_sigmas(1, .8, 10.)), torch.ones(3))
