"""How many bytes a computation holds at once, counted as its tensors come and go: for tests/test_codec_memory.py and bench/groups.py"""
import weakref
import torch
from torch.utils._python_dispatch import TorchDispatchMode

class Bytes(TorchDispatchMode):
    "Bytes of new storages that are alive, and the most there were since `begin`"
    def __init__(self):
        super().__init__()
        self.alive, self.now, self.most = {}, 0, 0

    def begin(self): self.most = self.now

    def free(self, key): self.now -= self.alive.pop(key)

    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        out = f(*args, **(kwargs or {}))
        for t in out if isinstance(out, (tuple, list)) else [out]:
            if not torch.is_tensor(t) or t.untyped_storage()._cdata in self.alive: continue
            storage = t.untyped_storage()
            self.alive[storage._cdata] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self.free, storage._cdata)
        return out
