"""Autoregressive video diffusion world models, derived piece by piece in notebooks.

Importing the package is quick: it loads neither torch nor matplotlib. The names below come with the first use of each (PEP 562),
and `gymnasium.make('oniris/Dream-v0', run=...)` knows the dream as soon as `oniris` is imported, before or after gymnasium."""
__version__ = "0.1.0"

import importlib.machinery, importlib.util, os, sys
# OpenMP reads this once, when torch is loaded: threads that wait must not burn the core that another one needs
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

_HOME = {name: f'oniris.{module}' for module, names in {
    'data.record': 'record', 'data.videos': 'import_videos', 'data.clips': 'Clips',
    'nn.unet': 'UNet', 'nn.dit': 'DiT', 'diffusion.edm': 'Denoiser', 'diffusion.ddpm': 'GaussianDiffusion',
    'diffusion.sampler': 'karras_sigmas', 'codec.codec': 'Codec', 'codec.vae': 'VAE',
    'dream.run': 'load_run Run', 'dream.dreamer': 'Dreamer', 'dream.env': 'DreamEnv DreamVectorEnv',
    'play.player': 'Player', 'play.screen': 'play_widget', 'evaluation.evaluate': 'evaluate',
    'recipes.presets': 'find_preset', 'recipes.train_world': 'train_world',
}.items() for name in names.split()}
__all__ = sorted(_HOME)

def __getattr__(name):
    "A public name, from the module that defines it"
    if name not in _HOME: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    found = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return found

def __dir__(): return sorted({*globals(), *_HOME})

def _register_dream():
    from gymnasium.envs.registration import register, registry
    if 'oniris/Dream-v0' not in registry:
        register('oniris/Dream-v0', entry_point='oniris.dream.env:DreamEnv', vector_entry_point='oniris.dream.env:DreamVectorEnv')

class _AfterGymnasium(importlib.machinery.PathFinder):
    "Registers the dream right after gymnasium is imported, so that `import oniris` need not import it"
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if name != 'gymnasium': return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is None: return None
        load = spec.loader.exec_module
        def exec_module(module): load(module); _register_dream()
        spec.loader.exec_module = exec_module
        return spec

if 'gymnasium' in sys.modules: _register_dream()
else: sys.meta_path.insert(0, _AfterGymnasium)
