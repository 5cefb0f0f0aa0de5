"""Draws nbs/images/copies.png, the index's picture of the two copies: `python .ci/picture.py`."""
from pathlib import Path
from oniris.core import from_uint8, generator, lander_clips, to_uint8
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt
from oniris.diffusion import noise_like

clip = from_uint8(lander_clips()['frames'][0, ::3][:4])
noise = noise_like(clip, generator(0, stream='picture'))
sigmas, blue, grey = (.25, .8, .4, 1.2), '#1f6fb4', '#b8b8b8'

def frame(ax, x, y, image, text='', colour=grey, side=1.):
    ax.imshow(to_uint8(image), extent=(x, x + side, y, y + side), interpolation='nearest', zorder=2)
    ax.add_patch(plt.Rectangle((x, y), side, side, fill=False, ec=colour, lw=2 if colour == blue else .8, zorder=3))
    if text: ax.text(x + side / 2, y - .07, text, ha='center', va='top', fontsize=8)

def arrow(ax, a, b, colour=grey, **kw):
    kw = dict(arrowstyle='-|>', color=colour, lw=1.6 if colour == blue else .8, shrinkA=1, shrinkB=1, mutation_scale=9) | kw
    ax.annotate('', b, a, arrowprops=kw, zorder=4 if colour == blue else 1)

fig, (left, right) = plt.subplots(1, 2, figsize=(9.6, 2.9), dpi=80, width_ratios=(5.6, 6.8), constrained_layout=True)
for ax, title in (left, 'Training: every noised frame is a lesson, all in one pass'), (right, 'Dreaming: one frame at a time, the past remembered'):
    ax.set_title(title, fontsize=10); ax.axis('off')

for i, s in enumerate(sigmas):
    x, target = 1.3 * i, i == 2
    frame(left, x, 1.75, clip[i], colour=blue if i < 2 else grey)
    frame(left, x, 0, clip[i] + s * noise[i], f'$x_{i}+\\sigma_{i}\\,\\epsilon_{i}$', blue if target else grey)
    for j in range(i): arrow(left, (1.3 * j + .5, 1.73), (x + .3 + .4 * (j + 1) / (i + 1), 1.02), blue if target else grey)
left.text(-.15, 2.25, 'clean copy', rotation=90, ha='right', va='center', fontsize=9)
left.text(-.15, .5, 'noised copy', rotation=90, ha='right', va='center', fontsize=9)
left.set(xlim=(-.5, 5.1), ylim=(-.4, 2.95))

for i in range(2): frame(right, 1.3 * i, 1.75, clip[i], colour=blue); arrow(right, (1.3 * i + .5, 1.73), (2.9 + .4 * i, 1.02), blue)
right.text(-.15, 2.25, 'cache', rotation=90, ha='right', va='center', fontsize=9)
for k, s in enumerate((9., .4, 0.)):
    frame(right, 2.6 + 1.3 * k, 0, clip[2] + s * noise[2], ('pure noise', 'a few evaluations', '$x_2$')[k], blue if k == 0 else grey)
    if k: arrow(right, (2.3 + 1.3 * k, .5), (2.6 + 1.3 * k, .5), 'black')
frame(right, 2.6, 1.75, clip[2]); arrow(right, (5.7, 1.02), (3.62, 2.25), 'black', connectionstyle='arc3,rad=.35')
right.text(4.95, 2.3, 'becomes part\nof the past', ha='left', va='bottom', fontsize=8)
right.set(xlim=(-.5, 6.3), ylim=(-.4, 2.95))
fig.savefig(Path(__file__).resolve().parent.parent/'nbs/images/copies.png')
