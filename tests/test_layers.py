"Refusals of the layers and the U-Net, which would only be in the way in their chapters."
import pytest, torch
from oniris.nn.attention import FrameAttention, KVRing, VideoAttention, apply_rope, attend_cached
from oniris.nn.conv import CausalConv
from oniris.nn.mask import block_mask, dense_mask, frame_mask, inference_mask
from oniris.nn.mp import MPConv
from oniris.nn.unet import UNet

def refused(f, said, kind=ValueError):
    with pytest.raises(kind) as e: f()
    assert said in str(e.value), str(e.value)

def test_mp():
    refused(lambda: MPConv(4, 4, (3,)), 'two odd numbers')
    refused(lambda: MPConv(4, 4, (3, 3))(torch.randn(1, 5, 8, 8)), 'expected 4 channels, given 5')

def test_mask():
    refused(lambda: dense_mask(0, 4), 't: expected an integer >= 1, got 0')
    refused(lambda: block_mask(4, 64, s=3), 's: expected 1 or 2 copies, got 3')
    refused(lambda: inference_mask(1, 4, past=-1), 'past: expected an integer >= 0')
    refused(lambda: frame_mask(4, window=1.5), 'window: expected an integer, got 1.5', TypeError)

def test_attention():
    video, x = VideoAttention(32, (4, 4), head_dim=16), torch.randn(2, 2, 5, 32, 4, 4)
    refused(lambda: video(torch.randn(2, 3, 4, 32, 4, 4)), 's=(1, 2)')
    refused(lambda: apply_rope(x[:, 0], torch.arange(3)), 'got shape (3,)')
    refused(lambda: VideoAttention(96, (4, 4), head_dim=40, window=-1), 'window')
    refused(lambda: FrameAttention(100, head_dim=32), '100 channels cannot be divided among 3 heads')
    refused(lambda: KVRing(1, 1, 4, 16, window=0), 'window=0')
    refused(lambda: attend_cached(*torch.zeros(3, 1, 1, 3, 4, 16), KVRing(1, 1, 4, 16, 4, block=2)), 'blocks of 2')

@pytest.mark.parametrize('bad', [dict(kernel_t=0), dict(kernel=2), dict(resolution=8), dict(block=0)])
def test_conv_sizes(bad): refused(lambda: CausalConv(**{**dict(c_in=4, c_out=4, resolution=(8, 8)), **bad}), 'expected')

def test_conv():
    layer = CausalConv(5, 6, (4, 6), kernel_t=3)
    x, c_noise = torch.randn(2, 1, 5, 5, 4, 6), torch.randn(2, 1, 5)
    refused(lambda: layer(x[:, :, :, :4], c_noise), 'c=5')
    refused(lambda: layer(x[:, 0], c_noise), 'b s t c h w')
    refused(lambda: layer(x, c_noise[:, :, 1:]), 'c_noise')
    refused(lambda: layer(x, c_noise, layer.new_cache(3)), 'state')
    refused(lambda: layer(x.expand(-1, 2, -1, -1, -1, -1), c_noise.expand(-1, 2, -1), layer.new_cache(2)), 'one copy')
    refused(lambda: layer(x, c_noise, scale=torch.ones(2, 1, 5, 1)), 'scale')
    refused(lambda: CausalConv(5, 6, (4, 6), kernel_t=3, block=2)(x, c_noise, layer.new_cache(2)), 'blocks of 2')

def small(**kw): return UNet(8, **dict(dict(channels=4, action_dim=3, model_channels=16, video_attn=(8, 4), head_dim=16), **kw))

def test_unet_inputs():
    net, x, c = small(), torch.randn(2, 2, 4, 4, 8, 8), torch.randn(2, 2, 4)
    cache, ok = net.new_cache(2, 4), (torch.randn(2, 1, 1, 4, 8, 8), torch.randn(2, 1, 1))
    refused(lambda: net(torch.randn(2, 2, 4, 4, 8, 6), c), 'h=8, w=8')
    refused(lambda: net(torch.randn(2, 3, 4, 4, 8, 8), c), 's=(1, 2)')
    refused(lambda: net(x, c[:, :, 1:]), 'c_noise')
    refused(lambda: net(x, c, torch.zeros(2, 4, 5)), 'a=3')
    refused(lambda: net(x, c, cond=torch.zeros(2, 9)), 'cond_dim=0')
    refused(lambda: net(x, c, cache=cache), 'one copy')
    refused(lambda: net(ok[0][:1], ok[1][:1], cache=cache), 'b=2')
    refused(lambda: small(window=3)(*ok, cache=cache), 'another network')
    refused(lambda: net(x.double(), c), 'float64', TypeError)
    refused(lambda: net.new_cache(2, 0), 'window >= 1')
    refused(lambda: small(block=4)(x[:, :1, :3], c[:, :1, :3], cache=small(block=4).new_cache(2, 8)), 'blocks of 4')

def test_unet_sizes():
    refused(lambda: UNet(9, 4), 'multiple of 2')
    refused(lambda: UNet(8, 48, model_channels=32), 'could not even represent the noise')
    refused(lambda: UNet(8, 4, num_blocks=0), 'num_blocks')
    with pytest.warns(UserWarning): UNet(8, 4, video_attn=(5,))

def test_cache_copies():
    net = small(kernel_t=3)
    cache, late = net.new_cache(2, 4), net.new_cache(1, 4, clock=3)
    refused(lambda: cache.copy_(late, rows=[1]), 'at frame')
    refused(lambda: cache.copy_(late), '2 sequences')
    refused(lambda: cache.copy_(net.new_cache(2, 4, sinks=1)), 'sinks')
