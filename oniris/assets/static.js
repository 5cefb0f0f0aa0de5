// The player without a Python behind it: the graphs that ONNX Runtime runs on a desktop, run by onnxruntime-web on this page.
// Nothing is fetched but the files that lie beside it. `oniris_play --static DIR` writes them.
import * as ort from './ort.wasm.min.mjs';
import { mount } from './play.js';

const ARRAYS = {float32: Float32Array, int64: BigInt64Array, bool: Uint8Array};
const size = shape => shape.reduce((a, b) => a * b, 1);
const fetched = async name => { // bytes of a file beside the page
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.arrayBuffer();
};

function normals(seed) { // numbers ~ N(0,1), the same for the same seed: mulberry32 and Box-Muller
  let a = seed >>> 0;
  const uniform = () => {
    a = (a + 0x6D2B79F5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), a | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return n => Float32Array.from({length: n}, () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform()));
}

export class Dream { // a world's two graphs and what it remembers: what `OnnxStep` does in Python
  constructor(world, step, decode) { Object.assign(this, {world, step, decode}); }

  async reset(start) { // the memory of a real past, as Python left it
    const {inputs, memory} = this.world, bytes = await fetched(`start${start}.bin`);
    let at = 0;
    const take = (kind, n) => { const A = ARRAYS[kind], v = new A(bytes, at, n); at += Math.ceil(n * A.BYTES_PER_ELEMENT / 8) * 8; return v.slice(); };
    this.given = {};
    for (const name of memory) this.given[name] = new ort.Tensor(inputs[name].type, take(inputs[name].type, size(inputs[name].shape)), inputs[name].shape);
    this.age = this.world.context;
    this.strip = take('bool', size(this.world.about.strip) * 3);
    this.picture = take('bool', size(this.world.about.size) * 3);
  }

  async make(start, context, action) { // two noises and an action vector (null in a world without) -> the latents; the memory goes on
    const {inputs, outputs, states} = this.world;
    const tensor = (name, data) => new ort.Tensor('float32', data, inputs[name].shape);
    const given = {...this.given, start: tensor('start', start), context: tensor('context', context)};
    if (action) given.action = tensor('action', action);
    const out = await this.step.run(given);
    for (const s of states) this[s.kind](s, out);
    this.age += 1;
    return out[outputs[0]];
  }

  conv(s, out) { // what the past will say to the next frames
    const [ahead, seen] = s.reads;
    this.given[ahead] = out[s.told[0]];
    this.given[seen].data[0] += 1n;
  }

  previous(s, out) { this.given[s.reads[0]] = out[s.told[0]]; }

  ring(s, out) { // frame i overwrites frame i - window; then the mask and the phase of the next frame
    const [k, v, mask, cos, sin] = s.reads.map(name => this.given[name].data), {heads, slots, tokens, width} = s;
    const window = slots - 1, slot = this.age % window, piece = tokens * width, next = this.age + 1;
    for (let m = 0; m < heads; m++)
      for (const [ring, told] of [[k, s.told[0]], [v, s.told[2]]])
        ring.set(out[told].data.subarray(m * piece, (m + 1) * piece), (m * slots + slot) * piece);
    mask.fill(0, 0, Math.min(next, window) * tokens);
    for (let p = 0; p < cos.length; p++) {
      const angle = next * 1000 ** (-p / cos.length);
      cos[p] = Math.cos(angle); sin[p] = Math.sin(angle);
    }
  }

  async frame(z) { // bytes red, green, blue of the picture that the latents stand for
    const video = (await this.decode.run({z}))[this.world.frames].data, [h, w] = this.world.about.size, rgb = new Uint8Array(h * w * 3);
    for (let c = 0; c < 3; c++)
      for (let i = 0; i < h * w; i++) rgb[3 * i + c] = Math.round(127.5 * (1 + Math.max(-1, Math.min(1, video[c * h * w + i]))));
    return rgb;
  }
}

function actionOf({kind, width, bound, rest, low, high}, down, last) { // what `Keys.vector` does in Python
  const held = Object.keys(bound).filter(combo => combo.split('+').every(k => down.includes(k)));
  const v = new Float32Array(width);
  if (kind === 'Box') {
    v.set(rest);
    for (const combo of held) v[bound[combo][0]] += bound[combo][1];
    return v.map((x, i) => Math.max(low[i], Math.min(high[i], x)));
  }
  const rank = combo => combo.split('+').length * 100 + Math.max(...combo.split('+').map(k => down.indexOf(k)));
  if (held.length) v[bound[held.reduce((a, b) => rank(b) > rank(a) ? b : a)]] = 1;
  else if (rest !== null) v[rest] = 1;
  else if (last) return last;
  else v[0] = 1;
  return v;
}

class Player { // hears what play.js says and answers as `Player` does in Python
  constructor(dream) {
    Object.assign(this, {dream, start: 0, playing: false, speed: 1, down: [], tapped: [], tick: 0, begun: 0, cost: 0, times: [], busy: Promise.resolve()});
    this.hear = () => {};
  }
  send(message) { // one after the other: a dream takes one step at a time
    const {type, ...given} = message;
    if (type === 'press') { this.tapped.push(...given.down.filter(k => !this.down.includes(k))); this.down = given.down; return; }
    if (['seen', 'mouse', 'away'].includes(type)) return;
    this.busy = this.busy.then(() => this['on_' + type] ? this['on_' + type](given) : this.note(`${type}: only with oniris_play`)).catch(e => this.note(String(e)));
  }
  receive(f) { this.hear = f; }
  note(text) { this.hear({type: 'note', text}, []); }

  async on_hello() { await this.on_reset({start: 0}); }
  async on_reset({start}) {
    const {about} = this.dream.world;
    this.start = start === undefined ? (this.start + 1) % about.starts : start;
    await this.dream.reset(this.start);
    Object.assign(this, {frame: 0, action: null, picture: this.dream.picture, normal: normals(1 + this.begun++)});
    this.hear(about, [this.dream.strip]);
    this.show(true);
  }
  on_play({on}) { this.playing = on; this.times = []; this.next = performance.now(); this.show(); if (on) this.go(); }
  async on_step() { this.playing = false; await this.advance(); }
  on_speed({value}) { this.speed = value; this.show(); }
  on_compare() { this.note('there is no game beside a page without Python'); }

  go() { // the next frame, when it is due
    if (!this.playing) return;
    setTimeout(() => { this.busy = this.busy.then(async () => { if (this.playing) { await this.advance(); this.go(); } }).catch(e => { this.playing = false; this.note(String(e)); this.show(); }); },
      Math.max(0, this.next - performance.now()));
  }
  async advance() {
    const began = performance.now(), {world} = this.dream, n = size(world.inputs.start.shape);
    const down = this.down.concat(this.tapped.filter(k => !this.down.includes(k)));
    this.tapped = [];
    this.action = world.actions && actionOf(world.actions, down, this.action);
    this.picture = await this.dream.frame(await this.dream.make(this.normal(n), this.normal(n), this.action));
    const now = performance.now();
    this.cost = (now - began) / 1000; this.frame += 1; this.tick += 1;
    this.times = [...this.times, now].slice(-20);
    this.next = Math.max((this.next || 0) + 1000 / (world.about.fps * this.speed), now);
    this.show(true);
  }
  show(pictures = false) {
    const t = this.times, {world} = this.dream, names = world.actions && world.actions.names;
    const fps = t.length > 1 && this.playing ? 1000 * (t.length - 1) / (t[t.length - 1] - t[0]) : 0;
    const doing = this.action && names && world.actions.kind === 'Discrete' ? names[this.action.indexOf(1)] || '' : '';
    this.hear({type: 'state', tick: this.tick, frame: this.frame, start: this.start, action: doing, playing: this.playing, speed: this.speed, fps,
      cost: this.cost, recording: false, kept: 0, ended: '', paid: null, steps: world.steps, compare: false, beside: ''}, pictures ? [this.picture] : []);
  }
}

export async function connect(el) {
  ort.env.wasm.numThreads = 1; // more would need headers that a plain server does not send
  ort.env.wasm.wasmPaths = new URL('./', import.meta.url).href;
  const graph = async name => ort.InferenceSession.create(await fetched(name), {executionProviders: ['wasm']});
  const world = JSON.parse(new TextDecoder().decode(await fetched('world.json')));
  const player = new Player(new Dream(world, await graph('step.onnx'), await graph('decode.onnx')));
  el.replaceChildren();
  mount(el, {page: true, send: m => player.send(m), receive: f => player.receive(f)});
  el.querySelector('.oniris-player').focus();
  return player;
}
