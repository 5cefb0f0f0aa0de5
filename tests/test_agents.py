"Agents in dreams of worlds that have learned nothing, in a dream that is arithmetic, and at the codec's eyes. Run: pytest tests/test_agents.py"
import copy
import numpy as np, pytest, torch
from gymnasium import spaces
import oniris.games.squash  # noqa: registers the game
from oniris.agents.actor_critic import (ActorCritic, AgentObjective, Learning, Moments, actor_critic_loss, imagine, lambda_returns, look_back, make_policy_net,
                                        still_there, train_agent)
from oniris.agents.agent import oniris_agent
from oniris.agents.score import Pilot, Played, play_game, play_known, score
from oniris.codec.codec import PatchPCA
from oniris.codec.vae import VAE
from oniris.core import generator
from oniris.data.clips import Clips
from oniris.data.record import record, replay
from oniris.data.spaces import describe_space
from oniris.diffusion.edm import Denoiser
from oniris.dream.eyes import gaze_loss
from oniris.dream.imagine import LatentDreamer, dream_latents
from oniris.dream.reward import reward_loss, RewardHead
from oniris.dream.train_reward import _mirrored, Rewarded, rewarded, train_reward
from oniris.dream.run import load_run, save_run
from oniris.frames import from_uint8
from oniris.games.lander import lander_clips, lander_on_screen
from oniris.nn.unet import UNet

torch.set_num_threads(1)

@pytest.fixture(scope='module')
def run(tmp_path_factory): # of Squash, untrained
    return squash_run(tmp_path_factory.mktemp('squash'))

def squash_run(folder, stride=1):
    data = Clips(record('Squash-v0', folder/'data', clips=6, frames=16, size=16, policy='random', tail=12, workers=1, test=.3, progress=False))
    torch.manual_seed(0)
    codec = (PatchPCA(2, 3).fit(np.stack([c['frames'] for c in data])) if stride == 1 else
             VAE((3, 8, 3), time_strides=(stride, 1), space_strides=(2, 1)).eval())
    net = UNet(8, 3, 3 * stride, model_channels=8, channel_mult=(1,), window=4)
    return load_run(save_run(folder/'run', Denoiser(net), codec, data, context=4, sampler=dict(steps=1)), 'cpu')

def head_of(run, frames=5):
    torch.manual_seed(1)
    return RewardHead(3, (8, 8), run.action_dim * run.time_stride, frames, width=8, end_scale=2.).eval().requires_grad_(False)

# ---- what can be computed by hand

def test_lambda_returns_are_those_of_the_definition():
    g = generator(0)
    r, p, v, gamma, lam = torch.randn(3, 6, generator=g), torch.rand(3, 6, generator=g), torch.randn(3, 7, generator=g), .9, .7
    on = gamma * (1 - p)
    def n_step(b, t, n): # rewards of n steps, then the value
        total, weight = 0., 1.
        for k in range(t, t + n): total, weight = total + weight * r[b, k], weight * on[b, k]
        return total + weight * v[b, t + n]
    R = lambda_returns(r, on, v, lam)
    for b in range(3):
        for t in range(6):
            left = 6 - t # (1-lam) sum lam^(n-1) R^n, all that is left on the last
            want = sum((1 - lam) * lam ** (n - 1) * n_step(b, t, n) for n in range(1, left)) + lam ** (left - 1) * n_step(b, t, left)
            assert abs(float(R[b, t] - want)) < 1e-5
    assert torch.allclose(still_there(p)[:, 3], (1 - p[:, :3]).prod(1))

def test_at_first_the_gradient_is_reinforce(run):
    policy = make_policy_net(head_of(run), describe_space(spaces.Discrete(3)))
    g = generator(0)
    h, A, w = torch.randn(20, 32, generator=g), torch.randn(20, generator=g), torch.rand(20, generator=g)
    action, logp = policy.choose(h, generator(1))
    loss, _ = actor_critic_loss(policy, h, action, logp, A, policy.value(h).detach(), w, entropy=0.)
    mine = torch.autograd.grad(loss, policy.actor[-1].weight)[0]
    plain = -(w * A * policy.actor(h).log_softmax(-1)[range(20), action]).sum() / w.sum()
    assert torch.allclose(mine, torch.autograd.grad(plain, policy.actor[-1].weight)[0], atol=1e-6)

def test_actions_are_drawn_as_often_as_the_policy_says(run):
    policy = make_policy_net(head_of(run), describe_space(spaces.Discrete(3)))
    with torch.no_grad(): policy.actor[-1].bias.copy_(torch.tensor([.6, .3, .1]).log())
    action, logp = policy.choose(torch.zeros(20000, 32), generator(0))
    assert torch.allclose(torch.bincount(action) / 20000, torch.tensor([.6, .3, .1]), atol=.02)
    assert policy.choose(torch.zeros(1, 32))[0].item() == 0 and abs(logp.exp()[action == 2].mean() - .1) < .01

# ---- a dream that is arithmetic: action 2 pays, the others do not, and nothing is ever over

class Arithmetic:
    device, block = torch.device('cpu'), 1
    def reset(self, z, *_): self.z = z[:, -1:]
    def step(self, vector): return self.z + vector.sum() * 0
class Pays:
    end_scale, config = 1., dict(frames=5, states=[])
    def __init__(self, head): self.head = head
    def __getattr__(self, name): return getattr(self.head, name)
    def expect(self, z, actions, memory): return actions[..., 2], torch.zeros(actions.shape[:2]), memory

def test_it_learns_what_pays(run):
    head, g = head_of(run), generator(0)
    data = Rewarded(torch.randn(4, 8, 3, 8, 8, generator=g).half(), torch.zeros(4, 8, 3), torch.zeros(4, 8), torch.zeros(4, 8, dtype=torch.bool))
    policy = make_policy_net(head, describe_space(spaces.Discrete(3)))
    policy.eyes.requires_grad_(False)
    objective = AgentObjective(policy, Pays(head), Arithmetic(), Moments(data, 2, 5), Learning(dreams=16, horizon=3, gamma=.9, epochs=2, parts=2, entropy=.001), 0)
    opt = torch.optim.Adam([*policy.actor.parameters(), *policy.critic.parameters()], 1e-2)
    paid = []
    for step in range(60):
        loss, logs = objective(step)
        loss.backward(); opt.step(); opt.zero_grad()
        paid += [logs['paid']] if 'paid' in logs else []
    assert paid[0] < 1.6 and paid[-1] > 2.8

# ---- where dreams begin, and what the eyes see

def test_moments_are_alive_and_have_a_past():
    done = torch.zeros(3, 10, dtype=torch.bool)
    done[0, 6:], done[1, :] = True, True
    data = Rewarded(torch.arange(30.).view(3, 10, 1, 1, 1).half(), torch.zeros(3, 10, 2), torch.zeros(3, 10), done)
    moments = Moments(data, 4, 6)
    assert {tuple(v) for v in moments.at.tolist()} == {(0, t) for t in range(3, 6)} | {(2, t) for t in range(3, 10)}
    z, actions, there, cond = moments.draw(50, generator(0))
    assert z.shape == (50, 6, 1, 1, 1) and there[:, -4:].all() and not there.all() and cond is None
    last = z[:, -1].flatten()
    assert (z[:, :, 0, 0, 0][there] == (last[:, None] + torch.arange(-5., 1.))[there]).all()
    with pytest.raises(ValueError, match='before the end'): Moments(Rewarded(data.z, data.actions, data.rewards, torch.ones_like(done)), 4, 6)

def test_eyes_that_open_late_see_as_if_the_game_had_just_begun(run):
    head, g = head_of(run), generator(0)
    z, a = torch.randn(2, 9, 3, 8, 8, generator=g), torch.randn(2, 9, 3, generator=g)
    whole, memory = head.hidden(z, a)
    seen, kept = look_back(head, z, a, torch.ones(2, 9, dtype=torch.bool), 9)
    assert torch.allclose(whole, seen, atol=1e-5) and torch.equal(memory, kept)
    late = torch.arange(9)[None].expand(2, -1) >= 6
    seen, kept = look_back(head, z, a, late)
    fresh, short = head.hidden(z[:, 6:], a[:, 6:])
    assert torch.allclose(seen[:, 0], fresh[:, -1], atol=1e-5) and torch.allclose(kept, short)

@pytest.mark.parametrize('stride', [1, 2])
def test_in_the_game_it_sees_what_was_recorded(tmp_path, stride):
    "A pilot that plays a recorded clip's episode again remembers what the eyes make of the clip's latents"
    run = squash_run(tmp_path, stride)
    policy = make_policy_net(head_of(run), describe_space(spaces.Discrete(3)))
    clip = replay(data := Clips(tmp_path/'data'), 0)
    assert data.first[0] == 0
    frames, actions = (clip[k].reshape(-1, stride, *clip[k].shape[1:]) for k in ('frames', 'actions'))
    pilot = Pilot(run, policy)
    pilot.begin(1)
    for f, a in zip(frames, actions): chosen = pilot(f[None], torch.from_numpy(a[None]))
    z = run.codec.to_latents(from_uint8(clip['frames'][None]))
    h, memory = policy.see(z, torch.from_numpy(clip['actions'].reshape(1, len(frames), -1)))
    assert torch.allclose(memory, pilot.memory, atol=1e-5)
    assert chosen.argmax() == policy.choose(h[:, -1])[0]
    played = play_game(run, pilot, 3, together=2, longest=12, bar=False)
    assert len(played) == 3 and all(0 < g.frames < 12 for g in played)

def test_games_side_by_side_are_those_played_alone(run):
    policy = make_policy_net(head_of(run), describe_space(spaces.Discrete(3)))
    one, two = (play_game(run, Pilot(run, policy), 4, together=n, bar=False) for n in (1, 4))
    assert one == two and all(g.over and not g.landed for g in one)
    assert play_known(run, 'random', 2, longest=5) == play_known(run, 'random', 2, longest=5)

def test_score():
    said = score([Played(10., 5, True, 1.), Played(-10., 5, True, -1.), Played(3., 9, False, 2.)])
    assert said['paid'][0] == 1. and said['landed'][0] == round(1 / 3, 4) and said['crashed'] == 1 and said['episodes'] == 3

# ---- dreams, and the whole way

def test_imagination_is_a_function_of_its_seed_and_pays_what_the_head_says(run, tmp_path):
    head, data = head_of(run), rewarded(run, run.data, 'train', bar=False)
    policy = make_policy_net(head, run.about['action_space'])
    dreamer, moments = LatentDreamer.from_run(run, action_space=None), Moments(data, 4, 5)
    one, same, other = (imagine(dreamer, policy, head, moments, 6, 3, s) for s in (0, 0, 1))
    assert all(torch.equal(u, v) for u, v in zip(one, same)) and not torch.equal(one.z, other.z)
    assert one.z.shape == (6, 8, 3, 8, 8) and one.h.shape == (6, 4, 32)
    hidden, _ = look_back(policy.eyes, one.z, one.actions, one.there, 4) # what it learned from is what it saw
    assert torch.allclose(hidden, one.h, atol=1e-5)
    y = head.read(look_back(head, one.z, one.actions, one.there, 3)[0])
    going, ending, odds = head.split(y)
    p = odds.sigmoid()
    assert torch.allclose(one.over, p, atol=1e-5) and torch.allclose(one.reward, (1 - p) * going + p * ending, atol=1e-4)
    again = dream_latents(run, one.z, one.actions, 5)
    assert again.shape == one.z.shape

def test_training_goes_on_where_it_was_interrupted(run, tmp_path):
    given = dict(head=head_of(run), how=Learning(dreams=4, horizon=2, epochs=2, parts=2), bar=False)
    whole = train_agent(run, run.data, tmp_path/'whole', 8, **given)
    train_agent(run, run.data, tmp_path/'parts', 4, **given)
    parts = train_agent(run, run.data, tmp_path/'parts', 8, **given)
    # the schedule of a longer run is another one, so the first steps differ in rate: only their number can be compared
    assert whole.state_dict().keys() == parts.state_dict().keys()
    again = train_agent(run, run.data, tmp_path/'whole', 8, **given)
    assert all(torch.equal(u, v) for u, v in zip(whole.state_dict().values(), again.state_dict().values()))
    again.save_pretrained(tmp_path/'policy', half=True)
    assert ActorCritic.from_pretrained(tmp_path/'policy').config['codec'] == run.codec.fingerprint(half=True) != ''
    assert not all(torch.equal(u, v) for u, v in zip(whole.eyes.state_dict().values(), given['head'].state_dict().values())), 'eyes without states go on learning'

def test_refusals(run, tmp_path):
    with pytest.raises(ValueError, match='Discrete'): make_policy_net(head_of(run), describe_space(spaces.Box(-1, 1, (2,))))
    with pytest.raises(FileNotFoundError): train_agent(run, run.data, tmp_path/'out', 1)
    with pytest.raises(ValueError, match='end_scale'): RewardHead(3, (8, 8), 3, end_scale=0.)

# ---- the reward head

def test_what_the_loss_asks_of_the_end():
    "The end's reward is asked of every frame after it, in units of its own; a state that is unknown is not asked for"
    head = RewardHead(2, (4, 4), 1, 3, 4, scale=2., end_scale=50., states=[[1., 2.]])
    z, a = torch.randn(2, 6, 2, 4, 4), torch.zeros(2, 6, 1)
    done, rewards = torch.zeros(2, 6, dtype=torch.bool), torch.zeros(2, 6)
    done[0, 3:], rewards[0, 3], rewards[0, 5] = True, -100., 7.
    with torch.no_grad(): head.say.weight.zero_(); head.say.bias.copy_(torch.tensor([0., -2., 0., 0.]))
    states = torch.full((2, 6, 1), torch.nan)
    states[1, 2] = 5.
    _, logs = reward_loss(head, z, a, rewards, done, states)
    assert logs['at_end'] == 0 and logs['going_on'] == 0 and torch.isclose(logs['state'], torch.tensor(4.)) and torch.isclose(logs['over'], torch.tensor(2.).log())
    assert RewardHead(**head.config).config == head.config and torch.equal(copy.deepcopy(head).state_units, head.state_units)

# ---- the command

def test_the_command_trains_plays_and_refuses(tmp_path, capsys):
    run = squash_run(tmp_path)
    with pytest.raises(SystemExit, match='nosuch'): oniris_agent(run='nosuch')
    with pytest.raises(SystemExit, match='no agent'): oniris_agent(run=str(run.path), episodes=1)
    with pytest.raises(SystemExit, match='device: '): oniris_agent(run=str(run.path), device='nosuch')
    head_of(run).save_pretrained(run.path/'reward')
    oniris_agent(run=str(run.path), episodes=2, train=1, steps=2, horizon=2, device='cpu')
    assert 'an agent that has seen nothing but dreams' in (said := capsys.readouterr().out) and 'random: return' in said
    oniris_agent(run=str(run.path), episodes=2, device='cpu')
    assert (run.path/'policy'/'score.json').is_file() and 'agent: return' in capsys.readouterr().out

# ---- eyes that find a place first

def test_a_lander_is_found_before_it_is_looked_at(tmp_path):
    "For a game with a place to look at, the head is trained in two stages"
    clips = lander_clips()
    run = load_run('lander', 'cpu')
    states = torch.from_numpy(clips['states'][:4, :12])
    z = run.codec.to_latents(from_uint8(clips['frames'][:4, :12]))
    data = Rewarded(z.half(), torch.from_numpy(clips['actions'][:4, :12]), torch.randn(4, 12), torch.zeros(4, 12, dtype=torch.bool), states)
    recorded = record('LunarLander-v3', tmp_path/'data', 2, 8, 64, 'random', skip=3, workers=1, progress=False) # only its hash is asked for
    head, errors = train_reward(run, 2, recorded, tmp_path/'reward', batch=2, dreams=2, ahead=2, loaded=(data, data), sight=3, bar=False)
    assert head.config['gaze'] and len(errors['r2_states']) == 8 and 'dreamed' in errors
    again, _ = train_reward(run, 2, recorded, tmp_path/'reward', batch=2, dreams=2, ahead=2, loaded=(data, data), sight=3, bar=False)
    assert all(torch.equal(u, v) for u, v in zip(head.state_dict().values(), again.state_dict().values())), 'what is finished is not trained again'

def test_a_mirrored_state_is_that_of_the_mirrored_picture():
    clips = lander_clips()
    states = torch.from_numpy(clips['states'])
    there, here = (lander_on_screen(s) for s in (_mirrored(states, 'LunarLander-v3'), states))
    assert torch.allclose(there[..., 0], 1 - here[..., 0]) and torch.equal(there[..., 1], here[..., 1])
    assert torch.equal(_mirrored(_mirrored(states, 'LunarLander-v3'), 'LunarLander-v3'), states)
    assert _mirrored(states, 'Squash-v0').isnan().all()

def test_a_gaze_is_told_places_in_sight_only():
    looks = torch.zeros(1, 3, 5)
    places = torch.tensor([[[.5, .5], [1.5, .5], [float('nan')] * 2]])
    assert gaze_loss(looks, places) == 0
    looks[0, 0, 0] = 4 # eighths of half a picture
    assert gaze_loss(looks, places) == 16 * .25
