"Averages of weights given what they cannot use. Run: pytest tests/test_ema.py"
import numpy as np, pytest, torch
from torch import nn
from oniris.training.ema import PowerEMA, power_function_beta, power_profile, reconstruct, reconstruction_coefficients, std_to_gamma

class Scalar(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(1, dtype=torch.float64))

def snapshots():
    ema = PowerEMA(Scalar())
    ema.update(10)
    return ema.snapshot()

def test_profiles_refuse_numbers():
    with pytest.raises(ValueError, match='t > 0'): power_profile(np.linspace(0, 1), 0., 1.)
    for t, before in ((0, None), (5, 5), (5, 6)):
        with pytest.raises(ValueError, match='t_prev < t'): power_function_beta(3., t, before)

@pytest.mark.parametrize('std', [0., .3, -1., float('nan')])
def test_widths_out_of_range(std):
    with pytest.raises(ValueError, match='relative width'): std_to_gamma(std)
    with pytest.raises(ValueError, match='relative width'): PowerEMA(Scalar(), (.1, std))

def test_averages_refuse():
    ema = PowerEMA(Scalar(), (.05, .1))
    ema.update(5)
    with pytest.raises(ValueError, match='a step after 5'): ema.update(5)
    with pytest.raises(ValueError, match='do not fit'): ema.copy_to(nn.Linear(2, 2))
    with pytest.raises(ValueError, match='widths'): PowerEMA(Scalar(), (.1,)).load_state_dict(ema.state_dict())
    with pytest.raises(ValueError, match='at least one'): PowerEMA(Scalar(), ())
    with pytest.raises(ValueError, match='at least one update'): PowerEMA(Scalar()).snapshot()
    with pytest.raises(TypeError): PowerEMA([torch.zeros(1)])
    for i in (2, -1):
        with pytest.raises(IndexError): ema.weights(i)

def test_reconstruction_refuses():
    snaps = snapshots()
    with pytest.raises(ValueError, match='last snapshot'): reconstruct(snaps, .1, step=11)
    with pytest.raises(ValueError, match='at least one snapshot'): reconstruct([], .1)
    with pytest.raises(ValueError, match='do not fit'): reconstruct([snaps[0], dict(snaps[1], weights={})], .1)
    with pytest.raises(ValueError, match='as many as widths'): reconstruction_coefficients([1, 2], [.1], 2, .1)
