"An agent at a player's controls, in worlds that have learned nothing: what each pilot sees, a person who takes over, what is refused. Run: pytest tests/test_show.py"
import copy, io, json, subprocess, sys
import numpy as np, pytest, torch
from gymnasium import spaces
from PIL import Image
import oniris.games.squash  # noqa: registers the game
from oniris.agents.actor_critic import make_policy_net
from oniris.agents.agent import load_pilot
from oniris.agents.score import Pilot
from oniris.codec.codec import PatchPCA
from oniris.codec.vae import VAE
from oniris.data.clips import Clips
from oniris.data.record import record, replay
from oniris.data.spaces import describe_space
from oniris.diffusion.edm import Denoiser
from oniris.dream.reward import RewardHead
from oniris.dream.run import load_run, save_run
from oniris.frames import from_uint8
from oniris.nn.unet import UNet
from oniris.play.player import Player
from oniris.play.recorder import Recorder
from oniris.play.screen import oniris_play, play_widget
from oniris.play.show import AgentPlayer, fly, side_by_side

torch.set_num_threads(1)

def squash_run(folder, stride=1, **sizes): # with an agent and a reward head that have learned nothing either
    data = Clips(record('Squash-v0', folder/'data', clips=6, frames=16, size=16, policy='random', tail=12, workers=1, test=.3, progress=False))
    torch.manual_seed(0)
    codec = (PatchPCA(2, 3).fit(np.stack([c['frames'] for c in data])) if stride == 1 else
             VAE((3, 8, 3), time_strides=(stride, 1), space_strides=(2, 1)).eval())
    net = UNet(8, 3, 3 * stride, model_channels=8, channel_mult=(1,), window=4, **sizes)
    run = load_run(save_run(folder/'run', Denoiser(net), codec, data, context=4, sampler=dict(steps=1)), 'cpu')
    torch.manual_seed(1)
    head = RewardHead(3, (8, 8), 3 * stride, 5, width=8, end_scale=2.)
    policy = make_policy_net(head, run.about['action_space'])
    with torch.no_grad(): # it has opinions
        for p in policy.parameters(): p.copy_(4 * p if p.ndim > 1 else 0 * p)
        policy.actor[0].weight.fill_(1)
    head.save_pretrained(run.path/'reward')
    policy.save_pretrained(run.path/'policy')
    return run

@pytest.fixture(scope='module')
def run(tmp_path_factory): return squash_run(tmp_path_factory.mktemp('squash'))

@pytest.mark.parametrize('stride, block', [(1, 1), (2, 1), (1, 2)])
def test_each_pilot_sees_its_own_world_and_nothing_else(tmp_path, stride, block):
    run = squash_run(tmp_path, stride, block=block)
    player, latents = AgentPlayer(run, start=1), []
    make = player.dreamer.step
    def step(action):
        video = make(action)
        latents.append(player.dreamer.latents)
        return video
    player.dreamer.step = step
    pictures = []
    for k in range(8):
        player.tick()
        if not player.game.over: pictures.append(player.game.picture)
    start, policy = run.start(1), player.pilots['dream'].policy
    def grouped(actions): return torch.as_tensor(np.stack(actions)).reshape(1, -1, 3 * stride)
    def asked(z, actions): # the actions that a policy wants after each latent
        h, memory = policy.see(z, torch.cat([start.actions.reshape(1, -1, 3 * stride), grouped(actions)], 1))
        return policy.choose(h[0])[0].tolist(), memory
    z = run.codec.to_latents(start.frames)
    wanted, memory = asked(torch.cat([z, *latents], 1), player.actions)
    assert torch.allclose(memory, player.pilots['dream'].memory, atol=1e-5)
    first = z.shape[1] - 1
    assert [int(a.argmax()) for a in player.actions] == [w for w in wanted[first:-1:block] for _ in range(stride * block)]
    seen = len(pictures) // stride * stride # frames of latents that are complete
    assert seen >= 2
    z = run.codec.to_latents(torch.cat([start.frames, from_uint8(np.stack(pictures[:seen])[None])], 1))
    led = player.game.actions[player.game.past:]
    wanted, _ = asked(z, led[:seen])
    assert [int(a.argmax()) for a in led[:seen]] == [w for w in wanted[first:-1] for _ in range(stride)]
    assert {int(a.argmax()) for a in led + player.actions} != {0}

def test_a_flight_is_a_function_of_its_start_and_seed(run):
    one, same, other = (side_by_side(run, start=1, seed=s, longest=12) for s in (0, 0, 1))
    assert np.array_equal(one.kept, same.kept) and one.summary() == same.summary()
    assert not np.array_equal(one.picture, other.picture)
    assert np.array_equal(np.stack(one.kept)[:, 1], np.stack(other.kept)[:, 1]), 'the game knows nothing of the dream and its seed'

def test_a_person_takes_over_and_hands_back(run):
    player = AgentPlayer(run)
    mine = next(iter(player.keys.bound))
    player.handle(dict(type='press', down=[mine])); player.tick()
    assert player.action.tolist() == player.game.actions[-1].tolist() == player.keys.vector([mine]).tolist()
    assert 'same keys' in player.state()[0]['beside']
    player.handle(dict(type='press', down=[])); player.tick()
    assert not player.by_hand and 'by its own eyes' in player.state()[0]['beside']
    about, state = player.handle(dict(type='agent', on=False))
    assert not state[0]['agent'] and about[0]['rest'] == player.keys.resting()
    player.tick()
    assert player.by_hand
    assert player.handle(dict(type='agent', on=True))[0][0]['rest'] == 'the agent plays'
    with pytest.raises(ValueError, match='nobody plays here but you'): Player(run).handle(dict(type='agent', on=True))

def test_a_game_that_is_called_in_late_was_led_by_the_dreams_actions(run):
    player = AgentPlayer(run, compare=False)
    for _ in range(2): player.tick()
    player.handle(dict(type='compare', on=True))
    led = player.game.actions[player.game.past:]
    assert np.array_equal(led, player.actions[:len(led)]) and player.pilots['game'].looks == run.context + len(led)
    player.handle(dict(type='compare', on=False)); player.tick()
    assert len(player.pictures()) == 1

def test_another_start_forgets(run):
    player = fly(AgentPlayer(run), longest=6)
    player.reset(1)
    fresh = AgentPlayer(run, start=1)
    assert player.ends == {} and player.did is None and all(p.looks == run.context for p in player.pilots.values())
    assert all(torch.equal(player.pilots[k].memory, fresh.pilots[k].memory) for k in ('dream', 'game'))

def test_what_is_paid_and_how_it_ends(run):
    player = fly(AgentPlayer(run), longest=60)
    rewards = []
    twin = AgentPlayer(run)
    while not twin.game.over and twin.frame < 60:
        twin.tick()
        rewards.append(float(twin.game.reward))
    assert player.game.over and player.game.paid == pytest.approx(sum(rewards)) and player.game.last == rewards[-1] == -1
    assert player.ends['game'] == len(rewards) and f'the game: over after {len(rewards)} frames, paid {sum(rewards):.0f}' in player.summary()
    json.dumps(player.state()[0])

def test_what_it_meets_in_the_game_becomes_a_dataset_that_replays(run, tmp_path):
    recorder = Recorder(tmp_path/'met', frames=3)
    player = AgentPlayer(run, watch=recorder)
    for start in range(4):
        player.reset(start)
        for _ in range(5): player.tick()
    data = Clips(recorder.close())
    assert 'an agent, in the game' == data.about['policy']
    for i in range(len(data)): assert np.array_equal(replay(data, i)['frames'], data[i]['frames'])

def test_whoever_knows_three_things_can_be_the_pilot(run):
    class Still:
        def begin(self, games): pass
        def look(self, latents, actions): return torch.tensor([[0., 1., 0.]])
        def __call__(self, pictures, actions): return self.look(pictures, actions)
    player = AgentPlayer(run, Still())
    for _ in range(3): player.tick()
    assert {int(a.argmax()) for a in player.actions} == {1}

def test_in_a_notebook(run):
    widget = play_widget(AgentPlayer(run), plain=True)
    try: assert widget.player.who == 'an agent'
    finally: widget.stage.close()

# ---- what is refused, before anything is dreamed

def test_agents_of_other_worlds(run, tmp_path):
    policy = load_pilot(run).policy
    narrow = make_policy_net(RewardHead(3, (4, 4), 3, 5, width=8), run.about['action_space'])
    three = make_policy_net(RewardHead(3, (8, 8), 3, 5, width=8), describe_space(spaces.Discrete(4)))
    for other in (narrow, three):
        other.save_pretrained(tmp_path/'other')
        with pytest.raises(ValueError, match='policy: expected one of this world'): AgentPlayer(run, tmp_path/'other')
    elsewhere = load_pilot(run).policy # the same sizes, another codec
    elsewhere.config['codec'] = run.codec.fingerprint(half=True)
    Pilot(run, elsewhere)
    elsewhere.config['codec'] = 'of another run'
    elsewhere.save_pretrained(tmp_path/'elsewhere')
    with pytest.raises(ValueError, match='another codec'): AgentPlayer(run, tmp_path/'elsewhere')
    boxed = copy.copy(run)
    boxed.manifest = run.manifest | dict(about=run.about | dict(action_space=describe_space(spaces.Box(-1, 1, (3,)))))
    with pytest.raises(ValueError, match='expected a Discrete space'): Pilot(boxed, policy)
    with pytest.raises(FileNotFoundError, match='no agent'): AgentPlayer(run, tmp_path/'nowhere')
    (tmp_path/'other'/'model.safetensors').write_bytes(b'broken')
    with pytest.raises(ValueError, match='sha256'): AgentPlayer(run, tmp_path/'other')

@pytest.mark.parametrize('env_id, said', [('NoSuchGame-v0', 'NoSuchGame-v0 cannot be made here'), (None, 'not recorded from a simulator')])
def test_games_that_are_not_there(run, env_id, said):
    other = copy.copy(run)
    about = {k: v for k, v in run.about.items() if k != 'env_id'} | (dict(env_id=env_id) if env_id else {})
    other.manifest = run.manifest | dict(about=about)
    with pytest.raises(ValueError, match=said): AgentPlayer(other)

@pytest.mark.parametrize('wrong, said', [
    (dict(agent='own', env='CartPole-v1'), 'leave out --env'), (dict(agent='own', static='page'), 'leave out --static'), (dict(out='film.gif'), 'expected --agent'),
    (dict(agent='own', out='film.avi'), 'a .gif or an .mp4'), (dict(agent='nowhere'), 'no agent'), (dict(agent='own', start=99), 'start'),
    (dict(agent='own', out='film.gif', steps=-1), 'steps')])
def test_the_command_says_in_a_line_what_does_not_go_together(run, wrong, said):
    with pytest.raises(SystemExit, match=said): oniris_play(**dict(run=str(run.path), device='cpu') | wrong)

# ---- the command

@pytest.mark.parametrize('kind', ['gif', 'mp4'])
def test_the_command_films_a_flight(run, tmp_path, capsys, kind):
    if kind == 'mp4': pytest.importorskip('av')
    oniris_play(run=str(run.path), device='cpu', agent='own', out=str(tmp_path/f'flight.{kind}'), record=str(tmp_path/'met'), frames=2)
    said = capsys.readouterr().out
    assert 'the dream: ' in said and 'the game: over' in said and 'what was played' in said
    film = (tmp_path/f'flight.{kind}').read_bytes()
    if kind == 'gif': assert Image.open(io.BytesIO(film)).n_frames > 3
    assert len(Clips(tmp_path/'met')) >= 1

def test_without_an_agent_nothing_of_agents_is_imported():
    code = ('import sys; from oniris.play.screen import oniris_play\n'
            "try: oniris_play(run='lander', device='cpu', port=99999)\n"
            'except SystemExit: pass\n'
            "assert 'oniris.play.player' in sys.modules and not any(m.startswith('oniris.agents') for m in sys.modules)")
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)

def test_an_option_whose_value_may_be_left_out():
    from fastcore.script import anno_parser
    parser = anno_parser(oniris_play)
    assert [parser.parse_args(line.split()).agent for line in ('', '--agent', '--agent DIR', '--agent --browse')] == ['', 'own', 'DIR', 'own']
