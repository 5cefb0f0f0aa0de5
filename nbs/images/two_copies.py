"""Draws two_copies.gif, the idea of the course in one animation: the training pass over two copies of a clip, then the same arrows one frame at a
time in a dream with a cache. `python nbs/images/two_copies.py [where.gif]`; it needs matplotlib and Pillow and takes half a minute."""
import io, sys
from pathlib import Path
import matplotlib; matplotlib.use('agg')
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from oniris.frames import from_uint8
from oniris.games.lander import lander_clips
import torch.nn.functional as F

BLUE, ORANGE, GREY, GREEN = '#3b6fb6', '#d9772b', '#c8c8c8', '#3a9a4a'
N = 5
clip = F.avg_pool2d(from_uint8(lander_clips()['frames'][3, 2:2 + 5*N:5]), 2).movedim(1, -1).numpy()/2 + .5        # N frames of 32x32
noise = np.random.default_rng(0).normal(size=(N, 16, 16, 3)).repeat(2, 1).repeat(2, 2)
def noised(i, level): return np.clip(clip[i]*(1 - level) + level*(.5 + .35*noise[i]), 0, 1)

def picture(ax, i, row, image, colour, width=2.):
    "Frame i in row 1 (clean) or 0 (noised); an empty place without an image"
    x, y, r = i*1.5, row*1.95, .62
    if image is not None: ax.imshow(image, extent=(x - r, x + r, y - r, y + r), interpolation='nearest', zorder=2)
    ax.add_patch(plt.Rectangle((x - r, y - r), 2*r, 2*r, fc='none', ec=colour, lw=width, ls='-' if image is not None else ':', zorder=3))

def arrow(ax, j, i, row, colour, width=1.6):
    "From clean frame j to frame i in a row: what i looks at"
    start, end = (j*1.5, 1.95), (i*1.5, row*1.95)
    if row: a, b, bend = (start[0] + .08, start[1] + .64), (end[0] - .08*(i - j), end[1] + .66), -.24
    else: a, b, bend = (start[0], start[1] - .64), (end[0] + .22 - .13*(i - j), end[1] + .66), 0
    ax.annotate('', b, a, arrowprops=dict(arrowstyle='-|>', color=colour, lw=width, mutation_scale=9, connectionstyle=f'arc3,rad={bend}'), zorder=4)

def draw(title, below, clean, low, arrows=(), faint=()):
    "One image: `clean` and `low` are lists of (image or None, colour), arrows of (j, i, row, colour)"
    fig, ax = plt.subplots(figsize=(6.4, 4.02), dpi=80)
    fig.subplots_adjust(0, 0, 1, 1)
    for i, (image, colour) in enumerate(clean): picture(ax, i, 1, image, colour)
    for i, (image, colour) in enumerate(low): picture(ax, i, 0, image, colour)
    for a in faint: arrow(ax, *a, '#dddddd', .9)
    for *a, colour in arrows: arrow(ax, *a, colour)
    ax.text(-.8, 1.95, 'clean', ha='right', va='center', color=BLUE, fontsize=11)
    ax.text(-.8, 0, 'noised', ha='right', va='center', color=ORANGE, fontsize=11)
    ax.text(2.55, 4.02, title, ha='center', fontsize=13, weight='bold')
    ax.text(2.55, -1.08, below, ha='center', fontsize=11, color='#333333')
    ax.set(xlim=(-1.95, 7.05), ylim=(-1.25, 4.4), aspect='equal'); ax.axis('off')
    file = io.BytesIO(); fig.savefig(file, dpi=80); plt.close(fig)
    return Image.open(file).convert('RGB')

def scenes():
    "(image, hundredths of a second) one after the other"
    full_clean, full_low = [(c, BLUE) for c in clip], [(noised(i, .75), ORANGE) for i in range(N)]
    title = 'Training: one pass over two copies'
    among = [(j, i, 1, BLUE) for i in range(N) for j in range(i)]
    yield draw(title, 'a clip, and the same clip with noise on every frame', full_clean, full_low), 180
    yield draw(title, 'a clean frame looks at the clean frames before it', full_clean, full_low, among), 180
    for i in range(N):
        seen = [(j, i, 0, ORANGE) for j in range(i)]
        below = f'noised frame {i} looks at clean frames before it: {", ".join(map(str, range(i))) or "there are none"}'
        yield draw(title, below, full_clean, full_low, seen), 90
    everything = [(j, i, 0, ORANGE) for i in range(N) for j in range(i)]
    yield draw(title, f'all {N} frames are trained at once, each behind its own past', full_clean, full_low, everything + among), 220
    title = 'Dreaming: the same arrows, one frame at a time'
    for i in range(N):
        known = [(c, BLUE) if j < i else (None, GREY) for j, c in enumerate(clip)]
        seen = [(j, i, 0, ORANGE) for j in range(i)]
        for level, words, time in ((1., 'starts as noise', 60), (.55, 'is denoised; the past is read from the cache', 60), (.15, 'is denoised; the past is read from the cache', 60)):
            low = [(noised(i, level), ORANGE) if j == i else (None, GREY) for j in range(N)]
            yield draw(title, f'frame {i} {words}', known, low, seen), time
        kept = [(c, GREEN if j == i else BLUE) if j <= i else (None, GREY) for j, c in enumerate(clip)]
        yield draw(title, f'frame {i} is done, and is written into the cache', kept, [(None, GREY)]*N, [(j, i, 1, BLUE) for j in range(i)]), 80
    yield draw(title, 'every arrow is one of the training pass: the two are the same function', full_clean, [(None, GREY)]*N, everything + among), 250

if __name__ == '__main__':
    where = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix('.gif'))
    images, times = zip(*scenes())
    sheet = Image.new('RGB', (images[0].width, images[0].height*len(images)))
    for k, image in enumerate(images): sheet.paste(image, (0, k*image.height))
    palette = sheet.quantize(48, dither=Image.Dither.NONE)                                   # one palette for all
    frames = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    frames[0].save(where, save_all=True, append_images=frames[1:], duration=[10*t for t in times], loop=0, optimize=True)
    print(f'{where}: {len(frames)} images, {where.stat().st_size/1000:.0f} kB')
