// Intersecting activation maps with cells: one field of 512 x 512 pixels, 25 cells, 6 likely classes of 19.
// Usage: node bench/cam_intersection.mjs [python]   python needs numpy and scikit-image; without one there is no ratio.
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { performance } from 'node:perf_hooks';
import { fileURLToPath } from 'node:url';

const { intersectCams } = createRequire(import.meta.url)('../dist/cells/cam_intersection.js');
const SIZE = 512;
const CLASSES = 19;
const MAP = 16;
const RUNS = 15;

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

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}

function measure({ logits, maps, cells }) {
  const call = () => intersectCams({ logits, maps }, cells, { originalSize: [SIZE, SIZE] });
  for (let i = 0; i < 40; i++) call(); // until it is compiled
  const times = Array.from({ length: RUNS }, () => {
    const start = performance.now();
    call();
    return performance.now() - start;
  });
  return { ms: median(times), predictions: call() };
}

/** The peer's time and confidences, or undefined where it cannot run. */
function measurePeer(python, { logits, maps, cells }) {
  const script = fileURLToPath(new URL('peers/cam_intersection.py', import.meta.url));
  const input = JSON.stringify({
    logits: [...logits],
    maps: [...maps.data],
    cells: [...cells.data],
    size: SIZE,
    map: MAP,
  });
  const { status, stdout, stderr } = spawnSync(python, [script], { input, encoding: 'utf8', maxBuffer: 2 ** 26 });
  if (status === 0) return JSON.parse(stdout);
  console.log(`no peer: ${stderr?.trim().split('\n').at(-1) || `cannot run ${python}`}`);
  return undefined;
}

function largestDifference(predictions, confidences) {
  const differences = predictions.flatMap(({ probabilities }, i) =>
    Array.from({ length: 6 }, (_, c) => Math.abs(probabilities[c] - confidences[i][c])),
  );
  return Math.max(...differences);
}

const field = makeField(1);
const { ms, predictions } = measure(field);
console.log(`cellcam: ${ms.toFixed(2)} ms an image (median of ${RUNS})`);
const peer = measurePeer(process.argv[2] ?? 'python3', field);
if (peer) {
  console.log(`numpy and scikit-image: ${peer.ms.toFixed(2)} ms an image (median of ${peer.runs})`);
  console.log(
    `ratio: ${(peer.ms / ms).toFixed(1)}; largest difference: ${largestDifference(predictions, peer.confidences)}`,
  );
}
