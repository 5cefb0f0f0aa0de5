"The whole-clip network of Video Diffusion Models: shapes, time that is known and time that is arrested, and what it refuses."
import math
import pytest, torch
from oniris.diffusion.ddpm import GaussianDiffusion
from oniris.diffusion.vdm import extend
from oniris.nn.unet3d import AxisAttention, FrameNorm, TimeBias, Unet3D, present_bias, relative_bucket

def small(**kw): torch.manual_seed(0); return Unet3D(**dict(dict(dim=8, dim_mults=(1, 2), attn_heads=2, attn_dim_head=8), **kw)).eval()
def steps(b): return torch.arange(b)*100 + 3
def refused(f, said, kind=(ValueError, TypeError)):
    with pytest.raises(kind) as e: f()
    assert said in str(e.value), str(e.value)

@pytest.mark.parametrize('kw,shape', [(dict(), (2, 3, 5, 8, 8)), (dict(channels=1), (1, 1, 1, 4, 6)), (dict(dim_mults=(1, 2, 4)), (1, 3, 3, 8, 4)),
                                      (dict(dim_mults=(1,)), (1, 3, 2, 5, 7)), (dict(dim=12, resnet_groups=5), (1, 3, 2, 4, 4))])
def test_a_clip_in_a_clip_out(kw, shape):
    assert small(**kw)(torch.randn(shape), steps(shape[0])).shape == shape

def test_output_channels_and_gradients():
    net, x = small(out_dim=6), torch.randn(2, 3, 4, 8, 8)
    y = net(x, steps(2))
    assert y.shape == (2, 6, 4, 8, 8)
    y.square().mean().backward()
    assert all(p.grad is not None for p in net.parameters())

def seen(net, mask): # which frames of each clip notice that frame 2 changed
    x = torch.randn(len(mask), 3, 5, 8, 8); other = x.clone(); other[:, :, 2] += 1
    with torch.no_grad(): y, z = (net(v, steps(len(mask)), focus_present_mask=mask) for v in (x, other))
    return (y - z).abs().amax((1, 3, 4)) > 1e-6

def test_focus_present_mask_is_one_decision_a_clip():
    assert seen(small(), torch.tensor([True, False, True])).tolist() == [[i == 2 for i in range(5)], [True]*5, [i == 2 for i in range(5)]]

def test_a_focused_clip_is_a_set_of_images():
    net, x = small(), torch.randn(2, 3, 4, 8, 8)
    with torch.no_grad():
        clip = net(x, steps(2), prob_focus_present=1.)
        images = torch.cat([net(x[:, :, [i]], steps(2)) for i in range(4)], 2)
    assert (clip - images).abs().max() < 1e-5

def test_probability_of_focus():
    net, x = small(), torch.randn(64, 3, 2, 4, 4)
    torch.manual_seed(1)
    with torch.no_grad(): free, some, all_ = (net(x, torch.full((64,), 5), prob_focus_present=p) for p in (0., .5, 1.))
    like_all = ((some - all_).abs().amax((1, 2, 3, 4)) < 1e-6).sum().item()
    like_free = ((some - free).abs().amax((1, 2, 3, 4)) < 1e-6).sum().item()
    assert like_all + like_free == 64 and 16 < like_all < 48

def test_relative_buckets_are_t5s():
    def t5(distance, buckets=32, furthest=128): # the definition, one number at a time
        half = buckets//2
        base, far = (half if distance > 0 else 0), abs(distance)
        if far < half//2: return base + far
        return base + min(half//2 + int(math.log(far/(half//2))/math.log(furthest/(half//2))*(half - half//2)), half - 1)
    d = torch.arange(-300, 301)
    assert relative_bucket(d).tolist() == [t5(k) for k in d.tolist()]
    assert relative_bucket(d).min() == 0 and relative_bucket(d).max() == 31

def test_bias_depends_on_the_difference_alone():
    bias = TimeBias(3)(9)
    assert bias.shape == (3, 9, 9) and torch.equal(bias[:, 1:, 1:], bias[:, :-1, :-1])
    assert torch.equal(TimeBias(2, buckets=8)(4).isfinite(), torch.ones(2, 4, 4, dtype=torch.bool))

def test_the_wall():
    bias, focus = torch.randn(2, 4, 4), torch.tensor([True, False])
    wall = present_bias(bias, focus)
    assert wall.shape == (2, 1, 2, 4, 4) and torch.equal(wall[1, 0], bias)
    assert torch.equal(wall[0, 0].isinf(), ~torch.eye(4, dtype=torch.bool).expand(2, -1, -1))

def test_frames_have_statistics_of_their_own():
    norm, x = FrameNorm(2, 4), torch.randn(2, 4, 3, 5, 5)
    other = x.clone(); other[:, :, 1] *= 7
    assert torch.equal(norm(x)[:, :, [0, 2]], norm(other)[:, :, [0, 2]])

def test_attention_is_a_residual():
    layer, x = AxisAttention(8, 2, 4), torch.randn(2, 3, 5, 8)
    torch.nn.init.zeros_(layer.out.weight)
    assert torch.equal(layer(x), x)

def test_conditions():
    net, x = small(cond_dim=6), torch.randn(2, 3, 3, 8, 8)
    a, b = torch.randn(2, 2, 6)
    with torch.no_grad():
        y = [net(x, steps(2), cond=c) for c in (a, b)] + [net(x, steps(2)), net(x, steps(2), cond=a, null_cond_prob=1.)]
    assert (y[0] - y[1]).abs().max() > 1e-5 and torch.equal(y[2], y[3])

def test_refusals():
    net, x, t = small(), torch.randn(2, 3, 3, 8, 8), steps(2)
    refused(lambda: net(x[:, :2], t), 'c=3')
    refused(lambda: net(x[:, :, 0], t), 'b c f h w')
    refused(lambda: net(x[..., :7], t), 'sides that 2 divides, for 2 levels, got 8x7')
    refused(lambda: net(x, t, cond=torch.randn(2, 6)), 'cond_dim=None')
    refused(lambda: small(cond_dim=6)(x, t, cond=torch.randn(2, 5)), 'e=6')
    refused(lambda: small(cond_dim=6)(x, t, cond=torch.randn(3, 6)), 'b=2')
    refused(lambda: net(x, t, focus_present_mask=torch.zeros(3, dtype=torch.bool)), 'focus_present_mask')
    refused(lambda: Unet3D(dim=0), 'dim: expected a whole number of at least 1')

def test_refusals_of_the_diffusion_around_it():
    d = GaussianDiffusion(small(), image_size=8, num_frames=4, timesteps=10)
    refused(lambda: d(torch.randn(2, 3, 5, 8, 8)), 'expected shape (b, 3, 4, 8, 8), got (2, 3, 5, 8, 8)')
    refused(lambda: d(torch.randn(2, 3, 4, 8, 8)*100), 'are these bytes')
    refused(lambda: d(torch.zeros(2, 3, 4, 8, 8), cond=['a', 'b']), 'text_encoder')
    refused(lambda: d(torch.zeros(2, 3, 4, 8, 8), cond=torch.randn(2, 6)), 'cond_dim=None')
    refused(lambda: extend(d, torch.zeros(1, 3, 4, 8, 8)), '1 to 3 frames')

def test_extension_begins_with_what_is_known():
    d, known = GaussianDiffusion(small(), image_size=8, num_frames=4, timesteps=10), torch.rand(2, 3, 2, 8, 8)*2 - 1
    for weight in 0., 1.:
        y = extend(d, known, weight=weight, steps=3)
        assert y.shape == (2, 3, 4, 8, 8) and torch.equal(y[:, :, :2], known) and y.abs().max() <= 1 and not y.requires_grad

def test_a_video_of_another_length_size_or_range():
    d = GaussianDiffusion(small(), image_size=8, num_frames=4, timesteps=10)
    good = torch.zeros(2, 3, 4, 8, 8)
    assert d(good).ndim == 0
    for bad in good[:, :, :3], good[..., :6], good[:, :2], good[:, :, 0], good[0]: refused(lambda: d(bad), 'x: expected shape (b, 3, 4, 8, 8)')
    for bad in good + 255, good.double() - 30, good*math.nan: refused(lambda: d(bad), 'are these bytes')
    refused(lambda: d(good.byte()), 'floats')
    refused(lambda: d(good, cond='a whale'), 'list of strings')
    refused(lambda: extend(d, torch.zeros(1, 3, 0, 8, 8)), '1 to 3 frames')

def test_strings_by_bert(monkeypatch):
    "use_bert_text_cond takes bert-base, 768 numbers a text; which one is asked for is all that is tested without its weights."
    import oniris
    asked = []
    def fake(name):
        asked.append(name)
        return lambda texts: torch.ones(len(texts), 768)
    monkeypatch.setattr(oniris, 'text_encoder', fake, raising=False)
    net = small(use_bert_text_cond=True)
    d = GaussianDiffusion(net, image_size=8, num_frames=2, timesteps=10)
    assert asked == ['bert-base-uncased'] and net.cond_dim == 768
    d(torch.zeros(3, 3, 2, 8, 8), cond=['a whale', 'a cake', 'fireworks']).backward()

def test_strings_by_a_small_random_bert(tmp_path):
    "The whole path with transformers' own classes, their weights random: strings -> tokens -> BERT -> film."
    transformers = pytest.importorskip('transformers')
    from oniris.data.captions import text_encoder
    words = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'whale', 'breaching', 'from', 'afar', 'cake']
    (tmp_path/'vocab.txt').write_text('\n'.join(words))
    transformers.BertTokenizer(str(tmp_path/'vocab.txt')).save_pretrained(tmp_path)
    torch.manual_seed(0)
    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_position_embeddings=12)
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **size)).save_pretrained(tmp_path)
    encode = text_encoder(str(tmp_path))
    v = torch.as_tensor(encode(['a whale', 'a whale breaching from afar', 'a cake']))
    assert v.shape == (3, 16) and ((v**2).mean(1) - 1).abs().max() < 1e-5 and (v[0] - v[2]).abs().max() > 1e-3
    assert (torch.as_tensor(encode(['a whale'])) - v[0]).abs().max() < 1e-5           # padding and the rest of the batch do not matter
    refused(lambda: encode(['a whale breaching from afar '*3]), 'tokens')
    d = GaussianDiffusion(small(cond_dim=16, text_encoder=encode), image_size=8, num_frames=2, timesteps=10)
    assert d.sample(cond=['a whale', 'a cake'], cond_scale=2, steps=2).shape == (2, 3, 2, 8, 8)
