// The player's front end: the notebook widget and the local web page both show this.
// mount(el, link) draws it; link.send(message) and link.receive(callback(message, buffers)) are all it knows of the other side.

const SHORT = {' ': 'space', arrowleft: 'left', arrowright: 'right', arrowup: 'up', arrowdown: 'down', control: 'ctrl', '+': 'plus'};
const SHOWN = {left: '←', right: '→', up: '↑', down: '↓', space: '␣'};

export function keyName(e) { // what Python calls a key; digits by their place, for Shift makes other signs of them
  const digit = /^(?:Digit|Numpad)(\d)$/.exec(e.code || '');
  const key = (e.key || '').toLowerCase();
  return digit ? digit[1] : SHORT[key] || key;
}

const bytes = b => b instanceof Uint8Array ? b : new Uint8Array(b.buffer || b, b.byteOffset || 0, b.byteLength);

function draw(canvas, rgb, w, h) { // bytes red, green, blue, row by row
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const image = new ImageData(w, h);
  for (let i = 0, j = 0; i < w * h * 3; i += 3, j += 4) {
    image.data[j] = rgb[i]; image.data[j + 1] = rgb[i + 1]; image.data[j + 2] = rgb[i + 2]; image.data[j + 3] = 255;
  }
  canvas.getContext('2d').putImageData(image, 0, 0);
}

function make(tag, props = {}, ...inside) {
  const el = Object.assign(document.createElement(tag), props);
  el.append(...inside);
  return el;
}

const STYLE = `
.oniris-player { font: 14px/1.5 system-ui, sans-serif; color: #ddd; background: #17181c; border-radius: 10px; padding: 16px; outline: none; box-sizing: border-box; max-width: 720px; }
.oniris-player:focus { box-shadow: 0 0 0 2px #6c8cff; }
.oniris-player .row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 10px; }
.oniris-player .screens { display: flex; gap: 16px; align-items: flex-start; }
.oniris-player figure { margin: 0; flex: 1 1 0; min-width: 0; max-width: 420px; }
.oniris-player figcaption { color: #9aa; font-size: 12px; min-height: 18px; }
.oniris-player canvas { image-rendering: pixelated; display: block; width: 100%; background: #000; border-radius: 4px; }
.oniris-player .strip { height: 44px; width: auto; }
.oniris-player button, .oniris-player select { font: inherit; color: #eee; background: #2b2d35; border: 1px solid #444854; border-radius: 6px; padding: 3px 10px; cursor: pointer; }
.oniris-player button:hover { background: #383b46; }
.oniris-player button:disabled { opacity: .4; cursor: default; }
.oniris-player .on { background: #4a66d8; border-color: #6c8cff; }
.oniris-player .rec.on { background: #b3303a; border-color: #e0525c; }
.oniris-player .chip b { color: #fff; margin-right: 6px; }
.oniris-player .chip { padding: 1px 8px; touch-action: none; user-select: none; }
.oniris-player .chip.wait { border-style: dashed; border-color: #ffce5c; }
.oniris-player .status { color: #9aa; font-size: 12px; font-variant-numeric: tabular-nums; }
.oniris-player .note { color: #ffce5c; min-height: 21px; }
.oniris-player label { color: #9aa; font-size: 12px; display: flex; gap: 4px; align-items: center; }
.oniris-player [hidden] { display: none; }`;

export function mount(el, link) {
  let about = null, state = {playing: false}, down = [], editing = false, waiting = null;
  const send = (type, more = {}) => link.send({type, ...more});

  const dream = make('canvas'), game = make('canvas'), strip = make('canvas', {className: 'strip', title: 'the real frames that the dream goes on from'});
  const dreamSays = make('figcaption', {textContent: 'the dream'}), gameSays = make('figcaption', {textContent: 'the game, same keys'});
  const beside = make('figure', {hidden: true}, game, gameSays);
  const button = (text, title, act, className = '') => make('button', {textContent: text, title, className, onclick: () => { act(); root.focus(); }});
  const choose = (title, act) => make('select', {title, onchange: e => { act(Number(e.target.value)); root.focus(); }});
  const play = button('▶ play', 'play or pause (Escape)', () => send('play', {on: !state.playing}), 'play');
  const step = button('one frame', 'dream a single frame (.)', () => send('step'));
  const again = button('another start', 'begin from other real frames (Backspace)', () => send('reset'));
  const starts = choose('which real frames to begin from', v => send('reset', {start: v}));
  const speed = choose('speed', v => send('speed', {value: v})), evals = choose('network evaluations a frame', v => send('steps', {value: v}));
  const evaluations = make('label', {}, 'evaluations', evals);
  const both = button('game beside', 'let the real simulator play the same keys', () => send('compare', {on: !state.compare}));
  const agent = button('agent plays', 'let the agent play, or play yourself; while keys are down, you do', () => send('agent', {on: !state.agent}), 'agent');
  const rec = button('● record', 'keep the frames', () => send('record', {on: !state.recording}), 'rec');
  const films = ['gif', 'mp4'].map(kind => button(kind.toUpperCase(), `save what was recorded as ${kind}`, () => send('film', {kind})));
  const edit = button('edit keys', 'click a key below, then press another', () => { editing = !editing; waiting = null; chips(); });
  const keys = make('div', {className: 'row keys'}), status = make('div', {className: 'status'}), note = make('div', {className: 'note'});
  const root = make('div', {className: 'oniris-player', tabIndex: 0}, make('style', {textContent: STYLE}),
    make('div', {className: 'screens'}, make('figure', {}, dream, dreamSays), beside),
    make('div', {className: 'row'}, strip),
    make('div', {className: 'row'}, play, step, again, make('label', {}, 'start', starts), make('label', {}, 'speed', speed), evaluations),
    make('div', {className: 'row'}, both, agent, rec, ...films, edit), keys, status, note);
  root.dataset.lmSuppressShortcuts = 'true'; // or JupyterLab would take letters for its own commands
  el.append(root);

  function hold(names, on) {
    const next = down.filter(k => !names.includes(k)).concat(on ? names : []);
    if (next.length === down.length && next.every((k, i) => k === down[i])) return;
    down = next;
    send('press', {down});
    for (const c of keys.querySelectorAll('.chip')) c.classList.toggle('on', c.dataset.keys.split('+').every(k => down.includes(k)));
  }

  function chips() {
    edit.classList.toggle('on', editing);
    keys.replaceChildren(...Object.entries(about ? about.keys : {}).map(([combo, what]) => {
      const shown = combo.split('+').map(k => SHOWN[k] || k).join(' ');
      const chip = make('button', {className: 'chip' + (waiting === combo ? ' wait' : '')}, make('b', {textContent: shown}), about.names[combo] || String(what));
      chip.dataset.keys = combo;
      chip.onpointerdown = e => { e.preventDefault(); root.focus(); if (editing) { waiting = combo; chips(); } else { chip.setPointerCapture(e.pointerId); hold(combo.split('+'), true); } };
      chip.onpointerup = chip.onpointercancel = () => { if (!editing) hold(combo.split('+'), false); };
      return chip;
    }));
    if (about && about.rest) keys.append(make('span', {className: 'status', textContent: `nothing down: ${about.rest}`}));
  }

  function rebind(key) { // the key that waits gets another name; one that had this name loses it
    const renamed = Object.entries(about.keys).filter(([k]) => k !== key || k === waiting).map(([k, v]) => [k === waiting ? key : k, v]);
    waiting = null;
    send('bind', {keys: Object.fromEntries(renamed)});
  }

  let quiet = 0;
  function say(text) { note.textContent = text; clearTimeout(quiet); if (!link.closed) quiet = setTimeout(() => { note.textContent = ''; }, 8000); }

  const isBound = key => about && Object.keys(about.keys).some(combo => combo.split('+').includes(key));
  function onKey(e) {
    if (/^(INPUT|SELECT|TEXTAREA)$/.test(e.target.tagName) || !about) return;
    const key = keyName(e), on = e.type === 'keydown';
    if (e.metaKey || e.altKey || (e.ctrlKey && key !== 'ctrl')) { if (!on) hold([key], false); return; }
    const rules = {escape: () => send('play', {on: !state.playing}), '.': () => send('step'), backspace: () => send('reset')};
    if (!waiting && !isBound(key) && !(key in rules)) return;
    e.preventDefault(); e.stopPropagation();
    if (e.repeat) return;
    if (waiting) { if (on) { if (key === 'escape') { waiting = null; chips(); } else rebind(key); } }
    else if (isBound(key)) hold([key], on);
    else if (on) rules[key]();
  }

  const ears = link.page ? window : root; // a page is all ours, a notebook is not
  const away = () => { hold([...down], false); };
  const hidden = () => { if (document.hidden && state.playing) send('play', {on: false}); };
  ears.addEventListener('keydown', onKey); ears.addEventListener('keyup', onKey);
  ears.addEventListener('blur', away); document.addEventListener('visibilitychange', hidden);

  let moved = [0, 0];
  const locked = () => about && about.mouse && document.pointerLockElement === dream;
  dream.onclick = () => { root.focus(); if (about && about.mouse && !locked()) dream.requestPointerLock(); };
  dream.onmousemove = e => { if (locked()) { moved[0] += e.movementX; moved[1] += e.movementY; } };
  dream.onmousedown = dream.onmouseup = e => { if (locked()) hold(['mouse' + (e.button === 2 ? 2 : 1)], e.type === 'mousedown'); };
  dream.oncontextmenu = e => { if (about && about.mouse) e.preventDefault(); };

  function options(select, values, value, text = String) {
    const wanted = values.join();
    if (select.dataset.values !== wanted) {
      select.replaceChildren(...values.map(v => make('option', {value: v, textContent: text(v)})));
      select.dataset.values = wanted;
    }
    select.value = value;
  }

  function show(s) {
    state = s;
    play.textContent = s.playing ? '❚❚ pause' : '▶ play';
    play.classList.toggle('on', s.playing);
    both.classList.toggle('on', s.compare); both.disabled = !about.game; both.hidden = evaluations.hidden = !s.steps; // a game is not dreamed
    agent.hidden = s.agent === undefined; agent.classList.toggle('on', !!s.agent);
    rec.classList.toggle('on', s.recording);
    rec.textContent = s.kept ? `● ${s.kept}` : '● record';
    for (const f of films) f.disabled = !s.kept;
    options(speed, [...new Set([.1, .25, .5, 1, 2, 4, s.speed])].sort((a, b) => a - b), s.speed, v => v + '×');
    if (s.steps) options(evals, [...new Set([1, 2, 3, 4, 6, 8, 16, s.steps])].sort((a, b) => a - b), s.steps);
    options(starts, [...Array(about.starts).keys()], s.start);
    beside.hidden = !s.compare;
    dreamSays.textContent = `${about.title}, frame ${s.frame}${s.action ? ' · ' + s.action : ''}${s.ended ? ' · ' + s.ended : ''}${s.paid == null ? '' : ` · paid ${Math.round(s.paid)}`}`;
    gameSays.textContent = s.beside || '';
    status.textContent = `${s.fps.toFixed(1)} frames/s of ${(about.fps * s.speed).toFixed(1)} · ${(1000 * s.cost).toFixed(0)} ms to make a frame` +
      (s.steps ? ` · ${s.steps} evaluation${s.steps === 1 ? '' : 's'} a frame · ${about.device}` : '');
    root.dataset.frame = s.frame;
  }

  link.receive((m, buffers) => {
    const parts = buffers.map(bytes);
    if (m.type === 'about') {
      about = m; editing = editing && waiting !== null; chips();
      draw(strip, parts[0], m.strip[1], m.strip[0]);
    } else if (m.type === 'state' && about) {
      show(m);
      const [h, w] = about.size;
      if (parts[0]) draw(dream, parts[0], w, h);
      if (parts[1]) draw(game, parts[1], w, h);
      if (parts[0]) send('seen', {tick: m.tick});
      if (moved[0] || moved[1]) { send('mouse', {move: moved}); moved = [0, 0]; }
    } else if (m.type === 'note') say(m.text);
    else if (m.type === 'film') {
      const a = make('a', {href: URL.createObjectURL(new Blob([parts[0]], {type: m.mime})), download: m.name});
      a.click();
      setTimeout(() => URL.revokeObjectURL(a.href), 10000);
      say(`${m.name}: ${(parts[0].length / 1000).toFixed(0)} kB`);
    }
  });
  send('hello', {acks: true});
  return () => {
    ears.removeEventListener('keydown', onKey); ears.removeEventListener('keyup', onKey);
    ears.removeEventListener('blur', away); document.removeEventListener('visibilitychange', hidden);
    root.remove();
  };
}

// the notebook: messages go through the widget's model
export default {
  render({model, el}) {
    let hear = () => {};
    const link = {send: m => model.send(m), receive: f => { hear = (m, buffers) => f(m, buffers || []); model.on('msg:custom', hear); }};
    const remove = mount(el, link);
    return () => { remove(); model.off('msg:custom', hear); model.send({type: 'away'}); };
  },
};

// the page: messages go through a WebSocket: the length of the JSON (4 bytes, little end first), the JSON, the buffers
export function connect(el) {
  const socket = new WebSocket(new URL('socket', location.href.replace(/^http/, 'ws')));
  let hear = () => {}, link = null;
  socket.binaryType = 'arraybuffer';
  socket.onmessage = e => {
    const n = new DataView(e.data).getUint32(0, true), m = JSON.parse(new TextDecoder().decode(new Uint8Array(e.data, 4, n)));
    let at = 4 + n;
    hear(m, m.sizes.map(size => new Uint8Array(e.data, (at += size) - size, size)));
  };
  socket.onopen = () => {
    link = {page: true, send: m => { if (socket.readyState === 1) socket.send(JSON.stringify(m)); }, receive: f => { hear = f; }};
    mount(el, link);
    el.querySelector('.oniris-player').focus();
  };
  socket.onclose = e => {
    if (link) link.closed = true; // what is said now stays
    hear({type: 'note', text: e.reason || 'the player has ended: start it again and open its new address'}, []);
  };
}
