// Intersecting activation maps with cells: one field of 512 x 512 pixels, 25 cells, 6 likely classes of 19.
// Usage: node bench/cam_intersection.mjs [--python PYTHON] [--json]   python needs numpy and scikit-image; without one there is no ratio.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { median, peerScript, ratios, show, start } from './report.mjs';

const { intersectCams } = createRequire(import.meta.url)('../dist/cells/cam_intersection.js');
const SIZE = 512;
const CLASSES = 19;
const MAP = 16;
const RUNS = 15;
const ROUNDS = 5;

/** Numbers in [0, 1), the same on every run. */
function generator(seed) {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Discs of different sizes on a grid of five by five. */
function makeCells(random) {
  const data = new Uint16Array(SIZE * SIZE);
  const step = SIZE / 5;
  const radii = Array.from({ length: 25 }, () => step * (0.3 + 0.2 * random()));
  for (let i = 0; i < data.length; i++) {
    const [x, y] = [i % SIZE, Math.floor(i / SIZE)];
    const cell = Math.floor(y / step) * 5 + Math.floor(x / step);
    if (Math.hypot((x % step) - step / 2, (y % step) - step / 2) < radii[cell]) data[i] = cell + 1;
  }
  return { data, shape: [SIZE, SIZE] };
}

function makeField(seed) {
  const random = generator(seed);
  const cells = makeCells(random);
  const logits = Float32Array.from({ length: CLASSES }, (_, c) => (c < 6 ? random() * 3 - 1 : -8));
  const data = Float32Array.from({ length: CLASSES * MAP * MAP }, () => random() * 8 - 4);
  return { logits, maps: { data, shape: [CLASSES, MAP, MAP] }, cells };
}

function measure(call) {
  return Array.from({ length: RUNS }, () => {
    const begin = performance.now();
    call();
    return performance.now() - begin;
  });
}

/** The peer's time and confidences. */
function measurePeer(python, { logits, maps, cells }) {
  const input = JSON.stringify({
    logits: [...logits],
    maps: [...maps.data],
    cells: [...cells.data],
    size: SIZE,
    map: MAP,
  });
  const { status, stdout, stderr } = spawnSync(python, [peerScript('cam_intersection')], {
    input,
    encoding: 'utf8',
    maxBuffer: 2 ** 26,
  });
  if (status !== 0) throw new Error(`${python} failed: ${stderr}`);
  return JSON.parse(stdout);
}

function largestDifference(predictions, confidences) {
  const differences = predictions.flatMap(({ probabilities }, i) =>
    Array.from({ length: 6 }, (_, c) => Math.abs(probabilities[c] - confidences[i][c])),
  );
  return Math.max(...differences);
}

const { values: o } = parseArgs({ options: { python: { type: 'string' }, json: { type: 'boolean', default: false } } });
start(o.json);
const field = makeField(1);
const call = () => intersectCams(field, field.cells, { originalSize: [SIZE, SIZE] });
for (let i = 0; i < 400; i++) call(); // until it is compiled
const rounds = Array.from({ length: o.python ? ROUNDS : 1 }, () => {
  const times = measure(call);
  const peer = o.python ? measurePeer(o.python, field) : undefined;
  return { times: [...times, ...measure(call)], peer }; // around the peer, as a machine does not keep its speed
});
const own = rounds.map(({ times }) => median(times));
const result = (time) => ({ what: 'cells', per_s: 1e3 / time, step_s: time / 1e3 });
show([{ ...result(median(own)), note: '25 cells, 6 classes' }]);
if (o.python) {
  const peers = rounds.map(({ peer }) => peer.ms);
  const note = `, largest difference ${largestDifference(call(), rounds[0].peer.confidences)}`;
  show([{ ...result(median(peers)), peer: 'NumPy + scikit-image', ...ratios(own, peers), note }]);
}
